"""Time models on real texts: all padded to one length, against length buckets; tokenising included.

`python -m helpers texts runs/dense-onnx runs/both --task_name docs-library --buckets 48,64,96,128`;
a model is named as for `benchmark`, and its tokenizer lies beside it. `benchmark` compares models
and engines with each other, this compares ways of padding.
"""

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, TextArguments, flag
from helpers.commands.timing import (
    check_shared,
    named,
    refuse_nothing_timed,
    save_picture,
    split,
    whole,
    words,
)

if TYPE_CHECKING:
    import pandas as pd

    from helpers.text_lengths import TextLengths
    from helpers.text_measurements import TextMeasurement

COLUMNS = {
    "model": "model", "engine": "engine", "padded_to": "padded to", "mean_ms": "mean ms",
    "median_ms": "median ms", "p10_ms": "10 %", "p90_ms": "90 %", "texts_per_second": "texts/s",
    "slowest_pass": "slowest", "fastest_pass": "fastest", "tokenize_share": "tokenising",
    "engine_share": "in engine", "score": "score", "labels_changed": "changed",
    "processes": "processes", "memory_mb": "MB",
}  # fmt: skip
LEAST = {"batch_size": 1, "passes": 1, "timed_texts": 2}


@dataclass
class RealTextsArguments:
    """What is timed, on what, and how; the texts are named by the flags of `run_glue`."""

    models: list[str] = words("", "what is timed; may stand first, without --models")
    engines: list[str] = words("deepsparse,onnxruntime,openvino", "engines, with commas between")
    buckets: list[str] | None = field(
        default=None,
        metadata={
            "help": "lengths that texts are padded to, each to the smallest that holds it, with "
            "commas between; if not given, 16,32,64,... up to --max_seq_length"
        },
    )
    batch_size: int = flag(16, "texts of one call where all of them are run")
    timed_texts: int = flag(300, "texts that are timed one by one")
    passes: int = flag(3, "runs over all texts, in each way of padding")
    num_cores: int | None = flag(None, "threads of every engine; all physical cores if not given")
    tokenizer_name: str | None = flag(
        None, "'minilm', a folder or a hub name: that one, not those beside the models"
    )
    output: str | None = flag(None, "file for the measurements, as JSON")
    plot: str | None = flag(None, "file for a picture of them, such as texts.png")


def main(argv: list[str]) -> int:
    """Print two rows a model and engine, then the verdict; one JSON line if asked."""
    from helpers import environment, measurements, speed_plots, text_measurements

    types = (RealTextsArguments, TextArguments, JsonArgument)
    asked, data, output = parse("texts", types, with_first(argv, "--models"))
    buckets = None if asked.buckets is None else whole("buckets", asked.buckets)
    lengths, found = time_texts(asked, data, buckets)
    table = text_measurements.as_table(found)
    about = {"lengths": lengths.describe(), "verdict": text_measurements.verdict(lengths, found)}
    print(readable(table).to_string(index=False), "\n")
    print(about["verdict"])
    refuse_nothing_timed(found)
    print_buckets(buckets, lengths.buckets)
    if asked.output:
        command = {"command": f"python -m helpers texts {shlex.join(argv)}"}
        measurements.save(found, Path(asked.output), command | about | environment.describe())
    if asked.plot and table.mean_ms.notna().any():
        save_picture(speed_plots.real_texts(lengths, table), asked.plot)
    print_json(output.json, {**about, "measurements": [asdict(row) for row in found]})
    return 0


def time_texts(
    asked: RealTextsArguments, data: TextArguments, buckets: list[int] | None
) -> "tuple[TextLengths, list[TextMeasurement]]":
    """Time every model and engine asked for; the tokenizer gets as many threads as they do."""
    from helpers.engine_process import check_threads
    from helpers.real_texts import measure_texts

    check_shared("texts", asked, LEAST)
    models = named(asked.models)
    threads = check_threads(asked.num_cores)
    data.preprocessing_num_workers = data.preprocessing_num_workers or threads
    return measure_texts(
        models,
        data.load(),
        split(asked.engines),
        buckets,
        asked.batch_size,
        asked.num_cores,
        asked.timed_texts,
        asked.passes,
        asked.tokenizer_name,
    )


def print_buckets(asked: list[int] | None, used: list[int]) -> None:
    """Say which buckets are used, if others were asked for."""
    if asked is not None and set(asked) != set(used):
        print(
            f"buckets used: {', '.join(map(str, used))}. One that no text needs is left out, and "
            "the longest is always --max_seq_length, or what the texts need of it."
        )


def readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the columns worth a look."""
    shares = ["tokenize_share", "engine_share"]
    table = table.copy()
    table[shares] = table[shares].map(lambda share: f"{share:.1%}", na_action="ignore")
    whole_numbers = ["labels_changed", "processes"]
    table[whole_numbers] = table[whole_numbers].astype("Int64")
    metric = next(iter(table.metric.dropna()), "score")
    table = table[list(COLUMNS)].round(2).rename(columns=COLUMNS | {"score": metric})
    return table.astype(object).where(table.notna(), "-")
