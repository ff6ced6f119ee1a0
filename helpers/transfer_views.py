"""What notebook 7 shows: what an encoder sees, zeros that stay, what a transfer costs and gives."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from helpers import environment, models, plots, sparsity
from helpers.stops import Checkpoint
from helpers.tasks import SAMPLING_SEED
from helpers.upstream import Upstream, dense_model, nearest

if TYPE_CHECKING:
    from datasets import Dataset
    from matplotlib.figure import Figure
    from transformers import DataCollator

SHOWN = 90  # characters of a text
WORDS = 3  # of a text, at the least; what is left over of a long one may be a single dot
STORED = environment.REPOSITORY / "results" / "sparse_transfer_gpu.json"


def neighbours(task: Upstream, sparse: Checkpoint, rows: int = 5) -> pd.DataFrame:
    """Return some texts with the nearest other one, as the dense and the sparse encoder see them.

    Returns:
        One row a text: text, nearest to the dense model, nearest to the sparse one, same (bool).
    """
    network, tokenizer = models.load_model(sparse), models.load_tokenizer(sparse.folder)
    windows = task.encode(tokenizer, task.validation)
    dense = np.array(windows["labels"])
    seen, found = nearest(dense), nearest(embeddings(network, windows, task.collator(tokenizer)))
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in windows["input_ids"]]
    table = pd.DataFrame(
        {
            "text": texts,
            "nearest to the dense model": [texts[i] for i in seen],
            "nearest to the sparse one": [texts[i] for i in found],
        }
    )
    table = table.assign(same=seen == found)[[len(text.split()) >= WORDS for text in texts]]
    picked = table.sample(min(rows, len(table)), random_state=SAMPLING_SEED)
    return picked.assign(**picked.drop(columns="same").map(lambda text: text[:SHOWN]))


def embeddings(network: nn.Module, windows: "Dataset", pad: "DataCollator") -> np.ndarray:
    """Return what an encoder makes of windows of text, [rows, hidden]."""
    found = []
    for start in range(0, len(windows), 64):
        part = windows.select(range(start, min(start + 64, len(windows))))
        rows = [{name: row[name] for name in models.INPUTS} for row in part]
        with torch.no_grad():
            found.append(network(**pad(rows)).embedding.numpy())
    return np.concatenate(found)


def zeros_kept(before: Checkpoint | str | Path, after: Checkpoint) -> pd.DataFrame:
    """Compare where the zeros of a start and of what was made of it lie, whatever heads they have.

    Args:
        before: a checkpoint, or the folder or hub name of an encoder that others have pruned.
        after: what was fine-tuned from it.

    Returns:
        One row a matrix of the encoder: matrix, zeros before, of these still zero, zeros after.
    """
    old, new = encoder_matrices(before), encoder_matrices(after)
    rows = [
        (name, int(zero.sum()), int((new[name] & zero).sum()), int(new[name].sum()))
        for name, zero in old.items()
    ]
    return pd.DataFrame(rows, columns=["matrix", "zeros before", "still zero", "zeros after"])


def encoder_matrices(start: Checkpoint | str | Path) -> dict[str, np.ndarray]:
    """Return where the zeros of each matrix are; names as in an encoder without a head."""
    if isinstance(start, Checkpoint):
        network = models.load_model(start)
    else:
        network, _ = models.pretrained(start, models.NO_HEAD)
    return {
        name.removeprefix("bert.").removesuffix(".weight"): (value.detach() == 0).numpy()
        for name, value in sparsity.parameters(network).items()
        if "encoder.layer" in name and value.dim() == 2
    }


def ways(dense: Checkpoint, pruned: Checkpoint, transfer: Checkpoint, metric: str) -> pd.DataFrame:
    """Compare three ways to a model of one task: way, minutes, score.

    The minutes of the pruned one count the dense one that it started from.
    """
    minutes = [stop.run["minutes"] for stop in (dense, pruned, transfer)]
    return pd.DataFrame(
        {
            "way": ["dense", "pruned from scratch", "sparse transfer"],
            "minutes": [minutes[0], minutes[0] + minutes[1], minutes[2]],
            "score": [stop.metrics[metric] for stop in (dense, pruned, transfer)],
        }
    )


def price_and_worth(table: pd.DataFrame) -> "Figure":
    """Draw minutes and score side by side.

    Args:
        table: columns `way`, `minutes` and `score` (0 to 1), one row a way to a sparse model.
    """
    figure, (left, right) = plots.new_figure(height=0.9 + 0.42 * len(table), columns=2)
    shades = plots.SHADES[: len(table)]
    for axis, values, text in (
        (left, table.minutes, "training (minutes)"),
        (right, 100 * table.score, "score (%)"),
    ):
        bars = axis.barh(table.way, values, color=shades, edgecolor=plots.BLUE)
        axis.bar_label(bars, fmt="%.1f", padding=3)
        axis.invert_yaxis()
        axis.set(xlabel=text, xlim=(0, 1.2 * max(values)))
    right.set_yticklabels([])
    return figure


def cut_at_once(task: Upstream, levels: Sequence[float]) -> pd.DataFrame:
    """Cut the dense encoder at each level without training it, and measure what it still sees.

    Args:
        task: texts, and the dense model.
        levels: shares of zeros in each matrix, 0 to 1.

    Returns:
        One row a level: way, sparsity, score (`cosine_similarity` on the validation texts).
    """
    from torch.nn.utils import prune

    source = dense_model(task)
    tokenizer = models.load_tokenizer(source.folder)
    windows = task.encode(tokenizer, task.validation)
    dense, rows = np.array(windows["labels"]), []
    for level in levels:
        network = models.load_model(source)
        for name, module in network.named_modules():
            if "encoder.layer" in name and isinstance(module, nn.Linear):
                prune.l1_unstructured(module, "weight", amount=level)
        seen = embeddings(network, windows, task.collator(tokenizer))
        rows.append(("cut, not healed", level, task.metrics(seen, dense)["cosine_similarity"]))
    return pd.DataFrame(rows, columns=["way", "sparsity", "score"])


def stored_ways(task: str, file: Path = STORED) -> tuple[pd.DataFrame, float]:
    """Return what is stored of a task: scores of both ways at each level, and the dense model's.

    Args:
        task: a key of the file's `tasks`, such as "sst2".
        file: as `python -m helpers results --transfer` writes it.

    Returns:
        One row a stop in fp32 with a teacher: way, sparsity, score (the task's main metric, 0 to
        1); and the dense score.
    """
    stops = json.loads(file.read_text())["tasks"][task]
    metric = next(iter(stops["dense"]["metrics"]))
    rows = [
        (way, int(name.removeprefix(begin)) / 100, stop["metrics"][metric])
        for begin, way in (("prune", "pruned for the task"), ("transfer", "sparse transfer"))
        for name, stop in stops.items()
        if name.removeprefix(begin).isdigit()
    ]
    columns = ["way", "sparsity", "score"]
    return pd.DataFrame(rows, columns=columns), stops["dense"]["metrics"][metric]


def score_against_sparsity(table: pd.DataFrame, dense: float, label: str = "score (%)") -> "Figure":
    """Draw a line for each way to get there, over the share of zeros.

    Args:
        table: columns `way`, `sparsity` and `score`, all shares 0 to 1.
        dense: the dense model's score, drawn across.
        label: of the score, with its unit.
    """
    figure, (axis,) = plots.new_figure()
    styles = zip(
        ("-", "--", ":"), plots.MARKS, (plots.BLUE, plots.ORANGE, plots.GREY), strict=False
    )
    for (way, rows), (line, mark, colour) in zip(
        table.groupby("way", sort=False), styles, strict=False
    ):
        places = rows.sort_values("sparsity")
        axis.plot(
            100 * places.sparsity, 100 * places.score, line, marker=mark, color=colour, label=way
        )
    axis.axhline(100 * dense, color=plots.GREY, linewidth=1, linestyle=(0, (1, 3)))
    axis.annotate("dense", (100 * table.sparsity.min(), 100 * dense), va="bottom", fontsize=8)
    axis.set(xlabel="zeros in each matrix of the encoder (%)", ylabel=label)
    axis.legend(frameon=False)
    return figure
