"""Pruning upstream: a sparse encoder learns to see plain text as the dense one does.

Nobody has to label anything. The dense model's embedding of each text is written down once and is
what the loss compares with; its hidden states are compared by the recipe's
PerLayerDistillationModifier. What comes out is a start for any task (Zafrir et al. 2021,
"Prune Once for All", arXiv:2111.05754; Kurtic et al. 2022, oBERT, arXiv:2203.07259).
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers import compat, plain_texts, tiers
from helpers.errors import UserError
from helpers.tasks import SAMPLING_SEED, Task, check_finite, check_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from helpers.stops import Checkpoint

# Each is compared with each, so ten times as many would take a hundred times as long.
NEIGHBOURS = 10_000
# Rows that the dense model embeds at once.
EMBEDDED_AT_ONCE = 64


@dataclass(frozen=True)
class Upstream(Task):
    """Plain text, to be seen as a dense model sees it.

    `train` and `validation` have the column `text` (str); `labels` is empty.

    Attributes:
        dense: the model that is imitated: 'minilm', a folder or a hub name.
    """

    dense: str = "minilm"

    head: ClassVar[str] = "Model"
    outputs: ClassVar[tuple[str, ...]] = ("embedding",)
    teaches_answers: ClassVar[bool] = False
    main_metric: ClassVar[str] = "cosine_similarity"
    # Its hidden states are compared, too, and those of a corpus fill a disk.
    records_teacher: ClassVar[bool] = False
    numbered: ClassVar[str] = ""
    texts: ClassVar[tuple[str, ...]] = ("text",)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over rows, length and the dense model: equal if and only if they are."""
        return hashlib.sha256(f"{super().fingerprint} {weights_of(self)}".encode()).hexdigest()

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: nothing."""
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint must keep to be asked again in the same way."""
        return {**super().settings, "dense": self.dense}

    def sample(self, rows: int = 6) -> pd.DataFrame:
        """Return a few training texts."""
        picked = self.train.shuffle(seed=SAMPLING_SEED).select(range(min(rows, len(self.train))))
        return pd.DataFrame({"text": picked["text"]})

    def encode(self, tokenizer: "PreTrainedTokenizerBase", split: "Dataset") -> "Dataset":
        """Cut texts into windows of token ids, with `length` and, as `labels`, dense embeddings.

        What comes of a file is memory-mapped by `datasets`, so it may be larger than memory.

        Raises:
            UserError: if `max_seq_length` is more than the model takes.
        """
        check_length(self.max_seq_length, tokenizer.model_max_length)
        cut = window_cutter(tokenizer, self.max_seq_length)
        rows = split.map(cut, batched=True, remove_columns=split.column_names)
        print(f"Writing down how {Path(self.dense).name} sees {len(rows):,} pieces of text ...")
        embed = embedder(self, tokenizer)
        with tqdm(total=len(rows), unit="text", leave=False) as bar:

            def embed_and_show(some: dict[str, list]) -> dict[str, list]:
                bar.update(len(some["length"]))
                return embed(some)

            # Named, as `datasets` cannot tell one bar from another.
            name = f"{self.fingerprint} {len(rows)} {rows[0]} {rows[-1]}"
            name = hashlib.sha256(name.encode()).hexdigest()[:16]
            return rows.map(embed_and_show, batched=True, new_fingerprint=name)

    def references(self, features: "Dataset") -> np.ndarray:
        """Return the dense model's embeddings, [rows, hidden], not as lists of numbers."""
        return features.with_format("numpy", columns=["labels"])["labels"]

    def metrics(self, outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Score embeddings [rows, hidden] against the dense model's [rows, hidden].

        `cosine_similarity` is the mean over rows; `same_neighbour` the share of texts whose
        nearest other text is the same one as for the dense model, among `NEIGHBOURS` at most.
        Both are 1.0 if nothing is lost.
        """
        from sklearn.metrics.pairwise import paired_cosine_distances

        check_finite(outputs)
        near = paired_cosine_distances(outputs, references)
        # Drawn, since they come sorted by length.
        some = np.random.default_rng(SAMPLING_SEED).permutation(len(outputs))[:NEIGHBOURS]
        same = nearest(outputs[some]) == nearest(references[some])
        return {"cosine_similarity": float(1 - near.mean()), "same_neighbour": float(same.mean())}


def nearest(embeddings: np.ndarray) -> np.ndarray:
    """Return for each row the number of the most similar other row, by cosine."""
    from sklearn.neighbors import NearestNeighbors

    if len(embeddings) < 2:
        return np.zeros(len(embeddings), dtype=int)
    # Without rows of its own, `kneighbors` leaves each row itself out.
    search = NearestNeighbors(n_neighbors=1, metric="cosine").fit(embeddings)
    return search.kneighbors(return_distance=False)[:, 0]


def window_cutter(
    tokenizer: "PreTrainedTokenizerBase", length: int
) -> "Callable[[dict[str, list]], BatchEncoding]":
    """Return what cuts rows of `text` into windows of at most so many tokens, none left out."""

    def cut(rows: dict[str, list]) -> "BatchEncoding":
        tokens = tokenizer(
            rows["text"], truncation=True, max_length=length, return_overflowing_tokens=True
        )
        tokens.pop("overflow_to_sample_mapping", None)
        tokens["length"] = [len(ids) for ids in tokens["input_ids"]]
        return tokens

    return cut


def embedder(
    task: Upstream, tokenizer: "PreTrainedTokenizerBase"
) -> "Callable[[dict[str, list]], dict[str, list]]":
    """Return what gives windows the dense model's embedding, [rows, hidden], as `labels`."""
    import torch

    from helpers import models

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dense, pad = models.load_model(dense_model(task)).to(device), task.collator(tokenizer)

    def embed(rows: dict[str, list]) -> dict[str, list]:
        # Windows of like length together, or most of the work is padding.
        order = np.argsort(rows["length"], kind="stable")
        found = np.empty((len(order), dense.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), EMBEDDED_AT_ONCE):
            some = order[start : start + EMBEDDED_AT_ONCE]
            batch = pad([{name: rows[name][i] for name in models.INPUTS} for i in some])
            with torch.no_grad():
                found[some] = dense(**batch.to(device)).embedding.cpu().numpy()
        return {"labels": list(found)}

    return embed


def dense_model(task: Upstream) -> "Checkpoint":
    """Return the dense model of a task as a teacher.

    Raises:
        UserError: if it cannot be had, or has a head.
    """
    from helpers import adoption

    return adoption.adopt(task.dense, task)


def refuse_sparse(task: Upstream) -> None:
    """Refuse to measure against a model that is sparse itself.

    Raises:
        UserError: naming its first sparse matrix; whatever `dense_model` raises.
    """
    from helpers import models, sparsity

    found = sparsity.sparse_parameters(models.load_model(dense_model(task)))
    for name, share in found.items():
        raise UserError(
            f"{task.dense} is no dense model ({share:.0%} zeros in {name}), so what is like it is "
            "not yet like a dense one. Pass --distill_teacher with the model it was pruned from."
        )


def weights_of(task: Upstream) -> str:
    """Return the sha256 of the dense model's weights."""
    from helpers.requests import identity

    return identity(dense_model(task))


def load_upstream(
    name: str = "docs-library",
    *,
    dense: str | Path = "minilm",
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    text_column: str | None = None,
    validation_split_percentage: int = 5,
    max_seq_length: int | None = None,
    tier: tiers.Tier | None = None,
) -> Upstream:
    """Load plain text for upstream pruning, at the size of the tier.

    Args:
        name: 'docs-library' (embedded; its labels are left out), 'wikitext2', 'wikitext103' or a
            hub data set; a title when files are given.
        dense: the model whose view of the texts is learnt.
        train_file: csv, tsv, json or jsonl with a text column; a file of any other ending is read
            as UTF-8 text, one document, paragraph or sentence a line. Several with commas between.
        validation_file: the same; None to hold out the first rows of `train_file`.
        text_column: its name, if it is not one of the usual ones.
        validation_split_percentage: how much is held out then.
        max_seq_length: tokens of a window; the tier's value if None.
        tier: sizes; those of pruning upstream at the current tier if None.

    Raises:
        UserError: for anything about the data that would only fail, or mislead, later on.
    """
    tier = tier or at_upstream_size(tiers.current())
    train, validation = plain_texts.read_splits(
        name, train_file, validation_file, text_column, validation_split_percentage
    )
    length = max_seq_length or tier.max_seq_length
    dense = compat.absolute(dense) if Path(dense).is_dir() and dense != "minilm" else str(dense)
    task = Upstream(name, train, validation, [], length, dense)
    refuse_sparse(task)
    return task.shortened(tier.train_examples, tier.validation_examples)


def at_upstream_size(tier: tiers.Tier) -> tiers.Tier:
    """Return a tier with as many texts as pruning upstream takes at that size."""
    sizes = tiers.UPSTREAM[tier.name]
    return replace(
        tier,
        train_examples=sizes.train_examples,
        validation_examples=sizes.validation_examples,
    )


def dense_of(start: "str | Checkpoint") -> str:
    """Return which dense model a start is taught by if none is named: itself, or its own.

    Raises:
        UserError: for a checkpoint that was trained for something else.
    """
    if isinstance(start, str):
        return start
    if start.run.get("kind") != Upstream.__name__:
        raise UserError(
            f"{start.name} was fine-tuned on {start.run['task']}, so it sees text with that in "
            "mind. Start from an encoder that was not, such as 'minilm'."
        )
    return start.run["dense"]
