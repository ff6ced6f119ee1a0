"""The pictures of why a model is as fast as it is: roof over it, where time goes, real texts."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.environment import in_cores
from helpers.plots import BLUE, GREY, MARKS, PALE, SHADES, legend, new_figure
from helpers.text_lengths import TextLengths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.roofline import Peaks

HATCHES = ("", "//", "", "\\\\", "", "..", "", "xx")
FILLS = ("#08306b", "#c9daf8", "#6fa8dc", "#f3f3f3", "#b45f06", "#f9cb9c", "#444444", "#d9d9d9")


def roofline(table: pd.DataFrame, peaks: "Peaks") -> "Figure":
    """Draw the pace of every timed model under what memory and arithmetic allow.

    A zero that is skipped counts as done, so only an engine that skips some can get above the roof
    of its precision.

    Args:
        table: as from `roofline.table`: model, engine, operations, median_ms, operations_a_byte.
        peaks: the roofs.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, (axis,) = new_figure(height=4.4)
    engines, models = list(dict.fromkeys(table.engine)), list(dict.fromkeys(table.model))
    for row in table.itertuples():
        axis.scatter(
            row.operations_a_byte,
            row.operations / row.median_ms * 1000,
            marker=MARKS[engines.index(row.engine) % len(MARKS)],
            facecolor=SHADES[models.index(row.model) % len(SHADES)],
            edgecolor="black",
            s=70,
            zorder=3,
        )
    intensity = np.geomspace(table.operations_a_byte.min() / 20, table.operations_a_byte.max() * 3)
    for precision, style in (("fp32", "--"), ("int8", "-")):
        roof = np.minimum(peaks.of(precision), peaks.memory * intensity)
        axis.plot(intensity, roof, style, color=GREY, linewidth=1.4)
        label = f"{precision}: {peaks.of(precision):.0f}"
        place = {"xytext": (0, 3), "textcoords": "offset points", "ha": "right", "fontsize": 8}
        axis.annotate(label, (intensity[-1], peaks.of(precision)), color=GREY, **place)
    axis.set(xscale="log", yscale="log", xlabel="intensity (operations a byte of weight)")
    axis.set(ylabel="pace (billion operations a second)")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.set_major_formatter("{x:g}")
        scale.set_minor_formatter(NullFormatter())
    title = f"roofs measured on {in_cores(peaks.threads)}, memory {peaks.memory:.0f} GB/s"
    axis.set_title(title, loc="left", fontsize=11)
    axis.grid(which="major", color="#eeeeee")
    axis.set_axisbelow(True)
    legend(axis, engines, models)
    return figure


def time_by_part(table: pd.DataFrame) -> "Figure":
    """Draw the milliseconds of every part of a model as one bar a model and engine.

    Args:
        table: index part, one column a bar, in milliseconds a call.
    """
    figure, (axis,) = new_figure(8.5, 1.6 + 0.5 * table.shape[1])
    left = np.zeros(table.shape[1])
    for number, (part, values) in enumerate(table.iterrows()):
        style = {"color": FILLS[number % len(FILLS)], "hatch": HATCHES[number % len(HATCHES)]}
        axis.barh(list(table), values, 0.7, left=left, label=part, edgecolor="black",
                  linewidth=0.6, **style)  # fmt: skip
        left += values.to_numpy()
    for place, total in enumerate(left):
        axis.annotate(f" {total:.1f}", (total, place), va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel="time of a call, profiled (ms)", ylabel="model, engine")
    axis.set_xlim(0, 1.1 * left.max())
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return figure


def real_texts(lengths: TextLengths, table: pd.DataFrame) -> "Figure":
    """Draw how long texts are beside what one takes, padded to one length and in buckets.

    Args:
        lengths: of the texts.
        table: as from `text_measurements.as_table`; rows without times are left out.
    """
    table = table.dropna(subset=["mean_ms"])
    cells = table.assign(row=table.model + ", " + table.engine).pivot(
        index="row", columns="padding", values="mean_ms"
    )
    cells = cells.sort_values("buckets")
    figure, (left, right) = new_figure(10, max(3.2, 1.2 + 0.55 * len(cells)), columns=2)
    histogram(left, lengths)
    places = np.arange(len(cells))
    for offset, way, words, style in (
        (-0.2, "one length", f"padded to {lengths.max_seq_length}", {"color": PALE}),
        (0.2, "buckets", f"padded to {', '.join(map(str, lengths.buckets))}",
         {"color": BLUE, "hatch": "//"}),
    ):  # fmt: skip
        edge = BLUE if way == "one length" else "white"
        bars = right.barh(places + offset, cells[way], 0.38, label=words, edgecolor=edge, **style)
        right.bar_label(bars, fmt="%.1f", padding=3)
    right.set_yticks(places, cells.index)
    right.invert_yaxis()
    right.set(xlabel="mean latency at batch 1 (ms a text)", ylabel="model, engine")
    right.margins(x=0.12)
    right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def text_lengths(lengths: TextLengths) -> "Figure":
    """Draw how long texts are (tokens), with a line where longer ones are cut, and how many are."""
    figure, (axis,) = new_figure()
    histogram(axis, lengths)
    place = {"xycoords": axis.transAxes, "ha": "right", "va": "top", "fontsize": 9}
    share = lengths.cut / len(lengths.each)
    axis.annotate(f"{share:.1%} are longer, and are cut to fit", (0.93, 0.97), **place)
    return figure


def histogram(axis: "Axes", lengths: TextLengths) -> None:
    """Draw how many texts have how many tokens, with a line at every length they are padded to."""
    most = lengths.max_seq_length
    # Half a token off, so that texts which just fit a length stand left of its line.
    edges = np.linspace(0, most, min(most, 32) + 1) + 0.5
    weights = np.full(len(lengths.each), 100 / len(lengths.each))
    axis.hist(lengths.each, edges, weights=weights, color=PALE, edgecolor=BLUE, linewidth=0.6)
    for length in sorted({*lengths.buckets, most}):
        style = "-" if length == most else ":"
        axis.axvline(length, color=GREY, linestyle=style, linewidth=1.2)
        place = {"xycoords": axis.get_xaxis_transform(), "ha": "center", "va": "bottom"}
        axis.annotate(str(length), (length, 1.0), color=GREY, fontsize=8, **place)
    axis.set(xlabel="length of a text (tokens)", ylabel="texts (%)", xlim=(0, 1.03 * most))
