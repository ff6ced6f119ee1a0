"""How long the texts of a data set are, in tokens, and the lengths they may be padded to.

Why: an engine computes padding as it computes words. How much of it there is decides what length
buckets can gain on these texts.

How: the model's own tokenizer counts the validation texts; buckets that no text needs are left out.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import models
from helpers.errors import UserError
from helpers.tasks import Task, check_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USUAL_BUCKETS = (16, 32, 64, 128, 256, 512)
# Each is an engine process with a copy of the model.
MOST_BUCKETS = 8
QUANTILES = (0, 10, 25, 50, 75, 90, 99, 100)


@dataclass(frozen=True)
class TextLengths:
    """How long the validation texts of a task are, special tokens included.

    Attributes:
        data: the task's name.
        max_seq_length: tokens kept of a text, and what all are padded to without buckets.
        counts: texts with 0, 1, ... `max_seq_length` tokens.
        cut: texts that had more tokens and lost the rest.
        buckets: the lengths that texts need, ascending.
    """

    data: str
    max_seq_length: int
    counts: list[int]
    cut: int
    buckets: list[int]

    @property
    def each(self) -> np.ndarray:
        """The length of every text, ascending, int [texts]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def quantile(self, percent: float) -> int:
        """Return the length that so many percent of the texts have at most."""
        return int(np.percentile(self.each, percent, method="inverted_cdf"))

    def padding(self, lengths: Sequence[int]) -> float:
        """Return the share of padding (0 to 1) if each text fills the smallest length it fits."""
        return float(1 - self.each.sum() / smallest(lengths, self.each).sum())

    def describe(self) -> dict[str, Any]:
        """Return all of it as it is stored, quantiles and shares of padding included."""
        return {
            **asdict(self),
            "texts": len(self.each),
            "quantiles": {f"{percent} %": self.quantile(percent) for percent in QUANTILES},
            "padding": {
                "one length": round(self.padding([self.max_seq_length]), 4),
                "buckets": round(self.padding(self.buckets), 4),
            },
        }


def count_lengths(
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    buckets: Sequence[int] | None = None,
    positions: int | None = None,
) -> TextLengths:
    """Count the tokens of a task's validation texts, and choose the buckets they need.

    Args:
        task: one text or a pair a row.
        tokenizer: the model's.
        buckets: lengths to pad to; None for the usual ones up to `max_seq_length`. That length is
            added where texts are longer than the longest bucket, so that nothing more is cut off.
        positions: tokens that the model takes, if it says so.

    Raises:
        UserError: for no bucket, too many, or one that is longer than the model takes.
    """
    most = min(positions or tokenizer.model_max_length, tokenizer.model_max_length)
    check_length(task.max_seq_length, most)
    check_buckets(buckets, most)
    # Not to be told that some texts are longer than the model takes: that is what is counted.
    ids = tokenizer(*texts_of(task).values(), verbose=False)["input_ids"]
    whole = np.array([len(row) for row in ids])
    kept = np.minimum(whole, task.max_seq_length)
    lengths = sorted({*(buckets or USUAL_BUCKETS), task.max_seq_length})
    lengths = [length for length in lengths if length <= task.max_seq_length]
    return TextLengths(
        data=task.name,
        max_seq_length=task.max_seq_length,
        counts=np.bincount(kept, minlength=task.max_seq_length + 1).tolist(),
        cut=int((whole > task.max_seq_length).sum()),
        buckets=np.unique(smallest(lengths, kept)).tolist(),
    )


def check_buckets(buckets: Sequence[int] | None, most: int) -> None:
    """Refuse buckets that cannot be used."""
    if buckets is None:
        return
    if not buckets or min(buckets) < 1:
        raise UserError("No length to pad to. Expected buckets such as 16,32,64,128.")
    if len(buckets) > MOST_BUCKETS:
        raise UserError(
            f"{len(buckets)} buckets would be as many engine processes. "
            f"Expected {MOST_BUCKETS} or fewer."
        )
    if max(buckets) > most:
        raise UserError(
            f"A bucket of {max(buckets)} tokens is longer than the model takes, which is {most}. "
            f"Expected {most} or less."
        )


def texts_of(task: Task) -> dict[str, list[str]]:
    """Return the validation texts of a task, by column."""
    split = task.validation
    return {name: split[name] for name in task.texts if name in split.column_names}


def smallest(lengths: Sequence[int], tokens: np.ndarray) -> np.ndarray:
    """Return the smallest of ascending `lengths` that holds so many tokens, int [texts]."""
    return np.asarray(lengths)[np.searchsorted(lengths, tokens)]


def tokenizer_of(model: Path, name: str | None = None) -> "PreTrainedTokenizerBase":
    """Load the fast tokenizer that lies beside a model, or one that is named.

    Args:
        model: an ONNX file, or the folder of an export or a checkpoint.
        name: 'minilm', a folder or a hub name, to take that one instead.

    Raises:
        UserError: if there is none, or none that is fast and can pad.
    """
    folder = model_folder(model)
    if name is None and not any(
        (folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")
    ):
        raise UserError(
            f"No tokenizer lies in {folder}. Expected tokenizer.json there, or "
            "--tokenizer_name with the folder of the model that this one was made from."
        )
    source = models.embedded_minilm() if name == "minilm" else name or folder
    tokenizer = models.load_tokenizer(source)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise UserError(
            f"The tokenizer in {source} is not a fast one, or has no padding token. "
            "Expected a tokenizer.json with a pad token."
        )
    return tokenizer


def positions_of(model: Path) -> int | None:
    """Return how many tokens a model takes, by the config beside it; None if there is none."""
    file = model_folder(model) / "config.json"
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text()).get("max_position_embeddings")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file} is damaged. Fetch it again.") from error


def model_folder(model: Path) -> Path:
    """Return where a model's tokenizer and config lie."""
    return model if model.is_dir() else model.parent
