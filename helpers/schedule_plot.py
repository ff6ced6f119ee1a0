"""The schedule of a recipe as a picture: zeros, learning rate and int8 over the epochs.

Three panels share the epoch axis, because what matters is what happens at the same time. Lines
differ in style and spans in hatching, so the picture survives a grey printer.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.recipes import Recipe

_BLUE, _ORANGE, _GREEN, _GREY = "#0b5394", "#b45f06", "#6aa84f", "#666666"


def schedule(recipe: "Recipe") -> "Figure":
    """Return the figure of a recipe's schedule; it is not shown."""
    from matplotlib import pyplot

    curves = recipe.schedule()
    figure, (zeros, rate, int8) = pyplot.subplots(
        3, 1, sharex=True, height_ratios=(3, 3, 1), figsize=(7.5, 4.6), layout="constrained"
    )
    # Out of pyplot's hands, or a notebook shows it twice: once returned, once as left open.
    pyplot.close(figure)
    draw_zeros(zeros, recipe, curves)
    zeros.set(ylabel="zeros (%)", ylim=(0, 104), yticks=(0, 25, 50, 75, 100))
    if curves.learning_rate.isna().all():
        text = "not in the recipe: the Trainer's own schedule"
        if recipe.sets_learning_rate:
            text = "set by a modifier whose curve is not drawn here"
        rate.text(0.5, 0.5, text, transform=rate.transAxes, ha="center", va="center")
    rate.plot(curves.epoch, curves.learning_rate, color=_ORANGE, linestyle="--")
    rate.set(ylabel="learning rate", ylim=(0, None))
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    draw_int8(int8, recipe)
    int8.set(xlabel="epoch", xlim=(0, recipe.num_epochs), ylim=(0, 1))
    for axis in (zeros, rate, int8):
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(recipe.last_event_epoch, color=_GREY, linestyle=":", linewidth=1.2)
    note = {"rotation": 90, "ha": "right", "va": "top", "color": _GREY, "fontsize": 8}
    place = {"xycoords": rate.get_xaxis_transform(), "textcoords": "offset points"}
    rate.annotate("last change", (recipe.last_event_epoch, 1.0), (-3, 0), **place, **note)
    zeros.set_title(f"{recipe.name}: the schedule", loc="left", fontsize=11)
    return figure


def draw_zeros(axis: "Axes", recipe: "Recipe", curves: "pd.DataFrame") -> None:
    """Draw the planned sparsity, or say why there is no plan."""
    targets = {target.final_sparsity for target in recipe.pruning_targets().values()}
    if not targets:
        text = "the zeros it starts with are kept" if recipe.keeps_zeros else "no pruning"
        label = {"ha": "center", "va": "center", "backgroundcolor": "white"}
        axis.text(0.5, 0.5, text, transform=axis.transAxes, **label)
        return
    axis.plot(curves.epoch, 100 * curves.sparsity, color=_BLUE)
    axis.fill_between(curves.epoch, 100 * curves.sparsity, color=_BLUE, alpha=0.15)
    each = all(target.per_matrix for target in recipe.pruning_targets().values())
    levels = " to ".join(f"{100 * level:g}" for level in sorted({min(targets), max(targets)}))
    text = f"{levels} % of {'every matrix' if each else 'all matrices together'}"
    axis.text(0.45 * recipe.num_epochs, 40, text, ha="center", va="center", color=_BLUE)


def ranges_fixed(recipe: "Recipe") -> float:
    """Return the epoch from which no int8 range moves any more; the end if they always do."""
    fixed = max(modifier.ranges_fixed for modifier in recipe.modifiers if modifier.quantizes)
    return min(fixed, recipe.num_epochs)


def draw_int8(axis: "Axes", recipe: "Recipe") -> None:
    """Draw the span in int8, closer hatched from where its ranges are fixed."""
    axis.set(ylabel="int8", yticks=())
    label = {"ha": "center", "va": "center", "fontsize": 9}
    label["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    if recipe.quantization_start is None:
        axis.text(0.5 * recipe.num_epochs, 0.5, "no int8 training", **label)
        return
    start, end, fixed = recipe.quantization_start, recipe.num_epochs, ranges_fixed(recipe)
    style = {"facecolor": "#d9ead3", "edgecolor": _GREEN, "linewidth": 0.8}
    for left, right, hatch, text in (
        (start, fixed, "//", "ranges move"),
        (fixed, end, "xx", "fixed"),
    ):
        if right > left:
            axis.axvspan(left, right, hatch=hatch, **style)
            axis.text((left + right) / 2, 0.5, text, **label)
