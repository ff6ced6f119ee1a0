"""What timing gives: one row a model, engine and batch size, in memory, on disk and as a table.

Why: a number without its threads, shape, file hash and machine cannot be compared with another.

How: a frozen dataclass; JSON with the environment beside it; a pandas table to look at.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measurement:
    """One model on one engine at one batch size; `error` says why the numbers are missing.

    Attributes:
        streams: calls at once.
        median_ms, p10_ms, p90_ms: milliseconds a batch; with several streams those of all calls
            divided by their number.
        supported_fraction: share of operators DeepSparse runs itself; None on other engines.
        int8_run: products that the engine's own graph shows in int8; None where it shows none.
        sparsity: share of zeros (0 to 1) among all weights of the matrices.
        compile_seconds: from the child's start to ready, the import of the engine included.
        sha256: of the model file, or of a checkpoint folder's files.
    """

    model: str
    engine: str
    batch_size: int
    sequence_length: int
    threads: int
    sha256: str
    precision: str = "unknown"
    sparsity: float | None = None
    streams: int = 1
    rounds: int = 0
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    items_per_second: float | None = None
    compile_seconds: float | None = None
    peak_memory_mb: float | None = None
    supported_fraction: float | None = None
    int8_run: int | None = None
    engine_version: str | None = None
    error: str | None = None


def save(measurements: list[Any], file: Path, environment: dict[str, Any]) -> None:
    """Write measurements as JSON, with the machine and versions they belong to.

    Args:
        measurements: a dataclass a row, such as `benchmark.measure` returns.
        file: written whole or not at all.
        environment: `environment.describe()`, and what else belongs to all rows.
    """
    write_json({**environment, "measurements": [asdict(row) for row in measurements]}, file)


def write_json(content: dict[str, Any], file: Path) -> None:
    """Write JSON, the whole file or nothing of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(file)


def load(file: Path) -> list[Measurement]:
    """Read what `save` wrote.

    Raises:
        UserError: if the file is missing or holds something else.
    """
    try:
        return [Measurement(**row) for row in json.loads(file.read_text())["measurements"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} holds no measurements ({type(error).__name__}). Run the benchmark again."
        ) from error


def as_table(measurements: list[Measurement]) -> "pd.DataFrame":
    """Return one row a measurement, fastest first within a shape, failures last."""
    import pandas as pd

    table = pd.DataFrame([asdict(row) for row in measurements])
    return table.sort_values(["sequence_length", "batch_size", "median_ms"], ignore_index=True)
