"""How big everything is: the one switch `TUTORIAL_TIER`, and the only module that knows sizes."""

import os
from dataclasses import dataclass
from typing import Any

from helpers.errors import UserError


@dataclass(frozen=True)
class Tier:
    """Sizes of one pass through the notebooks.

    Attributes:
        train_examples: rows trained on, None for all.
        validation_examples: rows measured on, None for all.
        dense_epochs: epochs of the plain fine-tune.
        recipe_epochs: epochs a pruning recipe is rescaled to.
        quant_epochs: epochs a recipe that only quantizes is rescaled to.
        blocks_epochs: epochs of the recipe of notebook 5, which exports four models besides.
        transfer_epochs: epochs of a sparse transfer.
        learning_rate: of the plain fine-tune; recipes bring their own.
        max_seq_length: tokens kept of a text.
        batch_size: rows of one training step.
        benchmark_rounds: timed calls of each model on each engine.
        proof_examples: validation rows on which an export is compared with its checkpoint.
    """

    name: str
    train_examples: int | None
    validation_examples: int | None
    dense_epochs: float
    recipe_epochs: float
    quant_epochs: float
    blocks_epochs: float
    transfer_epochs: float
    learning_rate: float
    max_seq_length: int = 64
    batch_size: int = 32
    benchmark_rounds: int = 60
    proof_examples: int = 256


TIERS = {
    "smoke": Tier(
        "smoke", 160, 200, 1, 2, 1, 2, 1, 1.5e-4, 32, 16, benchmark_rounds=3, proof_examples=200
    ),
    "laptop": Tier("laptop", 5500, 1000, 2, 2, 1.5, 1.2, 1, 1.5e-4),
    "full": Tier(
        "full", None, None, 2, 2, 1, 2, 2, 1e-4, 128, 64, benchmark_rounds=200, proof_examples=872
    ),
}


@dataclass(frozen=True)
class QuestionSizes:
    """Sizes of the notebook on question answering: its rows are longer, so there are fewer.

    Attributes:
        train_examples: questions trained on, None for all.
        validation_examples: questions measured on, None for all.
        max_seq_length: tokens of a window.
        doc_stride: tokens that neighbouring windows share.
        epochs: of the plain fine-tune.
        recipe_epochs: epochs a recipe is rescaled to.
        batch_size: windows of one training step.
        learning_rate: of the plain fine-tune; recipes bring their own.
    """

    train_examples: int | None
    validation_examples: int | None
    max_seq_length: int
    doc_stride: int
    epochs: float
    recipe_epochs: float
    batch_size: int
    learning_rate: float

    @property
    def data(self) -> dict[str, Any]:
        """The arguments of `load_question_answering` that depend on the size."""
        return {
            "max_train_samples": self.train_examples,
            "max_eval_samples": self.validation_examples,
            "max_seq_length": self.max_seq_length,
            "doc_stride": self.doc_stride,
        }

    @property
    def training(self) -> dict[str, Any]:
        """The arguments of `fine_tune` that depend on the size."""
        return {
            "num_train_epochs": self.epochs,
            "per_device_train_batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        }


QUESTIONS = {
    "smoke": QuestionSizes(96, 60, 128, 32, 1, 2, 16, 3e-4),
    "laptop": QuestionSizes(900, 300, 192, 64, 2, 2, 16, 3e-4),
    "full": QuestionSizes(None, None, 384, 128, 2, 4, 32, 1e-4),
}


@dataclass(frozen=True)
class UpstreamSizes:
    """Sizes of pruning upstream, in notebook 7.

    Attributes:
        train_examples: texts trained on, None for all.
        validation_examples: texts measured on, None for all.
        epochs: the recipe is rescaled to.
        questions: of the second task that is transferred to, None for all.
    """

    train_examples: int | None
    validation_examples: int | None
    epochs: float
    questions: int | None


UPSTREAM = {
    "smoke": UpstreamSizes(96, 60, 2, 48),
    "laptop": UpstreamSizes(1200, 300, 3, 400),
    "full": UpstreamSizes(None, None, 6, None),
}


def current() -> Tier:
    """Return the tier named by `TUTORIAL_TIER` (default: laptop).

    Raises:
        UserError: for a name that is no tier.
    """
    name = os.environ.get("TUTORIAL_TIER", "laptop")
    if name in TIERS:
        return TIERS[name]
    raise UserError(f"TUTORIAL_TIER is {name!r}; it must be one of {', '.join(TIERS)}.")


def upstream() -> UpstreamSizes:
    """Return the sizes of pruning upstream at the current tier."""
    return UPSTREAM[current().name]


def questions() -> QuestionSizes:
    """Return the sizes of question answering at the current tier."""
    return QUESTIONS[current().name]
