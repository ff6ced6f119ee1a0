"""Time models on engines, turn by turn, and say in words what that means on this CPU.

`python -m helpers benchmark runs/dense-onnx runs/sparse-onnx --engines deepsparse,openvino`;
a model is an .onnx file, the folder of an export, of which every engine gets the form it runs best,
or a checkpoint (for torch). NAME=PATH names it.
"""

import os
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag
from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from helpers.measurements import Measurement

COLUMNS = {
    "model": "model", "engine": "engine", "batch_size": "batch", "sequence_length": "tokens",
    "median_ms": "median ms", "p10_ms": "10 %", "p90_ms": "90 %", "items_per_second": "items/s",
    "against": "against the slowest", "precision": "file", "int8_run": "run in int8",
    "sparsity": "zeros", "supported_fraction": "supported", "threads": "threads",
    "peak_memory_mb": "peak MB", "compile_seconds": "compile s",
}  # fmt: skip

PICTURES = (".png", ".svg", ".pdf")


def words(default: str, text: str) -> list[str]:
    """Return a field for several words, with spaces or commas between them."""
    return field(default_factory=lambda: default.split(","), metadata={"help": text})


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
    found = [
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
    table = benchmark.as_table(found)
    print(readable(table).to_string(index=False), "\n")
    print_left_out(asked.models, asked.engines)
    words_for_it = benchmark.verdict(found, features)
    print(words_for_it)
    if all(row.error for row in found):
        raise UserError("Nothing could be timed; the reasons are above.")
    held = held_to_the_roof(asked, found) if asked.roofline else {}
    if asked.output:
        about = {"command": f"python -m helpers benchmark {shlex.join(argv)}", **held}
        benchmark.save(found, Path(asked.output), {**about, **environment.describe()})
    pictures(asked, table)
    rows = [asdict(row) for row in found]
    print_json(
        output.json, {"measurements": rows, "verdict": words_for_it, "cpu": features, **held}
    )
    return 0


def check(asked: BenchmarkArguments) -> None:
    """Refuse what cannot be timed before anything is started.

    Raises:
        UserError: naming the flag.
    """
    from helpers import quality

    check_shared("benchmark", asked, {"rounds": 1, "warmup": 0})
    for name in ("sequence_length", "batch_sizes"):
        whole(name, getattr(asked, name))
    for name in ("bubbles", "roofline"):
        check_place(name, getattr(asked, name), picture=True)
    if asked.bubbles:
        quality.check_known(named(asked.models))


def check_shared(command: str, asked: Any, numbers: dict[str, int]) -> None:  # noqa: ANN401 - flags
    """Refuse models, engines, numbers that are too small, and files that cannot be used.

    Raises:
        UserError: naming the flag.
    """
    from helpers.engines import ENGINES

    if not split(asked.models):
        raise UserError(f"Nothing to time. Expected: python -m helpers {command} MODEL [MODEL ...]")
    if unknown := [name for name in split(asked.engines) if name not in ENGINES]:
        raise UserError(f"No engine {unknown[0]!r}. Expected some of {', '.join(ENGINES)}.")
    for name, least in numbers.items():
        if getattr(asked, name) < least:
            raise UserError(f"--{name} is {getattr(asked, name)}. Expected {least} or more.")
    check_place("output", asked.output)
    check_place("plot", asked.plot, picture=True)


def check_place(name: str, file: str | None, *, picture: bool = False) -> None:
    """Refuse a place where no such file can be written.

    Raises:
        UserError: it is a folder, or in none that can be written to; or a picture's name has no
            ending of one.
    """
    if not file:
        return
    if Path(file).is_dir():
        raise UserError(f"--{name} {file} is a folder. Expected the name of a file.")
    above = next(folder for folder in Path(file).absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise UserError(f"--{name} {file}: {above} is no folder to write in. Name another place.")
    if picture and Path(file).suffix not in PICTURES:
        raise UserError(f"--{name} {file}: expected a name that ends in {', '.join(PICTURES)}.")


def split(texts: list[str]) -> list[str]:
    """Return words that have spaces or commas between them."""
    return [word for text in texts for word in text.split(",") if word]


def whole(name: str, texts: list[str]) -> list[int]:
    """Read a flag's whole numbers.

    Raises:
        UserError: one is no number, or below 1.
    """
    for text in split(texts):
        if not text.isdecimal() or int(text) < 1:
            raise UserError(
                f"--{name} has {text!r}. Expected whole numbers of 1 or more, such as 1,16."
            )
    return [int(text) for text in split(texts)]


def print_left_out(models: list[str], engines: list[str]) -> None:
    """Say which pairs have no row because the engine does not run such a model."""
    from helpers import benchmark

    if pairs := benchmark.left_out(named(models), split(engines)):
        print(f"left out, as the engine does not run such a model: {', '.join(pairs)}\n")


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


def save_picture(figure: "Figure", file: str) -> None:
    """Write a picture and say so."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    print(f"{file}: the picture")


def named(models: list[str]) -> dict[str, Path]:
    """Return name to path.

    Raises:
        UserError: two models have one name.
    """
    found = {}
    for text in models:
        for word in taken_apart(text):
            name, path = parted(word)
            place = path.absolute()
            name = name or (place.parent.name if place.name == "model.onnx" else place.name)
            if name in found:
                raise UserError(f"Two models are called {name}. Name them: NAME=PATH.")
            found[name] = path
    return found


def taken_apart(text: str) -> list[str]:
    """Return the models of one word: several with commas between them, or one that has commas."""
    words = split([text])
    several = all(parted(word)[1].exists() for word in words) and not Path(text).exists()
    return words if several or not parted(text)[1].exists() else [text]


def parted(word: str) -> tuple[str, Path]:
    """Return name (or "") and path of NAME=PATH or PATH; either may have a "=" of its own."""
    cuts = [0, *(place + 1 for place, letter in enumerate(word) if letter == "=")]
    there = [cut for cut in cuts if word[cut:] and Path(word[cut:]).exists()]
    # What is not there will be refused, by the most likely name.
    likely = [0] if "/" in word.partition("=")[0] else cuts[1:]
    cut = (there or likely or [0])[0]
    return word[: max(0, cut - 1)], Path(word[cut:])


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
            shorten(row.error, 60)
            if row.error
            else str(compare(row, slowest[row.sequence_length, row.batch_size]))
            for row in rows
        ]
    )
    table["int8_run"] = table.int8_run.astype("Int64")
    table = table[list(COLUMNS)].rename(columns=COLUMNS).round(2)
    return table.astype(object).where(table.notna(), "-")
