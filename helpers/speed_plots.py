"""The pictures of why a model is as fast as it is: the roof over it, and where its time goes."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers.plots import GREY, MARKS, SHADES, legend, new_figure

if TYPE_CHECKING:
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
    axis.set_title(f"roofs, as measured: {peaks}", loc="left", fontsize=10)
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
