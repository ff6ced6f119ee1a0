"""Time models on engines, turn by turn, and say in words what that means on this CPU.

`python -m helpers benchmark runs/dense-onnx runs/sparse-onnx --engines deepsparse,openvino`;
a model is an .onnx file, the folder of an export, of which every engine gets the form it runs best,
or a checkpoint (for torch). NAME=PATH names it.
"""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag
from helpers.commands.timing import (
    check_place,
    check_shared,
    named,
    print_left_out,
    refuse_nothing_timed,
    save_picture,
    split,
    whole,
    words,
)

if TYPE_CHECKING:
    import pandas as pd

    from helpers.measurements import Measurement

COLUMNS = {
    "model": "model", "engine": "engine", "batch_size": "batch", "sequence_length": "tokens",
    "median_ms": "median ms", "p10_ms": "10 %", "p90_ms": "90 %", "items_per_second": "items/s",
    "against": "against the slowest", "precision": "file", "int8_run": "run in int8",
    "sparsity": "zeros", "supported_fraction": "supported", "threads": "threads",
    "peak_memory_mb": "peak MB", "compile_seconds": "compile s",
}  # fmt: skip


@dataclass
class BenchmarkArguments:
    """What is timed, on what, and how."""

    models: list[str] = words("", "what is timed; may stand first, without --models")
    engines: list[str] = words("deepsparse,onnxruntime,openvino", "engines, with commas between")
    batch_sizes: list[str] = words("1,16", "texts of one call, with commas between")
    sequence_length: list[str] = words("128", "tokens of every text, none of them padding")
    num_cores: int | None = flag(None, "threads of every engine; all physical cores if not given")
    scenario: str = flag("sync", "'sync': one call at a time; 'async': one for each thread")
    rounds: int = flag(60, "calls that count, of every model on every engine")
    warmup: int = flag(5, "rounds before them that do not count")
    max_seconds: float | None = flag(
        None, "after this long at one shape no new round begins, once 5 are done; no limit if none"
    )
    output: str | None = flag(None, "file for the measurements, as JSON")
    plot: str | None = flag(None, "file for a picture of them, such as speed.png")
    bubbles: str | None = flag(None, "file for a picture of accuracy, latency and zipped size")
    roofline: str | None = flag(
        None, "file for a picture of them under what this CPU can do, which is measured for it"
    )


def main(argv: list[str]) -> int:
    """Print one row a model and engine, then the verdict; one JSON line if asked."""
    from helpers import benchmark, environment

    types = (BenchmarkArguments, JsonArgument)
    asked, output = parse("benchmark", types, with_first(argv, "--models"))
    check(asked)
    features = benchmark.cpu_features()
    print(about_cpu(features))
    found = timed(asked)
    table = benchmark.as_table(found)
    print(readable(table).to_string(index=False), "\n")
    if asked.scenario == "async":
        print("Calls overlap: ms are those of all calls divided by their number, no latencies.\n")
    print_left_out(asked.models, asked.engines)
    words_for_it = benchmark.verdict(found, features)
    print(words_for_it)
    refuse_nothing_timed(found)
    about = {"command": f"python -m helpers benchmark {shlex.join(argv)}"}
    about |= environment.describe()
    if asked.output:  # before anything else can go wrong
        benchmark.save(found, Path(asked.output), about)
    held = held_to_the_roof(asked, found) if asked.roofline else {}
    if asked.output and held:
        benchmark.save(found, Path(asked.output), {**about, **held})
    pictures(asked, table)
    rows = [asdict(row) for row in found]
    print_json(
        output.json, {"measurements": rows, "verdict": words_for_it, "cpu": features, **held}
    )
    return 0


def timed(asked: BenchmarkArguments) -> list["Measurement"]:
    """Time what is asked for, one length of text after the other."""
    from helpers import benchmark

    return [
        row
        for length in whole("sequence_length", asked.sequence_length)
        for row in benchmark.measure(
            named(asked.models),
            split(asked.engines),
            whole("batch_sizes", asked.batch_sizes),
            length,
            asked.num_cores,
            asked.rounds,
            asked.warmup,
            scenario=asked.scenario,
            max_seconds=asked.max_seconds,
        )
    ]


def check(asked: BenchmarkArguments) -> None:
    """Refuse what cannot be timed before anything is started.

    Raises:
        UserError: naming the flag.
    """
    from helpers import quality

    check_shared("benchmark", asked, {"rounds": 1, "warmup": 0, "max_seconds": 0})
    for name in ("sequence_length", "batch_sizes"):
        whole(name, getattr(asked, name))
    for name in ("bubbles", "roofline"):
        check_place(name, getattr(asked, name), picture=True)
    if asked.bubbles:
        quality.accuracies(named(asked.models))


def held_to_the_roof(asked: BenchmarkArguments, found: list["Measurement"]) -> dict[str, object]:
    """Measure what the CPU can do, hold the timings to it, print and draw that; return it."""
    from helpers import roofline, speed_plots

    peaks = roofline.measure_peaks(asked.num_cores)
    table = roofline.table(found, named(asked.models), peaks)
    print(f"\nThis CPU at its best: {peaks}.\n{table.round(3).to_string(index=False)}")
    if len(table):
        save_picture(speed_plots.roofline(table, peaks), asked.roofline)
    return {"roofline": {"peaks": asdict(peaks), "rows": table.round(4).to_dict("records")}}


def pictures(asked: BenchmarkArguments, table: "pd.DataFrame") -> None:
    """Draw what is asked for."""
    from helpers import plots, quality

    if asked.plot:
        save_picture(plots.heat_map(table), asked.plot)
    if asked.bubbles:
        first = table[["sequence_length", "batch_size"]].min()
        same = (table[["sequence_length", "batch_size"]] == first).all(axis=1)
        known = quality.with_quality(table[same], named(asked.models))
        for name in sorted(set(table.model) - set(known.model)):
            print(f"{asked.bubbles}: without {name}, whose accuracy or time is not known")
        title = f"batch {first.batch_size}, {first.sequence_length} tokens"
        save_picture(plots.bubbles(known, title), asked.bubbles)


def about_cpu(features: dict[str, object]) -> str:
    """Say what this CPU has for sparse int8, before anything is timed on it."""
    has = {True: "yes", False: "no"}
    facts = ", ".join(f"{n.upper()} {has[bool(features[n])]}" for n in ("avx512", "vnni", "amx"))
    warning = "" if features["vnni"] else "\nwarning: without VNNI int8 saves memory, hardly time."
    from helpers.environment import in_cores

    cores = in_cores(features["cores"])
    return f"{features['cpu']}, {cores}: {facts}{warning}\n"


def readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the columns worth a look, and how each row compares with the slowest of its batch."""
    from helpers.measurements import Measurement
    from helpers.verdict import compare

    rows = [Measurement(**row) for row in table.to_dict("records")]
    # Sorted by speed within a shape, so the last one wins.
    slowest = {(row.sequence_length, row.batch_size): row for row in rows if row.error is None}
    table = table.assign(
        against=[
            "failed, see below"
            if row.error
            else str(compare(row, slowest[row.sequence_length, row.batch_size]))
            for row in rows
        ]
    )
    table["int8_run"] = table.int8_run.astype("Int64")
    table = table[list(COLUMNS)].rename(columns=COLUMNS).round(2)
    return table.astype(object).where(table.notna(), "-")
