"""A class for every word of a sentence: named entities, and whatever else is written in BIO tags.

A word's tag is learnt and answered at its first sub-token. Scores are seqeval's, over whole
entities: one with a wrong border or type counts as wrong.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from helpers import tagged_sentences, tiers
from helpers.errors import UserError
from helpers.tagged_sentences import OUTSIDE
from helpers.tasks import SAMPLING_SEED, Task, check_length

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import DataCollator, PreTrainedTokenizerBase

# A label that the loss leaves out.
IGNORED = -100


class Sentence(NamedTuple):
    """What a sentence's answers are compared with.

    Attributes:
        tags: number of the tag of each word.
        positions: each word's first sub-token in the encoded row; -1 for a word that has none.
    """

    tags: list[int]
    positions: list[int]


@dataclass(frozen=True)
class TokenClassification(Task):
    """A tag for every word.

    `train` and `validation` have the columns `tokens` (list of str) and `tags` (list of int, as
    long); `labels` holds the tags in the order of their numbers: `O`, and `B-`/`I-` with a type.

    Attributes:
        label_all_tokens: train on all sub-tokens of a word, not only the first. What is measured
            stays the first one's answer, so that scores compare.
    """

    label_all_tokens: bool = False

    head: ClassVar[str] = "TokenClassification"
    main_metric: ClassVar[str] = "f1"
    # Its answers are a matrix a sentence, each of another size.
    records_teacher: ClassVar[bool] = False
    texts: ClassVar[tuple[str, ...]] = ("tokens",)
    numbered: ClassVar[str] = "tags"

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over labels, rows and the flag: equal if and only if they are."""
        facts = f"{super().fingerprint} {self.label_all_tokens}"
        return hashlib.sha256(facts.encode()).hexdigest()

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training sentences, and those of their words that are in an entity."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        return pd.DataFrame(
            {
                "text": [" ".join(tokens) for tokens in picked["tokens"]],
                "tags": [", ".join(self._tagged(row)) for row in picked],
            }
        )

    def _tagged(self, row: dict[str, list]) -> Iterator[str]:
        for token, number in zip(row["tokens"], row["tags"], strict=True):
            if self.labels[number] != OUTSIDE:
                yield f"{token} {self.labels[number]}"

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Turn rows into token ids (unpadded) with `length`, and `labels` as long as the ids.

        Sub-tokens without a label of their own have -100. Words beyond `max_seq_length` are lost;
        how many is printed.

        Raises:
            UserError: if `max_seq_length` is more than the model takes.
        """
        rows = self._encode(tokenizer, split, self.label_all_tokens)
        return rows.remove_columns(["tags", "positions"])

    def encode_validation(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset"
    ) -> "Dataset":
        """The same with labels at first sub-tokens only, and the columns `tags` and `positions`."""
        return self._encode(tokenizer, split, label_all=False)

    def _encode(
        self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset", label_all: bool
    ) -> "Dataset":
        check_length(self.max_seq_length, tokenizer.model_max_length)

        def tokenize(rows: dict[str, list]) -> dict[str, list]:
            tokens = tokenizer(
                rows["tokens"],
                is_split_into_words=True,
                truncation=True,
                max_length=self.max_seq_length,
            )
            words = [(tokens.word_ids(i), tags) for i, tags in enumerate(rows["tags"])]
            return {
                **tokens,
                "length": [len(ids) for ids in tokens["input_ids"]],
                "labels": [token_labels(ids, tags, label_all) for ids, tags in words],
                "tags": rows["tags"],
                "positions": [first_positions(ids, len(tags)) for ids, tags in words],
            }

        rows = split.map(tokenize, batched=True, remove_columns=split.column_names)
        say_lost(rows["positions"], self.max_seq_length)
        return rows

    def references(self, features: "Dataset") -> list[Sentence]:
        """Return tags and positions of each row that `encode_validation` made."""
        pairs = zip(features["tags"], features["positions"], strict=True)
        return [Sentence(*pair) for pair in pairs]

    def collator(self, tokenizer: "PreTrainedTokenizerBase") -> "DataCollator":
        """Return what pads ids and labels alike."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer)

    def metrics(self, outputs: np.ndarray, references: list[Sentence]) -> dict[str, float]:
        """Score `outputs` [rows, tokens, labels] by seqeval, in its default, lenient reading.

        A word without a sub-token (cut off, or empty) is answered with O, so an entity that was
        cut off counts as missed; Hugging Face's script leaves it out. `f1_<type>` is the F1 of
        one type of entity, `accuracy` that of words, O included.
        """
        from seqeval.metrics import accuracy_score
        from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support

        expected = [[self.labels[tag] for tag in sentence.tags] for sentence in references]
        answers = [
            self._answers(row, sentence) for row, sentence in zip(outputs, references, strict=True)
        ]

        def scores(average: str | None) -> tuple:
            return precision_recall_fscore_support(
                expected, answers, average=average, zero_division=0
            )

        precision, recall, f1, _ = scores("micro")
        # seqeval gives the types without their names, in this order.
        types = sorted({kind for kind, *_ in get_entities(expected + answers)})
        return {
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "accuracy": float(accuracy_score(expected, answers)),
            **{f"f1_{kind}": float(f1) for kind, f1 in zip(types, scores(None)[2], strict=True)},
        }

    def _answers(self, output: np.ndarray, sentence: Sentence) -> list[str]:
        best = output.argmax(axis=-1)
        return [self.labels[best[at]] if at >= 0 else OUTSIDE for at in sentence.positions]


def token_labels(words: list[int | None], tags: list[int], label_all: bool) -> list[int]:
    """Return the label of each sub-token, of which `words` says what word it belongs to."""
    before = [None, *words]
    return [
        tags[word] if word is not None and (label_all or word != last) else IGNORED
        for last, word in zip(before, words, strict=False)
    ]


def first_positions(words: list[int | None], count: int) -> list[int]:
    """Return where each of `count` words begins; -1 for one that no sub-token belongs to."""
    found: dict[int | None, int] = {}
    for position, word in enumerate(words):
        found.setdefault(word, position)
    return [found.get(word, -1) for word in range(count)]


def say_lost(positions: list[list[int]], max_seq_length: int) -> None:
    """Print how many words have no sub-token, if there are any."""
    lost = [sum(at < 0 for at in row) for row in positions]
    if not any(lost):
        return
    print(
        f"{sum(lost)} of {sum(map(len, positions))} words, in {np.count_nonzero(lost)} of "
        f"{len(lost)} sentences, have no token within max_seq_length {max_seq_length}: they teach "
        "nothing, and are scored as answered with O."
    )


def load_token_classification(
    name: str = "conll2003",
    *,
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    token_column: str | None = None,
    tag_column: str | None = None,
    max_seq_length: int | None = None,
    label_all_tokens: bool = False,
    on_broken_tags: str = "stop",
    tier: tiers.Tier | None = None,
) -> TokenClassification:
    """Load sentences with a tag for each word, at the size of the tier.

    Args:
        name: 'conll2003', or a hub data set; a title when files are given.
        train_file: json or jsonl with a list of tokens and one of tags a row; a file of any other
            ending is read as CoNLL columns.
        validation_file: the same; required with `train_file`.
        token_column: its name, if it is not one of the usual ones.
        tag_column: likewise.
        max_seq_length: sub-tokens kept of a sentence; the tier's value if None.
        label_all_tokens: train on all sub-tokens of a word.
        on_broken_tags: 'stop', or 'keep' to go on with entities that do not begin with B-.
        tier: sizes; the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    if on_broken_tags not in ("stop", "keep"):
        raise UserError(f"--on_broken_tags {on_broken_tags!r}: expected stop or keep.")
    tier = tier or tiers.current()
    splits = tagged_sentences.read_splits(name, train_file, validation_file)
    train, validation = (
        tagged_sentences.named_tags(split, where, token_column, tag_column)
        for split, where in zip(splits, ("train", "validation"), strict=True)
    )
    labels = tagged_sentences.label_names(train, validation)
    # One file stands for both where a model is only measured.
    if not train_file or train_file != validation_file:
        tagged_sentences.check_order(train, "train", on_broken_tags)
    tagged_sentences.check_order(validation, "validation", on_broken_tags)
    task = TokenClassification(
        name,
        numbered(train, labels),
        numbered(validation, labels),
        labels,
        max_seq_length or tier.max_seq_length,
        label_all_tokens,
    )
    return task.shortened(tier.train_examples, tier.validation_examples)


def numbered(split: "Dataset", labels: list[str]) -> "Dataset":
    """Return the rows with the numbers of their tags instead of the names."""
    from datasets import Dataset

    number = {label: i for i, label in enumerate(labels)}
    tags = [[number[tag] for tag in row] for row in split["tags"]]
    return Dataset.from_dict({"tokens": split["tokens"], "tags": tags})
