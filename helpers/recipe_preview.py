"""What a recipe will do, before it does it: one row a modifier, and the curves over the epochs.

The curves repeat SparseML's formulas, so that a preview needs neither model nor training; a test
drives the real modifiers and holds the two together.
"""

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from helpers.recipe_modifier import RecipeModifier
    from helpers.recipes import Recipe

# What a modifier does, and why a recipe has it.
_WORDS = {
    "EpochRangeModifier": (
        "sets the length of the run",
        "It overrules num_train_epochs, so that schedule and run end together.",
    ),
    "LearningRateFunctionModifier": (
        "moves the learning rate",
        "Large steps let the rest take over from lost weights, small ones settle it.",
    ),
    "GMPruningModifier": (
        "sets the smallest weights to zero, more at every update",
        "Bit by bit, what is left takes over; it also needs epochs after the last cut.",
    ),
    "GlobalMagnitudePruningModifier": (
        "sets the smallest weights of all matrices together to zero, more at every update",
        "A matrix of large weights keeps more of them than one of small weights.",
    ),
    "MovementPruningModifier": (
        "sets the weights to zero that training moves towards it, more at every update",
        "Size tells what pre-training needed, movement what this task needs.",
    ),
    "OBSPruningModifier": (
        "sets the weights to zero that are missed least, and lets the rest make up for them",
        "Gradients tell what a weight is worth; its size alone is a guess.",
    ),
    "ConstantPruningModifier": (
        "keeps the zeros that are there",
        "Every optimizer step would otherwise move them away from zero.",
    ),
    "QuantizationModifier": (
        "rounds weights and activations to int8 in the forward pass",
        "The weights learn to live with the rounding the engine will do.",
    ),
    "DistillationModifier": (
        "adds the distance to a teacher's answers to the loss",
        "A teacher's doubts say more about an example than its bare label.",
    ),
    "PerLayerDistillationModifier": (
        "adds the distance to a teacher's hidden states to the loss",
        "Layer by layer, so that each has something to go by; no labels are needed.",
    ),
    "LayerPruningModifier": (
        "drops whole layers",
        "A layer that is gone costs nothing on any engine.",
    ),
}
_SETTINGS = (
    "init_lr", "final_lr", "lr_func", "init_sparsity", "final_sparsity", "mask_type", "inter_func",
    "update_frequency", "num_grads", "fisher_block_size", "disable_quantization_observer_epoch",
    "freeze_bn_stats_epoch", "quantize_embeddings", "exclude_module_types", "ignore",
    "submodules", "hardness", "temperature", "layers", "gain", "normalize",
)  # fmt: skip


def explain(recipe: "Recipe") -> "pd.DataFrame":
    """Return one row a modifier: what it does, in which epochs, with what settings, and why."""
    import pandas as pd

    rows = []
    for modifier in recipe.modifiers:
        what, why = _WORDS.get(modifier.name, ("see SparseML's documentation", ""))
        rows.append(
            {
                "modifier": modifier.name,
                "what": what,
                "epochs": span(modifier, recipe.num_epochs),
                "settings": settings(modifier),
                "why": why,
            }
        )
    return pd.DataFrame(rows)


def span(modifier: "RecipeModifier", num_epochs: float) -> str:
    """Return the epochs a modifier acts in, as '0.2 to 1.8'; an open end is the run's end."""
    start = max(0.0, modifier.start_epoch)
    end = num_epochs if modifier.end_epoch < 0 else modifier.end_epoch
    return f"{start:g} to {end:g}"


def settings(modifier: "RecipeModifier") -> str:
    """Return the settings a reader looks for first, as 'name=value, ...'."""
    found = {key: modifier.params.get(key) for key in _SETTINGS}
    shown = [f"{key}={short(value)}" for key, value in found.items() if value not in (None, -1)]
    if weights := (modifier.params.get("scheme") or {}).get("weights"):
        shown.append(f"weights=per {weights['strategy']}")
    for key, what in (("params", "patterns"), ("student_layer_names", "modules")):
        names = modifier.params.get(key)
        if isinstance(names, list):
            shown.append(f"{key}={len(names)} {what}")
    return ", ".join(shown)


def short(value: Any) -> str:  # noqa: ANN401 - any YAML value
    """Return a value without quotes and without rounding noise."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("'", "")


def schedule(recipe: "Recipe", points: int = 401) -> "pd.DataFrame":
    """Return the planned curves over the run.

    Returns:
        `points` rows: epoch, sparsity (0 to 1, mean over the pruned patterns), learning_rate (NaN
        where the recipe leaves it to the Trainer, or sets it in a way that is not repeated here:
        `LearningRateModifier`), quantized (0 or 1). SparseML changes masks
        only every `update_frequency` epochs; the curve is drawn through those steps.
    """
    import pandas as pd

    epochs = [recipe.num_epochs * i / (points - 1) for i in range(points)]
    int8_from = recipe.quantization_start if recipe.has_quantization else math.inf
    return pd.DataFrame(
        {
            "epoch": epochs,
            "sparsity": [sparsity_at(recipe, epoch) for epoch in epochs],
            "learning_rate": [learning_rate_at(recipe, epoch) for epoch in epochs],
            "quantized": [int(epoch >= int8_from) for epoch in epochs],
        }
    )


def sparsity_at(recipe: "Recipe", epoch: float) -> float:
    """Return the planned share of zeros at an epoch, 0 to 1; mean over the pruned patterns."""
    levels: dict[str, float] = {}
    held: dict[str, float] = {}
    # Where two prune the same matrices, zeros are not given back unless the first lets them go.
    for modifier in (m for m in recipe.modifiers if m.prunes):
        for pattern, final in modifier.levels().items():
            if epoch < modifier.start_epoch:
                levels.setdefault(pattern, 0.0)
                continue
            levels[pattern] = max(held.get(pattern, 0.0), gradual(modifier, final, epoch))
            if not modifier.lets_go:
                held[pattern] = levels[pattern]
    return sum(levels.values()) / len(levels) if levels else 0.0


def gradual(modifier: "RecipeModifier", final: float, epoch: float) -> float:
    """Return a gradual pruner's share of zeros, on its way to `final` from its start on."""
    first = modifier.params.get("init_sparsity", 0.0)
    first = first if isinstance(first, int | float) else 0.0
    length = modifier.end_epoch - modifier.start_epoch
    # Without a length there is no such run, see `recipe_checks.refuse_no_time`.
    done = min(1.0, (epoch - modifier.start_epoch) / length) if length > 0 else 0.0
    shapes = {
        "linear": done,
        "cubic": 1 - (1 - done) ** 3,
        "inverse_cubic": 1 - (1 - done) ** (1 / 3),
    }
    return first + (final - first) * shapes.get(modifier.params.get("inter_func", "cubic"), done)


def learning_rate_at(recipe: "Recipe", epoch: float) -> float:
    """Return the planned learning rate at an epoch; NaN where no modifier has set one yet."""
    lines = [m for m in recipe.modifiers if m.sets_learning_rate]
    begun = [m for m in lines if max(0.0, m.start_epoch) <= epoch]
    if not begun:
        return math.nan
    line = max(begun, key=lambda m: m.start_epoch)
    if line.name != "LearningRateFunctionModifier":
        return float(line.params.get("learning_rate") or math.nan)
    start, first, final = (
        max(0.0, line.start_epoch),
        line.params["init_lr"],
        line.params["final_lr"],
    )
    length = line.end_epoch - start
    if line.params["lr_func"] == "cyclic_linear":
        return sawtooth(min(epoch - start, length), length, line)
    done = min(1.0, (epoch - start) / length)
    if line.params["lr_func"] == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return float(first) + (float(final) - float(first)) * done


def sawtooth(passed: float, length: float, line: "RecipeModifier") -> float:
    """Return the rate of a schedule that starts anew in every cycle, the last one cut short.

    Args:
        passed, length: epochs since its start, and of all of it.
        line: has `cycle_epochs`.
    """
    cycle = float(line.params["cycle_epochs"])
    if passed > int(length / cycle) * cycle:
        cycle = length % cycle
    first, final = float(line.params["init_lr"]), float(line.params["final_lr"])
    return first + (final - first) * (passed % cycle) / cycle
