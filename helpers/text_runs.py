"""Run real texts through an engine, padded to one length and in buckets, the two taking turns.

Why: DeepSparse and OpenVINO compile for one shape, so each length is an engine process of its own,
of which one runs at a time (see `benchmark`). ONNX Runtime takes any shape and needs one for all.

How: text by text at batch 1; and in passes over all texts. A pass is tokenizer, batches and engine,
each timed alone and added up. The pipe to the engine's process is left out: it belongs to this way
of measuring.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from tqdm.auto import tqdm

from helpers.benchmark import SEED, Row, start
from helpers.engine_child import Setup
from helpers.engine_process import EngineError, EngineProcess, Inputs
from helpers.engines import ANY_SHAPE
from helpers.errors import UserError
from helpers.tasks import Task
from helpers.text_lengths import TextLengths, smallest, texts_of
from helpers.text_measurements import BUCKETS, ONE_LENGTH, WAYS
from helpers.token_batches import padded

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Work:
    """What each model has to do on each engine.

    Attributes:
        timed_texts: texts that are timed one by one.
        batch_size: texts of a call in a pass.
        passes: over all texts, in each way of padding.
    """

    task: Task
    tokenizer: "PreTrainedTokenizerBase"
    lengths: TextLengths
    timed_texts: int
    batch_size: int
    passes: int
    threads: int
    timeout: float

    @property
    def ways(self) -> dict[str, list[int]]:
        """The lengths of each way of padding."""
        return {ONE_LENGTH: [self.lengths.max_seq_length], BUCKETS: self.lengths.buckets}

    @cached_property
    def columns(self) -> dict[str, list[str]]:
        """The texts, by column."""
        return texts_of(self.task)

    @cached_property
    def references(self) -> Any:  # noqa: ANN401 - each kind of task has its own
        """What answers are scored against."""
        features = self.task.encode_validation(self.tokenizer, self.task.validation)
        return self.task.references(features)

    def tokens(self, row: int | None = None) -> "BatchEncoding":
        """Return the tokens of one text, or of all."""
        columns = self.columns
        if row is not None:
            columns = {name: [column[row]] for name, column in columns.items()}
        return self.task.tokens(self.tokenizer, columns)


@dataclass(frozen=True)
class Group:
    """The engine processes of one model, by the length they are compiled for."""

    processes: dict[int, EngineProcess]
    described: dict[int, dict[str, Any]]

    def price(self, lengths: Sequence[int]) -> dict[str, Any]:
        """Return what the processes of some lengths take together."""
        which = {self.processes[length]: self.described[length] for length in lengths}
        # Memory that others share, such as the engine's code, counts for none of them.
        own = [psutil.Process(one.process.pid).memory_full_info().uss for one in which]
        return {
            "processes": len(which),
            "memory_mb": round(sum(own) / 2**20, 1),
            "compile_seconds": round(sum(d["compile_seconds"] for d in which.values()), 2),
        }


@dataclass(frozen=True)
class Singles:
    """Texts timed one by one, in one way of padding.

    Attributes:
        seconds: in the engine, [texts].
        outputs: logits, [texts, classes].
        tokenize: seconds to make tokens of each, [texts].
    """

    seconds: np.ndarray
    outputs: np.ndarray
    tokenize: np.ndarray


@dataclass(frozen=True)
class Pass:
    """One run over all texts: seconds of its three parts, outputs [texts, classes]."""

    tokenize: float
    batches: float
    engine: float
    outputs: np.ndarray

    @property
    def seconds(self) -> float:
        """From texts to answers."""
        return self.tokenize + self.batches + self.engine


@contextmanager
def open_group(row: Row, batch_size: int, work: Work) -> Iterator[Group]:
    """Start and prepare an engine for each length that is needed, and leave all of them stopped.

    Raises:
        EngineError: if one of them cannot be prepared.
    """
    group = Group({}, {})
    with ExitStack() as stack:
        for length in sorted({length for lengths in work.ways.values() for length in lengths}):
            if row.engine in ANY_SHAPE and group.processes:
                shared = next(iter(group.processes))
                group.processes[length] = group.processes[shared]
                group.described[length] = group.described[shared]
                continue
            one = replace(row)
            setup = Setup(batch_size, length, work.threads)
            group.described[length] = start(one, stack, setup, work.timeout)
            if one.error:
                raise EngineError(f"{one.error} (batch {batch_size}, {length} tokens)")
            group.processes[length] = one.process
        yield group


def one_by_one(group: Group, work: Work) -> dict[str, Singles]:
    """Time single texts in each way of padding, each after a wasted call on the same text."""
    drawn = np.random.default_rng(SEED).permutation(len(work.lengths.each))[: work.timed_texts]
    tokenize, seconds, outputs = [], {way: [] for way in WAYS}, {way: [] for way in WAYS}
    for turn, row in enumerate(tqdm(drawn, desc="text by text", leave=False)):
        began = time.perf_counter()
        tokens = work.tokens(int(row))
        tokenize.append(time.perf_counter() - began)
        # Neither way is always the one that comes after the other.
        for way in WAYS if turn % 2 else reversed(WAYS):
            length = int(smallest(work.ways[way], len(tokens["input_ids"][0])))
            inputs = padded(tokens, [0], length, work.tokenizer.pad_token_id)
            ((answer, took),) = awake(group.processes[length], [inputs])
            seconds[way].append(took)
            outputs[way].append(answer[0])
    return {
        way: Singles(np.array(seconds[way]), np.stack(outputs[way]), np.array(tokenize))
        for way in WAYS
    }


def in_passes(group: Group, work: Work) -> dict[str, list[Pass]]:
    """Run all texts in each way of padding, the ways taking turns."""
    found: dict[str, list[Pass]] = {way: [] for way in WAYS}
    for _ in tqdm(range(work.passes), desc="passes", leave=False):
        for way in WAYS:
            found[way].append(one_pass(group, work, work.ways[way]))
    return found


def one_pass(group: Group, work: Work, lengths: Sequence[int]) -> Pass:
    """Turn all texts into tokens, these into batches of like length, and run them."""
    began = time.perf_counter()
    tokens = work.tokens()
    tokenized = time.perf_counter()
    batches = [
        (length, rows, padded(tokens, rows, length, work.tokenizer.pad_token_id))
        for length, rows in batched(tokens["input_ids"], lengths, work.batch_size)
    ]
    batches_made = time.perf_counter()
    outputs, engine = {}, 0.0
    for length, alike in groupby(batches, key=itemgetter(0)):
        _, rows, inputs = zip(*alike, strict=True)
        calls = awake(group.processes[length], inputs)
        for numbers, (answers, took) in zip(rows, calls, strict=True):
            outputs |= dict(zip(numbers.tolist(), answers, strict=True))
            engine += took
    ordered = np.stack([outputs[row] for row in sorted(outputs)])
    return Pass(tokenized - began, batches_made - tokenized, engine, ordered)


def batched(
    ids: Sequence[Sequence[int]], lengths: Sequence[int], batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield a length and the rows of a batch of it, int [batch_size]; shortest first.

    Engines compile for one shape, so the last batch of a length is filled up with its last row.
    """
    fitting = smallest(lengths, np.array([len(row) for row in ids]))
    for length in lengths:
        rows = np.flatnonzero(fitting == length)
        full = np.arange(-(-len(rows) // batch_size) * batch_size)
        for part in np.minimum(full, len(rows) - 1).reshape(-1, batch_size):
            yield length, rows[part]


def awake(process: EngineProcess, many: Sequence[Inputs]) -> Iterator[tuple[np.ndarray, float]]:
    """Wake a process, run inputs after a wasted call on the first, and yield logits and seconds."""
    process.resume()
    process.run(many[0])
    for inputs in many:
        outputs, seconds = process.run(inputs)
        yield logits(process, outputs), seconds
    process.pause()


def logits(process: EngineProcess, outputs: list[np.ndarray]) -> np.ndarray:
    """Return the one output [batch, classes] of a classifier.

    Raises:
        UserError: if the model answers otherwise.
    """
    if len(outputs) == 1 and outputs[0].ndim == 2:
        return outputs[0]
    raise UserError(
        f"{process.model} answers with arrays of {[array.ndim for array in outputs]} dimensions. "
        "Expected a classifier of texts, with one of 2: [texts, classes]."
    )
