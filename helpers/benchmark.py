"""Fair timing of models on engines, and the table of it.

Why: a speed-up is a ratio of two numbers taken under the same conditions, and a shared laptop
changes its conditions every second.

How: every model and engine of one batch size is prepared first, each in its own child process.
Then the rounds go round: every row gets one call it is allowed to waste and one that counts. So
noise falls on all alike, and medians with the 10th and 90th percentile say how much there was.

Only the child whose turn it is runs; the others are stopped (SIGSTOP), so that no engine's threads
can spin on the cores while another is timed. The wasted call is there for caches and threads gone
cold. On a busy machine no arrangement helps: DeepSparse needs all its threads at once, and beside
a training run its times grow many times over. Time on a quiet machine, and look at the range.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from helpers import model_inputs
from helpers.engine_child import Setup
from helpers.engine_process import TIMEOUT, EngineError, EngineProcess, check_threads
from helpers.engines import check_takes, missing_engines, open_engine, takes
from helpers.errors import UserError
from helpers.measurements import Measurement, as_table, load, save
from helpers.model_facts import facts_of
from helpers.portable import QDQ_FILE
from helpers.verdict import SpeedUp, cpu_features, speed_up, verdict

__all__ = [
    "Measurement",
    "SpeedUp",
    "as_table",
    "cpu_features",
    "load",
    "measure",
    "save",
    "speed_up",
    "verdict",
]
FIRST_WORD_ID, LAST_WORD_ID = 1996, 29000  # whole words in BERT's vocabulary; no [PAD], no [MASK]
SEED = 0
SCENARIOS = ("sync", "async")
LEAST_ROUNDS = 5  # fewer say nothing of the spread
ABOUT = (
    "threads",
    "precision",
    "sparsity",
    "compile_seconds",
    "peak_memory_mb",
    "supported_fraction",
    "int8_run",
)


@dataclass
class Row:
    """A row in the making: who it is, its child while that lives, and its times."""

    model: str
    engine: str
    path: Path
    facts: dict[str, Any]
    process: EngineProcess | None = None
    seconds: list[float] = field(default_factory=list)
    error: str | None = None


def measure(
    models: dict[str, Path],
    engines: Sequence[str] = ("deepsparse", "onnxruntime"),
    batch_sizes: Sequence[int] = (1, 16),
    sequence_length: int = 128,
    num_cores: int | None = None,
    rounds: int = 60,
    warmup: int = 5,
    timeout: float = TIMEOUT,
    scenario: str = "sync",
    max_seconds: float | None = None,
) -> list[Measurement]:
    """Time every model on every engine that takes its kind, interleaved.

    Args:
        models: name to ONNX file, or to the folder of an export, of which every engine gets the
            form it runs best; a checkpoint folder is run by torch, and only by it.
        engines: names from `engines.ENGINES`.
        batch_sizes: each is measured in a pass of its own.
        sequence_length: tokens of every row, none of them padding.
        num_cores: threads of every engine; all physical cores unless given.
        rounds: calls that count, for every row.
        warmup: rounds that do not count.
        timeout: seconds any one answer may take.
        scenario: "sync", one call after the other, each on all threads: how long does one take? Or
            "async", as many calls at once as there are threads: how many get done? Then the
            milliseconds are those of all calls divided by their number.
        max_seconds: after this long at one batch size no new round begins, once `LEAST_ROUNDS` are
            done; no limit unless given.

    Returns:
        One measurement a batch size, model and engine, failed ones with their reason.

    Raises:
        UserError: for more cores than there are, and, before an engine is started, for a model
            that is missing in whole or in part, is none, or is no encoder of texts.
        ProofError: if a model file changed while it was timed.
    """
    threads = check_threads(num_cores)
    if not models or not batch_sizes or rounds < 1:
        raise UserError("Nothing to time. Give at least one model, one batch size and one round.")
    if scenario not in SCENARIOS:
        raise UserError(f"No scenario {scenario!r}. Expected {' or '.join(SCENARIOS)}.")
    planned = rows_of(models, engines)
    words = model_inputs.vocabulary(row.path for row in planned)
    measurements = []
    for batch_size in batch_sizes:
        setup = Setup(batch_size, sequence_length, threads, threads if scenario == "async" else 1)
        rows = [replace(row, seconds=[]) for row in planned]
        with ExitStack() as stack:
            described = [start(row, stack, setup, timeout) for row in rows]
            time_rows(rows, token_inputs(setup.shape, words), rounds, warmup, max_seconds)
            measurements += [
                finish(row, setup, about | after_running(row))
                for row, about in zip(rows, described, strict=True)
            ]
    return measurements


def rows_of(models: dict[str, Path], engines: Sequence[str]) -> list[Row]:
    """Return a row for each model and each engine that makes sense; nothing is started yet.

    Raises:
        UserError: for a missing model, a file that is not ONNX.
    """
    files = files_for(models, engines)
    facts = {file: facts_of(file) for file in set(files.values())}
    return [
        Row(name, engine, file, facts[file])
        for (name, engine), file in files.items()
        if fits(engine, file, engines)
    ]


def files_for(models: dict[str, Path], engines: Sequence[str]) -> dict[tuple[str, str], Path]:
    """Return (model, engine) to file, for each model on each engine, whether it fits or not."""
    return {
        (name, engine): file_for(engine, Path(path))
        for name, path in models.items()
        for engine in engines
    }


def file_for(engine: str, path: Path) -> Path:
    """Return the file of an export in the form an engine runs best; another path as it is."""
    names = ["model.onnx"] if engine == "deepsparse" else [QDQ_FILE, "model.onnx"]
    return next((path / name for name in names if (path / name).is_file()), path)


def fits(engine: str, path: Path, asked: Sequence[str]) -> bool:
    """Tell whether a row makes sense: torch runs checkpoints, the others run files.

    A pair that does not fit is left out if another engine asked for takes the model; if none
    does, it stays in and fails with its reason.
    """
    fitting = [name for name in asked if takes(name, path)]
    return engine in fitting or not fitting


def left_out(models: dict[str, Path], engines: Sequence[str]) -> list[str]:
    """Return what `measure` leaves out because the engine does not run such a model, in words."""
    return [
        f"{name} on {engine}"
        for (name, engine), file in files_for(models, engines).items()
        if not fits(engine, file, engines)
    ]


def token_inputs(shape: Sequence[int], words: int | None = None) -> dict[str, np.ndarray]:
    """Return the same random words for everybody: int64 arrays [batch, sequence], no padding.

    Args:
        shape: of every array.
        words: how many the smallest vocabulary has; BERT's unless given.
    """
    end = min(LAST_WORD_ID, words or LAST_WORD_ID)
    begin = min(FIRST_WORD_ID, end // 2)
    ids = np.random.default_rng(SEED).integers(begin, end, shape, dtype=np.int64)
    return {
        "input_ids": ids,
        "attention_mask": np.ones(shape, dtype=np.int64),
        "token_type_ids": np.zeros(shape, dtype=np.int64),
        # For exports that do not count them themselves.
        "position_ids": np.broadcast_to(np.arange(shape[1]), shape).copy(),
    }


def start(row: Row, stack: ExitStack, setup: Setup, timeout: float) -> dict[str, Any]:
    """Start and prepare a row's child, leave it stopped, and return how it describes itself."""
    if reason := missing_engines().get(row.engine):
        row.error = reason
        return {}
    try:
        check_takes(row.engine, row.path)
        row.process = stack.enter_context(open_engine(row.path, row.engine, timeout=timeout))
        about = row.process.prepare(*setup.shape, setup.threads, setup.streams)
    except EngineError as error:
        row.error = str(error)
        return {}
    row.process.pause()
    return about


def time_rows(
    rows: list[Row],
    inputs: dict[str, np.ndarray],
    rounds: int,
    warmup: int,
    max_seconds: float | None = None,
) -> None:
    """Go round the rows; a row that fails drops out with its reason."""
    batch_size, start = len(inputs["input_ids"]), time.monotonic()
    for number in tqdm(range(warmup + rounds), desc=f"batch {batch_size}", leave=False):
        late = max_seconds is not None and time.monotonic() - start > max_seconds
        if late and number >= warmup + LEAST_ROUNDS:
            return
        for row in rows:
            if row.error is None:
                take_turn(row, inputs, counts=number >= warmup)


def take_turn(row: Row, inputs: dict[str, np.ndarray], *, counts: bool) -> None:
    """Wake a child for one wasted call and one that counts."""
    process = row.process
    many = process.setup.streams > 1
    try:
        process.resume()
        check_answers(row.engine, process.run(inputs)[0])
        seconds = process.run_many(inputs) if many else process.run(inputs)[1]
    except EngineError as error:
        row.error = str(error)
        return
    finally:
        process.pause()  # also one that has failed, or its threads may spin beside the others
    if counts:
        row.seconds.append(seconds)


def after_running(row: Row) -> dict[str, Any]:
    """Return what a child knows after its calls; nothing of one that has failed.

    Memory is not asked before the first call, in which engines make room for what is between the
    layers; and the graph is looked at last, which takes memory that running does not.
    """
    found: dict[str, Any] = {}
    if row.error is not None:
        return found
    # Who cannot tell has been timed all the same.
    with suppress(EngineError):
        row.process.resume()
        for name in ("peak_memory_mb", "int8_run"):
            found[name] = row.process.ask(name)
    row.process.pause()
    return found


def check_answers(engine: str, outputs: list[np.ndarray]) -> None:
    """Refuse to time nonsense.

    Raises:
        EngineError: an answer is no number.
    """
    if any(np.isnan(output).any() for output in outputs):
        raise EngineError(
            f"{engine} answers NaN to ordinary words: its arithmetic does not hold this model "
            "(fp16 overflows where fp32 does not)."
        )


def finish(row: Row, setup: Setup, about: dict[str, Any]) -> Measurement:
    """Turn a timed row into numbers."""
    times: dict[str, Any] = {}
    if row.error is None:
        low, middle, high = np.percentile(row.seconds, (10, 50, 90)) * 1000
        times = {
            "rounds": len(row.seconds),
            "median_ms": round(middle, 3),
            "p10_ms": round(low, 3),
            "p90_ms": round(high, 3),
            "items_per_second": round(1000 * setup.batch_size / middle, 1),
        }
    known = {name: about[name] for name in ABOUT if name in about}
    common = {
        "threads": setup.threads,
        "streams": setup.streams,
        "engine_version": about.get("version"),
        "error": row.error,
    }
    return Measurement(row.model, row.engine, *setup.shape, **common | row.facts | known | times)
