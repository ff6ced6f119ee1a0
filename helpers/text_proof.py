"""Does padding change what a model answers? It may not, or timings of two ways mean nothing."""

from typing import Any

import numpy as np

from helpers.benchmark import Row
from helpers.errors import ProofError
from helpers.export_proof import FP32_LOGITS_TOLERANCE
from helpers.tasks import Task
from helpers.text_tasks import MultiLabel, Regression

CHECK = "buckets answer as one length does"
# It is one file on one engine, so int8 has less room than an export against PyTorch: a tie in
# rounding is seen as a few hundredths in a logit, and few texts have one.
INT8_MEAN_TOLERANCE = 0.05


def agreement(
    row: Row, expected: np.ndarray, found: np.ndarray, task: Task, *, fp32: bool
) -> dict[str, Any]:
    """Hold the outputs [texts, classes] of buckets to those of one length.

    Padding is masked, so nothing should change but the order of sums: in fp32 by no more than
    between engines, and in int8 where that moves a tie in rounding. A text may then get another
    answer only if the model was undecided by so little.

    Raises:
        ProofError: for logits that differ by more, or more changed answers than undecided texts.
    """
    gaps = np.abs(found - expected)
    limit = FP32_LOGITS_TOLERANCE if fp32 else INT8_MEAN_TOLERANCE
    size = round(float(gaps.max() if fp32 else gaps.mean()), 6)
    mend = f"{row.engine} lets padding change what {row.model} answers; its times mean nothing."
    # Not "more than": nan is neither.
    if not size <= limit:
        kind = "largest" if fp32 else "mean"
        raise ProofError(CHECK, f"{kind} difference of logits at most {limit}", size, mend)
    changed, possible = changes(expected, found, task, limit)
    if changed > possible:
        raise ProofError(CHECK, f"at most {possible} other answers", changed, mend)
    return {"logits_gap": round(float(gaps.max()), 6), "labels_changed": changed}


def changes(expected: np.ndarray, found: np.ndarray, task: Task, limit: float) -> tuple[int, int]:
    """Return how many answers changed, and how many could if no logit moves more than `limit`.

    A score is no label, so none can change.
    """
    scored = isinstance(task, Regression) or expected.shape[-1] == 1
    if scored and not isinstance(task, MultiLabel):
        return 0, 0
    differ = (task.decided(found) != task.decided(expected)).reshape(len(found), -1).any(axis=1)
    if isinstance(task, MultiLabel):
        room = np.abs(expected).min(axis=1)
    else:
        second, best = np.sort(expected, axis=1)[:, -2:].T
        room = (best - second) / 2
    return int(differ.sum()), int((room <= limit).sum())
