"""Masked language modelling: some words of plain text are hidden, and the model guesses them.

Training rows are masked anew in every epoch. Validation rows are masked once, always in the same
way, so that perplexity compares between epochs, models and runs.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self
from zlib import crc32

import numpy as np
import pandas as pd

from helpers import plain_texts, tiers
from helpers.errors import UserError
from helpers.tasks import SAMPLING_SEED, Task, check_length

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import DataCollator, PreTrainedTokenizerBase

MASKING_SEED = 13
# A label that the loss leaves out.
IGNORED = -100


@dataclass(frozen=True)
class MaskedLanguageModel(Task):
    """Hidden words of plain text.

    `train` and `validation` have the column `text` (str); `labels` is empty.

    Attributes:
        line_by_line: one row a text, cut at `max_seq_length`. Otherwise texts are joined and cut
            into blocks of exactly that many tokens.
        mlm_probability: share of the tokens that have to be guessed.
    """

    line_by_line: bool = False
    mlm_probability: float = 0.15

    head: ClassVar[str] = "MaskedLM"
    main_metric: ClassVar[str] = "accuracy"
    # The rows are masked anew in every epoch.
    records_teacher: ClassVar[bool] = False
    numbered: ClassVar[str] = ""
    texts: ClassVar[tuple[str, ...]] = ("text",)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over rows, length and the two settings: equal if and only if they are."""
        facts = f"{super().fingerprint} {self.line_by_line} {self.mlm_probability}"
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must keep to be asked again in the same way."""
        own = {"line_by_line": self.line_by_line, "mlm_probability": self.mlm_probability}
        return {**super().settings, **own}

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: nothing, its vocabulary is what it answers with."""
        return {}

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training texts."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        return pd.DataFrame({"text": picked["text"]})

    def only_measured(self) -> Self:
        """Return the task with its validation rows as a train set that nobody will use.

        One row may not fill a block; these do, if anything can be measured at all.
        """
        return replace(self, train=self.validation)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Turn texts into token ids (unpadded) with `length`; the collator masks them.

        What is left at the end of 1,000 joined texts and does not fill a block is dropped.

        Raises:
            UserError: if `max_seq_length` is more than the model takes, or more than there is.
        """
        check_length(self.max_seq_length, tokenizer.model_max_length)

        def tokenize(rows: dict[str, list]) -> dict[str, list]:
            if self.line_by_line:
                tokens = tokenizer(rows["text"], truncation=True, max_length=self.max_seq_length)
            else:
                # Not verbose: long texts are no mistake here.
                tokens = blocks(tokenizer(rows["text"], verbose=False), self.max_seq_length)
            return {**tokens, "length": [len(ids) for ids in tokens["input_ids"]]}

        rows = split.map(tokenize, batched=True, remove_columns=split.column_names)
        if len(rows):
            return rows
        raise UserError(
            f"The {len(split)} texts are shorter than one block of {self.max_seq_length} tokens. "
            "Give more text, a smaller --max_seq_length, or --line_by_line."
        )

    def encode_validation(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset"
    ) -> "Dataset":
        """The same, masked once and with `labels`, always at the same tokens.

        Raises:
            UserError: if there is so little text that no token is masked.
        """
        rows = self.encode(tokenizer, split)
        masking = self.collator(tokenizer).masking
        with fixed_masks():
            rows = rows.map(lambda row: masked(row, masking), load_from_cache_file=False)
        if any(label != IGNORED for labels in rows["labels"] for label in labels):
            return rows
        raise UserError(
            f"No token of the {len(rows)} validation rows is masked at an mlm_probability of "
            f"{self.mlm_probability}. Give more text."
        )

    def references(self, features: "Dataset") -> list[list[int]]:
        """Return the labels: the id of each hidden token, -100 elsewhere."""
        return features["labels"]

    def collator(self, tokenizer: "PreTrainedTokenizerBase") -> "DataCollator":
        """Return what masks training rows, and only pads those that were masked before."""
        from transformers import DataCollatorForLanguageModeling, DataCollatorForTokenClassification

        return MaskOnce(
            DataCollatorForLanguageModeling(tokenizer, mlm_probability=self.mlm_probability),
            DataCollatorForTokenClassification(tokenizer),
        )

    @staticmethod
    def reduce_outputs(logits: "torch.Tensor", labels: "torch.Tensor") -> "torch.Tensor":
        """Bring `logits` [rows, tokens, vocabulary] of a batch down to what `metrics` needs.

        The logits of a thousand rows would fill the memory; this is 3 numbers a row.

        Returns:
            [rows, 3] of float32: the sum of the losses of the row's hidden tokens, their number,
            and how many of them were guessed.
        """
        import torch
        from torch.nn.functional import cross_entropy

        hidden = labels != IGNORED
        row = hidden.nonzero()[:, 0]
        answers, wanted = logits[hidden].float(), labels[hidden]
        losses = cross_entropy(answers, wanted, reduction="none")
        guessed = (answers.argmax(-1) == wanted).float()
        facts = torch.stack([losses, torch.ones_like(losses), guessed], dim=1)
        return torch.zeros(len(labels), 3, device=facts.device).index_add_(0, row, facts)

    def metrics(self, outputs: np.ndarray, references: object = None) -> dict[str, float]:
        """Score what `reduce_outputs` made [rows, 3]; the references are in it already.

        `accuracy` is the share of hidden tokens that were guessed; `perplexity` is e to the mean
        loss of a hidden token, the lower the better.
        """
        loss, hidden, guessed = np.asarray(outputs, dtype=np.float64).sum(axis=0)
        with np.errstate(over="ignore"):
            perplexity = np.exp(loss / hidden)
        return {"accuracy": float(guessed / hidden), "perplexity": float(perplexity)}


@dataclass
class MaskOnce:
    """A collator that masks rows, unless they bring `labels`: those were masked before.

    The masks follow from the batch and the epoch: Accelerate reads one batch ahead, so a run that
    goes on after a kill would draw other ones from the state that dropout draws from.
    """

    masking: Callable
    padding: Callable
    epoch: int = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, "torch.Tensor"]:
        """Return a padded batch with `input_ids` and `labels` [rows, tokens]."""
        if "labels" in rows[0]:
            return self.padding(rows)
        ids = np.concatenate([row["input_ids"] for row in rows])
        with fixed_masks(crc32(ids.astype(np.int64).tobytes(), self.epoch)):
            return self.masking(rows)


@contextmanager
def fixed_masks(seed: int = MASKING_SEED) -> Iterator[None]:
    """Draw the same masks every time, unnoticed by whoever draws random numbers afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def masked(row: dict[str, list[int]], masking: "DataCollator") -> dict[str, list[int]]:
    """Return a row with some of its ids hidden, and the hidden ones as `labels`."""
    ids = {name: values for name, values in row.items() if name != "length"}
    batch = masking([ids])
    return {"input_ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()}


def blocks(tokens: dict[str, list[list[int]]], size: int) -> dict[str, list[list[int]]]:
    """Join the rows of each column and cut them into blocks of `size`, without the rest."""
    joined = {name: list(chain.from_iterable(rows)) for name, rows in tokens.items()}
    return {
        name: [values[i : i + size] for i in range(0, len(values) - size + 1, size)]
        for name, values in joined.items()
    }


def load_masked_language(
    name: str = "docs-library",
    *,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    text_column: str | None = None,
    validation_split_percentage: int = 5,
    max_seq_length: int | None = None,
    line_by_line: bool = False,
    mlm_probability: float = 0.15,
    tier: tiers.Tier | None = None,
) -> MaskedLanguageModel:
    """Load plain text, at the size of the tier.

    Args:
        name: 'docs-library' (embedded; its labels are left out), 'wikitext2', 'wikitext103' or a
            hub data set; a title when files are given.
        train_file: csv, tsv, json or jsonl with a text column; a file of any other ending is read
            as UTF-8 text, one document, paragraph or sentence a line.
        validation_file: the same; None to hold out the first rows of `train_file`.
        text_column: its name, if it is not one of the usual ones.
        validation_split_percentage: how much is held out then.
        max_seq_length: tokens of a block, or kept of a line; the tier's value if None.
        line_by_line: one row a line instead of blocks.
        mlm_probability: share of the tokens that have to be guessed.
        tier: sizes; the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    if not 0 < mlm_probability < 1:
        raise UserError(f"mlm_probability is {mlm_probability}; it is a share between 0 and 1.")
    tier = tier or tiers.current()
    train, validation = plain_texts.read_splits(
        name, train_file, validation_file, text_column, validation_split_percentage
    )
    task = MaskedLanguageModel(
        name,
        train,
        validation,
        [],
        max_seq_length or tier.max_seq_length,
        line_by_line,
        mlm_probability,
    )
    return task.shortened(tier.train_examples, tier.validation_examples)
