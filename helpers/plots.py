"""The pictures: each function takes what a step returned and gives back one figure.

Every axis has a label with its unit; marks differ in shape or shade too, so that a grey print
reads the same.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.schedule_plot import schedule
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "accuracies",
    "answer_scores",
    "bubbles",
    "heat_map",
    "learning_curve",
    "schedule",
    "sizes",
    "sparsity_map",
]

BLUE, ORANGE, GREY, PALE = "#0b5394", "#b45f06", "#666666", "#c9daf8"
SHADES = (
    *("#c9daf8", "#6fa8dc", "#0b5394", "#b45f06", "#f9cb9c", "#7f6000"),
    *("#333333", "#d9ead3", "#999999", "#ffffff"),
)
MARKS = ("o", "s", "^", "D", "v", "P")


def new_figure(width: float = 7.5, height: float = 3.4, columns: int = 1) -> tuple["Figure", list]:
    """Return a figure that is not open in pyplot, and its axes in a list.

    A figure left open would be shown twice in a notebook: once returned, once as left open.
    """
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
    pyplot.close(figure)
    axes = list(np.atleast_1d(axes))
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def learning_curve(checkpoint: Checkpoint, metric: str = "accuracy") -> "Figure":
    """Draw loss over the epochs, and a metric (0 to 1) on unseen rows after each."""
    # Named, since a run of a few steps logs no training loss at all.
    score = f"eval_{metric}"
    columns = ["epoch", "loss", "eval_loss", score]
    history = pd.DataFrame(checkpoint.run["history"], columns=columns)
    figure, (left, right) = new_figure(columns=2)
    train = history.dropna(subset=["loss"])
    left.plot(train.epoch, train.loss, color=BLUE, label="train")
    held_out = history.dropna(subset=["eval_loss"])
    left.plot(held_out.epoch, held_out.eval_loss, "o--", color=ORANGE, label="validation")
    # A cosine has no unit.
    unit = "" if metric == "cosine_similarity" else " (nats a row)"
    left.set(xlabel="epoch", ylabel=f"loss{unit}", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(held_out.epoch, 100 * held_out[score], "s--", color=ORANGE)
    right.set(xlabel="epoch", ylabel=f"validation {metric} (%)", ylim=(0, 100), xlim=(0, None))
    for epoch, value in zip(held_out.epoch, held_out[score], strict=True):
        offset = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
        right.annotate(f"{100 * value:.1f}", (epoch, 100 * value), **offset)
    figure.suptitle(f"{checkpoint.name}: learning curve", x=0.01, ha="left", fontsize=11)
    return figure


def sparsity_map(table: pd.DataFrame, title: str) -> "Figure":
    """Draw the share of zeros of every encoder matrix.

    Args:
        table: as from `sparsity.layer_sparsity`: layer, matrix, sparsity.
        title: what is shown.
    """
    encoder = table[table.layer >= 0]
    grid = 100 * encoder.pivot(index="layer", columns="matrix", values="sparsity")
    figure, (axis,) = new_figure(height=3.6)
    image = axis.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(grid.to_numpy()):
        shade = "white" if value > 60 else "black"
        axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=9)
    names = [name.replace("attention.", "att.").replace(".dense", "") for name in grid.columns]
    axis.set_xticks(range(len(names)), names, rotation=20, ha="right")
    axis.set_yticks(range(len(grid)), grid.index)
    axis.set(xlabel="weight matrix", ylabel="encoder layer")
    axis.set_title(title, loc="left", fontsize=11)
    figure.colorbar(image, label="zeros (%)")
    return figure


def accuracies(scores: Mapping[str, float], chance: float | None = None) -> "Figure":
    """Draw accuracies (0 to 1) side by side, with the number on each bar."""
    figure, (axis,) = new_figure(height=0.9 + 0.42 * len(scores))
    values = [100 * value for value in scores.values()]
    bars = axis.barh(list(scores), values, color=SHADES[: len(values)], edgecolor=BLUE)
    axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.invert_yaxis()
    axis.set(xlabel="validation accuracy (%)", ylabel="model", xlim=(0, 105))
    if chance is not None:
        axis.axvline(100 * chance, color=GREY, linestyle=":", linewidth=1.2)
        place = {"xycoords": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.annotate("guessing", (100 * chance, 1.0), color=GREY, fontsize=8, **place)
    return figure


def answer_scores(scores: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Draw exact match and F1 of models that answer questions, a pair of bars a model.

    Args:
        scores: model to its metrics, each with `exact_match` and `f1` (0 to 1).
    """
    figure, (axis,) = new_figure(height=1.2 + 0.55 * len(scores))
    places = np.arange(len(scores))
    for offset, metric, words, style in (
        (-0.2, "exact_match", "exact match", {"color": PALE, "edgecolor": BLUE}),
        (0.2, "f1", "F1", {"color": BLUE, "edgecolor": "white", "hatch": "//"}),
    ):
        values = [100 * found[metric] for found in scores.values()]
        bars = axis.barh(places + offset, values, 0.38, label=words, **style)
        axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set_yticks(places, list(scores))
    axis.invert_yaxis()
    axis.set(xlabel="validation score (%)", ylabel="model", xlim=(0, 105))
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def sizes(table: pd.DataFrame) -> "Figure":
    """Draw file size as stored and as zipped.

    Args:
        table: index model, columns `file_mb` and `zipped_mb`.
    """
    figure, (axis,) = new_figure(height=1.2 + 0.55 * len(table))
    places = np.arange(len(table))
    for offset, column, style in (
        (-0.2, "file_mb", {"color": PALE}),
        (0.2, "zipped_mb", {"color": BLUE, "hatch": "//"}),
    ):
        words = {"file_mb": "as it is", "zipped_mb": "zipped"}[column]
        bars = axis.barh(places + offset, table[column], 0.38, label=words,
                         edgecolor="white" if column == "zipped_mb" else BLUE, **style)  # fmt: skip
        axis.bar_label(bars, fmt="%.1f", padding=3)
    axis.set_yticks(places, table.index)
    axis.invert_yaxis()
    axis.set(xlabel="size of model.onnx (MB)", ylabel="model", xlim=(0, 1.12 * table.file_mb.max()))
    axis.legend(frameon=False, loc="lower right")
    return figure


def bubbles(table: pd.DataFrame, title: str) -> "Figure":
    """Draw accuracy against latency, with the zipped size as the area of each bubble.

    Args:
        table: one row a model and engine: model, engine, median_ms, accuracy (0 to 1), zipped_mb.
        title: what is shown.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, (axis,) = new_figure(height=4.4)
    engines = list(dict.fromkeys(table.engine))
    models = list(dict.fromkeys(table.model))
    for row in table.itertuples():
        axis.scatter(
            row.median_ms,
            100 * row.accuracy,
            s=18 * row.zipped_mb + 25,
            marker=MARKS[engines.index(row.engine) % len(MARKS)],
            facecolor=SHADES[models.index(row.model) % len(SHADES)],
            edgecolor="black",
            linewidth=0.8,
            alpha=0.85,
        )
    axis.set(xscale="log", xlabel="median latency (ms a call, log scale)")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = 100 * table.accuracy.min(), 100 * table.accuracy.max()
    pad = max(1.0, 0.35 * (high - low))
    axis.set(ylabel="accuracy (%)", ylim=(low - pad, high + pad))
    axis.set_title(f"{title} (area: zipped size)", loc="left", fontsize=11)
    axis.margins(x=0.12)
    axis.grid(axis="x", which="both", color="#eeeeee")
    axis.set_axisbelow(True)
    legend(axis, engines, models)
    return figure


def heat_map(table: pd.DataFrame) -> "Figure":
    """Draw how many times as fast every model on every engine is as the slowest beside it.

    The darker, the faster; the milliseconds stand below.

    Args:
        table: one row a measurement: model, engine, batch_size, sequence_length, median_ms.
    """
    from matplotlib.colors import LogNorm

    table = table.dropna(subset=["median_ms"])
    table = table.assign(row=table.model + ", " + table.engine)
    cells = table.pivot(index="row", columns=["sequence_length", "batch_size"], values="median_ms")
    cells = cells.sort_index(axis="columns")
    times = cells.max() / cells
    order = times.iloc[:, 0].sort_values(ascending=False).index
    cells, times = cells.loc[order], times.loc[order]
    # Three columns' width at least, or the title is cut off.
    figure, (axis,) = new_figure(2.5 + 1.1 * max(3, cells.shape[1]), 1.2 + 0.42 * len(cells))
    most = max(1.01, float(np.nanmax(times)))
    axis.imshow(times, cmap="Greys", norm=LogNorm(1, most**1.3), aspect="auto")
    for (y, x), value in np.ndenumerate(times.to_numpy()):
        text = "-" if np.isnan(value) else f"{value:.1f}x\n{cells.iloc[y, x]:.1f} ms"
        shade = "white" if value > most**0.8 else "black"
        axis.text(x, y, text, ha="center", va="center", fontsize=7, color=shade)
    names = [f"batch {batch}\n{tokens} tokens" for tokens, batch in cells.columns]
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(cells)), list(cells.index))
    axis.set(xlabel="shape of a call", ylabel="model, engine")
    axis.spines[:].set_visible(False)
    axis.set_title("times as fast as the slowest of its column", loc="left", fontsize=11)
    return figure


def legend(axis: "Axes", engines: list[str], models: list[str]) -> None:
    """Explain shapes (engines) and shades (models) beside the plot."""
    from matplotlib.lines import Line2D

    style = {"linestyle": "", "markeredgecolor": "black", "markersize": 8}
    shapes = [
        Line2D([], [], marker=MARKS[i % len(MARKS)], color="white", label=name, **style)
        for i, name in enumerate(engines)
    ]
    shades = [
        Line2D([], [], marker="o", color=SHADES[i % len(SHADES)], label=name, **style)
        for i, name in enumerate(models)
    ]
    axis.legend(handles=shapes + shades, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
