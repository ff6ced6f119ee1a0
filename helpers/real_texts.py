"""Time models on the texts of a real data set: all padded to one length, against length buckets.

Why: a benchmark at 128 tokens times full texts, and real ones are mostly padding there. What a
text costs depends on its own length, on what it is padded to, and on becoming tokens at all.

How: one model on one engine at a time; its two ways of padding take turns, text by text and pass
by pass (`text_runs`). Both must answer alike, or nothing is reported (`text_proof`).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.benchmark import Row, rows_of
from helpers.engine_process import TIMEOUT, EngineError, check_threads
from helpers.errors import UserError
from helpers.tasks import Task
from helpers.text_lengths import TextLengths, count_lengths, positions_of, texts_of, tokenizer_of
from helpers.text_measurements import BUCKETS, ONE_LENGTH, WAYS, TextMeasurement
from helpers.text_proof import agreement
from helpers.text_runs import Pass, Singles, Work, in_passes, one_by_one, open_group
from helpers.text_tasks import Regression

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def measure_texts(
    models: dict[str, Path],
    task: Task,
    engines: Sequence[str] = ("deepsparse", "onnxruntime"),
    buckets: Sequence[int] | None = None,
    batch_size: int = 16,
    num_cores: int | None = None,
    timed_texts: int = 300,
    passes: int = 3,
    tokenizer_name: str | None = None,
    timeout: float = TIMEOUT,
) -> tuple[TextLengths, list[TextMeasurement]]:
    """Time every model on every engine that takes it, on a task's validation texts.

    Args:
        models: name to ONNX file, or to the folder of an export or a checkpoint.
        task: classification or regression of texts or pairs; its `max_seq_length` cuts texts off.
        engines: names from `engines.ENGINES`.
        buckets: lengths to pad to; see `text_lengths.count_lengths`.
        batch_size: texts of a call in a pass; at the end of a bucket its last text fills up.
        num_cores: threads of every engine; all physical cores unless given.
        timed_texts: texts timed one by one, drawn the same way every time.
        passes: over all texts in each way of padding, taking turns.
        tokenizer_name: instead of those beside the models; see `text_lengths.tokenizer_of`.
        timeout: seconds any one answer may take.

    Returns:
        The lengths, and two rows a model and engine: one length, then buckets.

    Raises:
        UserError: for another kind of task, models without a tokenizer or with different ones,
            buckets that cannot be used, and as `benchmark.measure`.
        ProofError: if the two ways do not answer alike, or a model file changed.
    """
    threads = check_threads(num_cores)
    check(models, task, batch_size, timed_texts, passes)
    rows = rows_of(models, engines)
    tokenizer = shared_tokenizer(models, task, tokenizer_name)
    positions = [most for most in map(positions_of, map(Path, models.values())) if most]
    lengths = count_lengths(task, tokenizer, buckets, min(positions, default=None))
    count = min(timed_texts, len(task.validation))
    work = Work(task, tokenizer, lengths, count, batch_size, passes, threads, timeout)
    return lengths, [measured for row in rows for measured in measure_pair(row, work)]


def check(
    models: dict[str, Path], task: Task, batch_size: int, timed_texts: int, passes: int
) -> None:
    """Refuse what there is nothing to time in."""
    if not models:
        raise UserError("Nothing to time. Give at least one model.")
    if task.head != Task.head:
        raise UserError(f"{task.name} is no task of whole texts. Expected data as for run_glue.")
    if min(batch_size, passes) < 1 or min(timed_texts, len(task.validation)) < 2:
        raise UserError("Expected a batch of 1 or more, 1 pass or more, and 2 texts or more.")


def shared_tokenizer(
    models: dict[str, Path], task: Task, name: str | None
) -> "PreTrainedTokenizerBase":
    """Return the tokenizer of all models; what is compared must have read the same tokens."""
    found = {model: tokenizer_of(Path(path), name) for model, path in models.items()}
    columns = texts_of(task)
    (first, tokenizer), *others = found.items()
    expected = task.tokens(tokenizer, columns)["input_ids"]
    for model, other in others:
        if task.tokens(other, columns)["input_ids"] != expected:
            raise UserError(
                f"{model} cuts texts into other tokens than {first}, so their times do not "
                "compare. Time them in two runs."
            )
    return tokenizer


def measure_pair(row: Row, work: Work) -> list[TextMeasurement]:
    """Time one model on one engine, each way of padding taking turns with the other."""
    try:
        with open_group(row, 1, work) as group:
            singles = one_by_one(group, work)
            prices = {way: group.price(lengths) for way, lengths in work.ways.items()}
            about = group.described[work.lengths.max_seq_length]
        fp32 = {**row.facts, **about}.get("precision") == "fp32"
        agreement(row, *(singles[way].outputs for way in WAYS), work.task, fp32=fp32)
        with open_group(row, work.batch_size, work) as group:
            passes = in_passes(group, work)
        agreed = agreement(row, *(passes[way][0].outputs for way in WAYS), work.task, fp32=fp32)
    except EngineError as error:
        return [unmeasured(row, way, work, str(error)) for way in WAYS]
    return [
        replace(
            unmeasured(row, way, work, None),
            **known(about),
            **prices[way],
            **latency(singles[way], singles[ONE_LENGTH]),
            **throughput(passes[way]),
            **score(row.path, passes[way][0].outputs, work),
            **(agreed if way == BUCKETS else {}),
        )
        for way in WAYS
    ]


def latency(timed: Singles, one_length: Singles) -> dict[str, Any]:
    """Return milliseconds a text, and what was saved against one length, text by text."""
    milliseconds = 1000 * timed.seconds
    low, middle, high = np.percentile(milliseconds, (10, 50, 90))
    saved = 1000 * one_length.seconds - milliseconds
    found = {
        "median_ms": middle,
        "p10_ms": low,
        "p90_ms": high,
        "mean_ms": milliseconds.mean(),
        "saved_ms": saved.mean(),
        "saved_error_ms": saved.std(ddof=1) / len(saved) ** 0.5,
        "tokenize_ms": 1000 * np.median(timed.tokenize),
    }
    return {"timed_texts": len(saved)} | {name: round(float(x), 3) for name, x in found.items()}


def throughput(passes: Sequence[Pass]) -> dict[str, Any]:
    """Return texts a second of the median pass, of the slowest and the fastest, and its shares."""
    texts = len(passes[0].outputs)
    ordered = sorted(passes, key=lambda one: one.seconds)
    middle = ordered[len(ordered) // 2]
    return {
        "texts": texts,
        "passes": len(passes),
        "texts_per_second": round(texts / middle.seconds, 1),
        "slowest_pass": round(texts / ordered[-1].seconds, 1),
        "fastest_pass": round(texts / ordered[0].seconds, 1),
        "tokenize_share": round(middle.tokenize / middle.seconds, 4),
        "engine_share": round(middle.engine / middle.seconds, 4),
    }


def score(model: Path, outputs: np.ndarray, work: Work) -> dict[str, Any]:
    """Return the task's metric, if the model has the labels of the data, in whatever order."""
    task, names = work.task, labels_beside(model)
    if outputs.shape[1] != len(task.labels):
        return {}
    if not isinstance(task, Regression):  # a score's name matters to nobody
        if set(names) != set(task.labels):
            return {}
        outputs = outputs[:, [names.index(label) for label in task.labels]]
    found = task.metrics(outputs, work.references)[task.main_metric]
    return {"metric": task.main_metric, "score": round(found, 4)}


def labels_beside(model: Path) -> list[str]:
    """Return a model's labels by number, as the config.json beside it names them; none without."""
    file = (model if model.is_dir() else model.parent) / "config.json"
    names = json.loads(file.read_text()).get("id2label", {}) if file.is_file() else {}
    return [names[number] for number in sorted(names, key=int)]


def known(about: dict[str, Any]) -> dict[str, Any]:
    """Return what an engine says about itself and the model."""
    names = {"precision": "precision", "sparsity": "sparsity", "version": "engine_version"}
    return {ours: about[theirs] for theirs, ours in names.items() if theirs in about}


def unmeasured(row: Row, way: str, work: Work, error: str | None) -> TextMeasurement:
    """Return a row without numbers."""
    return TextMeasurement(
        row.model,
        row.engine,
        way,
        list(work.ways[way]),
        work.batch_size,
        work.threads,
        **row.facts,
        error=error,
    )
