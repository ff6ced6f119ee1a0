"""Texts, single or in pairs, with a score (regression) or with any number of classes.

Both are the plain task with other labels: columns, tokens and batches stay as they are.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from helpers.labels import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from helpers.tasks import Task, check_finite

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Regression(Task):
    """A score for a text or a pair, such as how alike two sentences are.

    `train` and `validation` have the column `label` (float); `labels` holds the score's one name.
    """

    main_metric: ClassVar[str] = "pearson"
    teaches_answers: ClassVar[bool] = False
    numbered: ClassVar[str] = ""

    @property
    def spread(self) -> float:
        """Scores are of any size: how far those of the validation rows lie apart, at most 1."""
        return min(1.0, float(np.std(self.validation["label"])) or 1.0)

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: one output, trained by squared error."""
        return {**super().config, "problem_type": REGRESSION}

    def decided(self, outputs: np.ndarray) -> np.ndarray:
        """Return the scores themselves: any other number is another answer."""
        return outputs

    def in_words(self, label: float) -> float:
        """Return a score as it is."""
        return label

    def metrics(self, outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Score `outputs` [rows, 1] against `references` [rows].

        Where answers or references are all the same, no correlation is defined: it counts as 0,
        and a warning says so.

        Raises:
            UserError: if an answer is not a number, as after a training that diverged.
        """
        from scipy.stats import pearsonr, spearmanr
        from sklearn.metrics import mean_squared_error

        answers = np.asarray(outputs, dtype=np.float64).reshape(len(references))
        expected = np.asarray(references, dtype=np.float64)
        check_finite(answers)
        correlates = _varies(answers, "answers") and _varies(expected, "references")
        return {
            "pearson": float(pearsonr(answers, expected)[0]) if correlates else 0.0,
            "spearmanr": float(spearmanr(answers, expected)[0]) if correlates else 0.0,
            "mse": float(mean_squared_error(expected, answers)),
        }


def _varies(values: np.ndarray, what: str) -> bool:
    if np.ptp(values) > 0:
        return True
    warnings.warn(
        f"All {len(values)} {what} are {values[0]:.4g}: no correlation is defined, it counts as 0.",
        stacklevel=3,
    )
    return False


@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of classes for a text or a pair, none included.

    `train` and `validation` have the column `label` (list of int). A class is an answer where its
    probability, the sigmoid of its logit, is more than one half.
    """

    main_metric: ClassVar[str] = "f1_micro"

    @property
    def config(self) -> dict[str, Any]:
        """What the model's config must say: a yes or no for each label."""
        return {**super().config, "problem_type": MULTI_LABEL}

    def prepare_head(self, network: "nn.Module") -> None:
        """Let every label start at its own share of the rows, instead of at one half.

        Symptom: on GoEmotions' 28 labels MiniLM says no to every label of every text, however long
        it is trained. Cause: the quickest way down from one half is to push all answers to no, and
        that drives the encoder to where it no longer tells texts apart. (Lin et al. 2017,
        arXiv:1708.02002, section 3.3, start a rare class the same way.)
        """
        import torch

        chosen = np.concatenate(self.train["label"]).astype(int)
        counts = np.bincount(chosen, minlength=len(self.labels))
        odds = (counts + 0.5) / (len(self.train) - counts + 0.5)
        with torch.no_grad():
            network.classifier.bias.copy_(torch.from_numpy(np.log(odds)))

    def decided(self, outputs: np.ndarray) -> np.ndarray:
        """Return the yes or no to each label, bool [rows, classes]."""
        return outputs > 0

    def in_words(self, label: list[int]) -> str:
        """Return the names of a row's labels."""
        return ", ".join(self.labels[number] for number in label)

    def targets(self, labels: list[list[int]]) -> list[list[float]]:
        """Return 0.0 and 1.0 for each row and class, [rows][classes]: the loss needs floats."""
        hot = np.zeros((len(labels), len(self.labels)))
        for row, numbers in enumerate(labels):
            hot[row, numbers] = 1.0
        return hot.tolist()

    def metrics(self, outputs: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Score `outputs` [rows, classes] against `references` [rows, classes] of 0 and 1.

        `accuracy` is the share of rows with exactly the right set of labels.
        """
        from sklearn.metrics import accuracy_score, f1_score

        # A logit above 0 is a probability above one half.
        answers, expected = outputs > 0, references > 0.5
        return {
            "f1_micro": float(f1_score(expected, answers, average="micro", zero_division=0)),
            "f1_macro": float(f1_score(expected, answers, average="macro", zero_division=0)),
            "accuracy": float(accuracy_score(expected, answers)),
        }


# The kind for each `problem_type` of Transformers' configs.
KINDS = {SINGLE_LABEL: Task, MULTI_LABEL: MultiLabel, REGRESSION: Regression}
