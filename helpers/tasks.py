"""A task: texts with labels, how they become tokens, and how answers are scored.

One noun for the embedded corpus, a hub data set, a well-known set in a local folder, or the
reader's own files, so that changing the data changes one line of a notebook.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from helpers import tiers
from helpers.environment import runs_folder
from helpers.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TEXT_COLUMNS = ("text", "sentence", "review", "content", "document", "question", "title")
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment", "intent")
VALIDATION_SPLITS = ("validation", "dev", "val", "valid", "test")
SAMPLING_SEED = 13


@dataclass(frozen=True)
class WellKnown:
    """Where a set lies below `TUTORIAL_DATA_DIR`, and what the hub calls it."""

    train: str
    validation: str
    hub: str


WELL_KNOWN = {
    "sst2": WellKnown("sst2/train.tsv", "sst2/validation.tsv", "stanfordnlp/sst2"),
}


@dataclass(frozen=True)
class Task:
    """Single-text classification.

    Attributes:
        name: what the reader typed.
        train: columns `text` (str) and `label` (int).
        validation: the same.
        labels: class names in the order of their numbers.
        max_seq_length: tokens kept of a text, special ones included.
    """

    name: str
    train: "Dataset"
    validation: "Dataset"
    labels: list[str]
    max_seq_length: int

    @property
    def fingerprint(self) -> str:
        """Sha256 over labels and rows: two runs saw the same data if and only if it is equal."""
        digest = hashlib.sha256(repr((self.labels, self.max_seq_length)).encode())
        for split in (self.train, self.validation):
            for text, label in zip(split["text"], split["label"], strict=True):
                digest.update(f"{label}\t{text}\n".encode())
        return digest.hexdigest()

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training rows with their labels in words."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        return pd.DataFrame(
            {"text": picked["text"], "label": [self.labels[i] for i in picked["label"]]}
        )

    def shortened(self, train: int | None, validation: int | None) -> Self:
        """Return the task with at most so many rows, drawn the same way every time."""
        return replace(
            self, train=_draw(self.train, train), validation=_draw(self.validation, validation)
        )

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Turn texts into token ids (unpadded) with `labels` and `length`.

        Raises:
            UserError: if `max_seq_length` is more than the model takes.
        """
        check_length(self.max_seq_length, tokenizer.model_max_length)

        def tokenize(rows: dict[str, list]) -> dict[str, list]:
            tokens = tokenizer(rows["text"], truncation=True, max_length=self.max_seq_length)
            lengths = [len(ids) for ids in tokens["input_ids"]]
            return {**tokens, "length": lengths, "labels": rows["label"]}

        return split.map(tokenize, batched=True, remove_columns=split.column_names)

    def metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Score `logits` [rows, classes] against `labels` [rows]."""
        from sklearn.metrics import accuracy_score, f1_score

        answers = logits.argmax(axis=-1)
        return {
            "accuracy": float(accuracy_score(labels, answers)),
            "f1_macro": float(f1_score(labels, answers, average="macro")),
        }


def _draw(split: "Dataset", rows: int | None) -> "Dataset":
    if rows is None or rows >= len(split):
        return split
    return split.shuffle(seed=SAMPLING_SEED).select(range(rows))


def check_length(wanted: int, most: int) -> None:
    """Refuse sequences longer than the model's position table."""
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
    label_column: str | None = None,
    max_seq_length: int | None = None,
    tier: tiers.Tier | None = None,
) -> Task:
    """Load a task by name or from files, at the size of the tier.

    Args:
        name: 'docs-library' (embedded), 'sst2', or a hub data set; a title when files are given.
        train_file: csv, tsv, json or jsonl with a text and a label column.
        validation_file: the same; required with `train_file`.
        text_column: its name, if it is not one of the usual ones.
        label_column: likewise.
        max_seq_length: tokens kept of a text; the tier's value if None.
        tier: sizes; the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    from helpers import sources

    tier = tier or tiers.current()
    if train_file or validation_file:
        train, validation = sources.from_files(train_file, validation_file)
    elif name == "docs-library":
        train, validation = sources.embedded(runs_folder() / "cache")
    elif name in WELL_KNOWN and (home := os.environ.get("TUTORIAL_DATA_DIR")):
        known = WELL_KNOWN[name]
        train, validation = sources.from_files(
            Path(home) / known.train, Path(home) / known.validation
        )
    else:
        hub = WELL_KNOWN[name].hub if name in WELL_KNOWN else name
        train, validation = sources.from_hub(hub, VALIDATION_SPLITS)
    text = sources.find_column(train, text_column, TEXT_COLUMNS, "text_column")
    label = sources.find_column(train, label_column, LABEL_COLUMNS, "label_column")
    train, validation, labels = sources.number_labels(train, validation, text, label)
    task = Task(name, train, validation, labels, max_seq_length or tier.max_seq_length)
    return task.shortened(tier.train_examples, tier.validation_examples)
