"""What others have published for models of the same kind, beside this project's stored runs."""

from dataclasses import dataclass
from typing import Any

from helpers.score_tables import SPARSE_WAYS, best_share

SURGEON = "[oBERT](https://arxiv.org/abs/2203.07259)"
BLOCKS = (
    "[Prune Once for All, blocks of four](https://huggingface.co/Intel/"
    "bert-base-uncased-squadv1.1-sparse-80-1x4-block-pruneofa)"
)
ONCE = "[Prune Once for All](https://arxiv.org/abs/2111.05754)"
RECIPES = "[SparseML's recipes](../recipes/README.md#those-of-the-integration-bert-base)"


@dataclass(frozen=True)
class Published:
    """One published score, always of BERT-base.

    Attributes:
        data: name of the task as in results/: F1 for 'squad', accuracy for 'sst2', both in percent.
        way: a column of `score_tables.SPARSE_WAYS`.
        dense: score of the dense model in the same source; None where it names none.
        sparse: score of the sparse one.
        source: a link to it.
    """

    data: str
    way: str
    dense: float | None
    sparse: float
    source: str


PUBLISHED = (
    Published("squad", "pruned 80 %", 88.54, 89.04, SURGEON),
    Published("squad", "pruned 80 %", 88.44, 88.62, RECIPES),
    Published("squad", "pruned 80 %, int8", 88.54, 87.89, SURGEON),
    Published("squad", "pruned 90 %", 88.54, 88.31, SURGEON),
    Published("squad", "pruned 90 %", 88.44, 87.23, RECIPES),
    Published("squad", "pruned 90 %, int8", 88.54, 86.68, SURGEON),
    Published("squad", "pruned 90 %, int8", 88.44, 83.92, RECIPES),
    Published("squad", "transfer 80 %", None, 88.47, BLOCKS),
    Published("squad", "transfer 90 %", 88.54, 88.49, SURGEON),
    Published("squad", "transfer 90 %", None, 87.25, ONCE),
    Published("sst2", "transfer 90 %", None, 90.88, ONCE),
)


def published_table(runs: list[tuple[str, dict[str, Any]]]) -> str:
    """Return one row a published score, with what is left of the dense score there and here.

    Args:
        runs: task and its stops, by name, for each stored run; of several the best one is shown.
    """
    heads = ("data", "way", "dense", "sparse", "of dense", "of dense here", "source")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in PUBLISHED:
        stops = [found for task, found in runs if task == row.data]
        dense, share = "-", "-"
        if row.dense is not None:
            dense, share = f"{row.dense:.2f}", f"{row.sparse / row.dense:.3f}"
        here = best_share(stops, SPARSE_WAYS[row.way])
        cells = (row.data, row.way, dense, f"{row.sparse:.2f}", share, here, row.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
