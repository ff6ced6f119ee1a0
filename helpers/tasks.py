"""A task: texts with labels, how they become tokens, and how answers are scored.

One noun for the embedded corpus, a hub data set, a well-known set in a local folder, or the
reader's own files, so that changing the data changes one line of a notebook.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd

from helpers import tiers
from helpers.environment import runs_folder
from helpers.errors import UserError
from helpers.labels import SINGLE_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import nn
    from transformers import BatchEncoding, DataCollator, PreTrainedTokenizerBase

SAMPLING_SEED = 13
PART = 1000
SHORTEST = 4  # special tokens of a pair, and one of a word


@dataclass(frozen=True)
class Task:
    """What is learnt, and how it is scored; in this plain form one class for one text or a pair.

    Another kind of task is a subclass: its own `head` and `outputs`, `encode`, `collator` and
    `metrics`. Everything else here works on any of them.

    Attributes:
        name: what the reader typed.
        train: columns `text` (str), `label` (int) and, for pairs, `text_pair` (str).
        validation: the same.
        labels: class names in the order of their numbers.
        max_seq_length: tokens kept of a text, special ones included.
        origin: the flags of a command that name this data again; empty outside of one.
    """

    name: str
    train: "Dataset"
    validation: "Dataset"
    labels: list[str]
    max_seq_length: int
    origin: dict[str, Any] = field(default_factory=dict, kw_only=True, compare=False)

    # The class of Transformers' that is trained is AutoModelFor<head>.
    head: ClassVar[str] = "SequenceClassification"
    # What the model returns, in order; also what a teacher is asked for.
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    # The metric that is held to the dense model's, 0 to 1, more is better.
    main_metric: ClassVar[str] = "accuracy"
    # Whether a softmax of its outputs says something, so that a teacher's can be compared with it.
    teaches_answers: ClassVar[bool] = True
    # A teacher is asked once if its answers are a row of numbers a text; else at every step.
    records_teacher: ClassVar[bool] = True
    # What the Trainer applies to the outputs of a batch before it collects them; None for all.
    reduce_outputs: ClassVar["Callable | None"] = None
    # Column of label numbers, one or a list of them; none where a row holds something else.
    numbered: ClassVar[str] = "label"
    # Columns that hold texts, for those who count or show them.
    texts: ClassVar[tuple[str, ...]] = ("text", "text_pair")

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over labels and rows: two runs saw the same data if and only if it is equal.

        Kept, since reading all rows takes a while where they fill a disk.
        """
        facts = (type(self).__name__, self.labels, self.max_seq_length)
        digest = hashlib.sha256(repr(facts).encode())
        for split in (self.train, self.validation):
            # A part at a time: all of it may be larger than memory.
            for part in split.iter(PART):
                for row in zip(*(part[name] for name in sorted(part)), strict=True):
                    digest.update(repr(row).encode())
        return digest.hexdigest()

    @property
    def spread(self) -> float:
        """The size of what a model's outputs tell apart: logits are of some units."""
        return 1.0

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: number and names of the labels, and the loss."""
        names = dict(enumerate(self.labels))
        return {
            # A model of another kind of labels brings its own, and with it another loss.
            "problem_type": SINGLE_LABEL,
            "num_labels": len(self.labels),
            "id2label": names,
            "label2id": {label: number for number, label in names.items()},
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must keep to be asked again in the same way."""
        return {"max_seq_length": self.max_seq_length}

    def prepare_head(self, network: "nn.Module") -> None:
        """Set a head that is still random as the task's loss likes it; most need nothing."""

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training rows with their labels in words."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        texts = {name: picked[name] for name in self.texts if name in picked.column_names}
        return pd.DataFrame({**texts, "label": [self.in_words(row) for row in picked["label"]]})

    def decided(self, outputs: Any) -> np.ndarray:  # noqa: ANN401 - each kind has its own
        """Return what `outputs` answer, [rows, ...]: all that the metrics look at."""
        return outputs.argmax(-1)

    def in_words(self, label: Any) -> Any:  # noqa: ANN401 - each kind has its own
        """Return one row's label as a person reads it."""
        return self.labels[label]

    def shortened(self, train: int | None, validation: int | None) -> Self:
        """Return the task with at most so many rows, drawn the same way every time."""
        return replace(
            self, train=_draw(self.train, train), validation=_draw(self.validation, validation)
        )

    def only_measured(self) -> Self:
        """Return the task with a train set that nobody will use, as small as can be encoded."""
        return self.shortened(1, None)

    def with_labels(self, labels: list[str]) -> Self:
        """Return the same rows under a finished model's labels, if they show only some of them."""
        if not self.numbered or not set(self.labels) < set(labels):
            return self
        numbers = [labels.index(label) for label in self.labels]
        work = partial(_renumbered, column=self.numbered, numbers=numbers)
        train, validation = self.train.map(work), self.validation.map(work)
        return replace(self, labels=labels, train=train, validation=validation)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Turn rows into token ids (unpadded) with `labels` and `length`, for training.

        Raises:
            UserError: if `max_seq_length` is more than the model takes.
        """
        check_length(self.max_seq_length, tokenizer.model_max_length)

        def tokenize(rows: dict[str, list]) -> dict[str, list]:
            tokens = self.tokens(tokenizer, rows)
            lengths = [len(ids) for ids in tokens["input_ids"]]
            return {**tokens, "length": lengths, "labels": self.targets(rows["label"])}

        return split.map(tokenize, batched=True, remove_columns=split.column_names)

    def targets(self, labels: list) -> list:
        """Return the labels of rows as the loss takes them."""
        return labels

    def tokens(
        self, tokenizer: "PreTrainedTokenizerBase", rows: Mapping[str, list]
    ) -> "BatchEncoding":
        """Turn texts into token ids (unpadded), cut off at `max_seq_length`."""
        texts = [rows[name] for name in self.texts if name in rows]
        return tokenizer(*texts, truncation=True, max_length=self.max_seq_length)

    def encode_validation(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset"
    ) -> "Dataset":
        """Turn rows into what is measured on; the same as for training, unless a kind differs."""
        return self.encode(tokenizer, split)

    def references(self, features: "Dataset") -> Any:  # noqa: ANN401 - each kind has its own
        """Return what `metrics` compares outputs with, one item a row of `features`."""
        return np.array(features["labels"])

    def collator(self, tokenizer: "PreTrainedTokenizerBase") -> "DataCollator":
        """Return what makes a batch of encoded rows."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def metrics(self, outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Score `outputs` [rows, classes] against `references` [rows]; the main metric first.

        With two classes also the F1 of the second one, and Matthews' correlation.
        """
        from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

        answers = outputs.argmax(axis=-1)
        found = {
            "accuracy": float(accuracy_score(references, answers)),
            "f1_macro": float(f1_score(references, answers, average="macro")),
        }
        if outputs.shape[-1] == 2:
            found["f1"] = float(f1_score(references, answers, zero_division=0))
            found["matthews_correlation"] = float(matthews_corrcoef(references, answers))
        return found

    def write_answers(self, folder: Path, outputs: np.ndarray, references: Any) -> None:  # noqa: ANN401
        """Write what the model answered into `folder`, for kinds whose answers are read."""


def _renumbered(row: dict[str, Any], column: str, numbers: list[int]) -> dict[str, Any]:
    old = row[column]
    return {column: [numbers[n] for n in old] if isinstance(old, list) else numbers[old]}


def _draw(split: "Dataset", rows: int | None) -> "Dataset":
    if rows is None or rows >= len(split):
        return split
    return split.shuffle(seed=SAMPLING_SEED).select(range(rows))


def check_finite(answers: np.ndarray) -> None:
    """Refuse to score answers [rows, ...] that are no numbers.

    Raises:
        UserError: with how many they are.
    """
    lost = int((~np.isfinite(answers)).reshape(len(answers), -1).any(axis=1).sum())
    if lost:
        raise UserError(
            f"{lost} of {len(answers)} answers are no numbers: the training diverged. Train with a "
            "lower --learning_rate, or where the recipe sets the rate, --recipe_args init_lr=..."
        )


def check_length(wanted: int, most: int) -> None:
    """Refuse sequences longer than the model's position table, or too short for one word."""
    if wanted < SHORTEST:
        raise UserError(
            f"max_seq_length is {wanted}: [CLS] and [SEP] alone take 2 or 3 of that. "
            f"Use --max_seq_length {SHORTEST} or more."
        )
    if wanted <= most:
        return
    raise UserError(
        f"max_seq_length is {wanted}, but the model takes at most {most} tokens. "
        f"Use --max_seq_length {most} or less."
    )


def load_task(
    name: str = "docs-library",
    *,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    problem_type: str | None = None,
    max_seq_length: int | None = None,
    tier: tiers.Tier | None = None,
) -> Task:
    """Load a text classification (or regression) by name or from files, at the tier's size.

    Args:
        name: 'docs-library' (embedded), one of `catalogue.KNOWN` such as 'sst2' or 'mrpc', or a
            hub data set; a title when files are given.
        train_file: csv, tsv, json or jsonl with one or two text columns and a label column.
        validation_file: the same; required with `train_file`.
        text_column: its name, if it is not one of the usual ones.
        text_pair_column: of the second text; None for the usual names, or none at all.
        label_column: likewise.
        problem_type: as in Transformers' configs; None for what the labels look like.
        max_seq_length: tokens kept of a text; the tier's value if None.
        tier: sizes; the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    from helpers import columns, labels, sources
    from helpers.catalogue import KNOWN
    from helpers.text_tasks import KINDS

    tier = tier or tiers.current()
    from_files = train_file is not None or validation_file is not None
    known = None if from_files else KNOWN.get(name)
    if from_files:
        splits = sources.from_files(train_file, validation_file)
    elif name == "docs-library":
        splits = sources.embedded(runs_folder() / "cache")
    elif known:
        splits = known.load()
    else:
        splits = sources.from_hub(name)
    texts = columns.find_texts(splits[0], text_column, text_pair_column)
    label = columns.find_column(splits[0], label_column, columns.LABEL_COLUMNS, "label_column")
    if label in texts.values():
        raise UserError(f"Column {label!r} cannot be both text and label. Name another one.")
    columns.check_validation(splits[1], [*texts.values(), label])
    kind = problem_type or (known and known.problem_type) or labels.problem_type(splits[0], label)
    names, *numbers = labels.read_labels(*splits, label, kind, known and known.label_names())
    train, validation = (
        columns.renamed(split, texts, values) for split, values in zip(splits, numbers, strict=True)
    )
    # One file stands for both splits where a model is only measured.
    if not from_files or train_file != validation_file:
        columns.say_empty_texts(train, "train")
    columns.say_empty_texts(validation, "validation")
    task = KINDS[kind](name, train, validation, names, max_seq_length or tier.max_seq_length)
    return task.shortened(tier.train_examples, tier.validation_examples)
