"""All that looks wrong in a recipe, alone and against a model, as a list instead of an error.

Training stops at the first thing that cannot work (`recipe_checks`). Who writes a recipe wants to
see everything at once, with what works but is hardly meant: zeros that are let go again, epochs
with a learning rate of zero, int8 ranges that never settle.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from helpers import sparsity
from helpers.errors import UserError
from helpers.recipe_checks import (
    check_schedule,
    matching,
    refuse_unfit_mask,
    refuse_unproven,
    tried_int8,
    unmatched,
)

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from helpers.recipe_modifier import RecipeModifier
    from helpers.recipes import Recipe

# A learning rate that touches zero between two phases is no idle time; one percent of a run is.
IDLE_SHARE = 0.01


def schedule_findings(recipe: "Recipe") -> list[str]:
    """Return what looks wrong in the schedule of a recipe, whatever model it is for."""
    found = []
    for modifier in recipe.modifiers:
        # One modifier at a time, because the check stops at the first that is late.
        found += refusal(check_schedule, replace(recipe, modifiers=[modifier]))
        found += zeros_let_go(recipe, modifier)
    found += refusal(refuse_unproven, recipe)
    return found + idle_epochs(recipe) + unsettled(recipe)


def refusal(check: Callable[..., Any], *arguments: Any) -> list[str]:
    """Return the message with which a check refuses, or nothing."""
    try:
        check(*arguments)
    except UserError as error:
        return [str(error)]
    return []


def zeros_let_go(recipe: "Recipe", modifier: "RecipeModifier") -> list[str]:
    """Say so where a modifier stops holding its zeros before the run ends."""
    until = modifier.end_epoch
    constant = modifier.name == "ConstantPruningModifier"
    if not (constant or modifier.prunes) or not 0 <= until < recipe.num_epochs:
        return []
    if modifier.prunes and not modifier.lets_go:
        return []
    mend = "Set end_epoch: -1.0." if constant else "Set leave_enabled: true."
    return [f"{modifier.name} lets its zeros go at epoch {until:g}; training fills them. {mend}"]


def zeros_not_held(modifier: "RecipeModifier") -> list[str]:
    """Say so where a modifier that keeps a start's zeros does not do so in every step."""
    if modifier.name != "ConstantPruningModifier":
        return []
    if modifier.start_epoch <= 0 and modifier.end_epoch < 0:
        return []
    return [
        f"{modifier.name} holds the zeros of the start from epoch {modifier.start_epoch:g} to "
        f"{modifier.end_epoch:g} (-1: the end) only; training fills them before or after. Set "
        "start_epoch: 0.0 and end_epoch: -1.0."
    ]


def idle_epochs(recipe: "Recipe") -> list[str]:
    """Name the spans in which the planned learning rate is zero, so that nothing is learnt."""
    curves = recipe.schedule()
    idle = curves.learning_rate == 0
    spans = curves.epoch[idle].groupby((idle != idle.shift()).cumsum()[idle]).agg(["min", "max"])
    return [
        f"The learning rate is 0 from epoch {start:g} to {end:g}: nothing is learnt there. "
        "Move the end_epoch of that LearningRateFunctionModifier, or raise its rate."
        for start, end in spans.itertuples(index=False)
        if end - start > IDLE_SHARE * recipe.num_epochs
    ]


def unsettled(recipe: "Recipe") -> list[str]:
    """Name changes that come so late that no training is left to recover from them."""
    found, start = [], recipe.quantization_start
    for modifier in recipe.modifiers:
        if modifier.prunes and math.isclose(modifier.end_epoch, recipe.num_epochs):
            found.append(
                f"{modifier.name} reaches its last zeros at the run's end, epoch "
                f"{modifier.end_epoch:g}: nothing is left to recover in. Let it end earlier."
            )
        if modifier.prunes and start is not None and modifier.end_epoch > start:
            found.append(
                f"{modifier.name} still prunes until epoch {modifier.end_epoch:g}, int8 training "
                f"starts at {start:g}: its ranges fit other weights. Prune first."
            )
        if modifier.quantizes and modifier.ranges_fixed >= recipe.num_epochs:
            found.append(
                "The int8 ranges are never fixed, they move to the last step. Set "
                "disable_quantization_observer_epoch some time before the end."
            )
    return found


def model_findings(recipe: "Recipe", model: "nn.Module") -> list[str]:
    """Return what looks wrong when a recipe meets a model; the model is left as it is."""
    found = unmatched_findings(recipe, model) + missing_layers(recipe, model)
    found += unfit_masks(recipe, model)
    if len(sparsity.quantized_modules(model)):
        return [*found, "This model is quantized already; start from the checkpoint before QAT."]
    return found + sparse_findings(recipe, model) + int8_modules(recipe, model)[1]


def matches(recipe: "Recipe", model: "nn.Module") -> "pd.DataFrame":
    """Return one row a pattern: modifier, pattern, promise, matrices (how many), names.

    Parameters of layers that the recipe drops do not count; a pattern that is no regular
    expression matches nothing.
    """
    import pandas as pd

    rows, targets = [], recipe.pruning_targets()
    for modifier in recipe.modifiers:
        for pattern in [*modifier.patterns(), *(modifier.params.get("submodules") or [])]:
            target = targets.get(pattern) if modifier.prunes else None
            promise = f"{target.final_sparsity:.1%} zeros, {target.mask_type}" if target else ""
            names = matched(recipe, modifier, pattern, model)
            rows.append((modifier.name, pattern, promise, len(names), names))
    return pd.DataFrame(rows, columns=["modifier", "pattern", "promise", "matrices", "names"])


def matched(
    recipe: "Recipe", modifier: "RecipeModifier", pattern: str, model: "nn.Module"
) -> list[str]:
    """Return what one pattern matches in the layers that stay."""
    if pattern in (modifier.params.get("submodules") or []):
        return [name for name, _ in model.named_modules() if name == pattern]
    try:
        found = matching(pattern, [name for name, _ in model.named_parameters()], model)
    except UserError:
        return []
    gone = tuple(f"{layer}." for layer in recipe.dropped_layers)
    return [name for name in found if not name.startswith(gone)] if gone else found


def unmatched_findings(recipe: "Recipe", model: "nn.Module") -> list[str]:
    """Name every pattern that is no regular expression, or matches nothing that stays."""
    found, table = [], matches(recipe, model)
    for pattern in dict.fromkeys(table[table.matrices == 0].pattern):
        broken = refusal(matching, pattern, [], model)
        found += broken or [unmatched(recipe.name, pattern, model)]
    return found


def missing_layers(recipe: "Recipe", model: "nn.Module") -> list[str]:
    """Name the layers a recipe drops that the model does not have."""
    modules = {name for name, _ in model.named_modules()}
    missing = [n for n in recipe.dropped_layers if n not in modules and not n.startswith("__ALL")]
    return [f"{recipe.name} drops {name}, which the model does not have." for name in missing]


def unfit_masks(recipe: "Recipe", model: "nn.Module") -> list[str]:
    """Name the patterns of zeros that SparseML does not know, or the matrices do not take."""
    found = []
    for modifier in recipe.modifiers:
        names = [n for p in modifier.patterns() for n in matched(recipe, modifier, p, model)]
        found += refusal(refuse_unfit_mask, recipe.name, modifier, names, model)
    return found


def sparse_findings(recipe: "Recipe", model: "nn.Module") -> list[str]:
    """Say what becomes of the zeros a model starts with, if they are not simply kept."""
    sparse, found, held = sparsity.sparse_parameters(model), [], set()
    for modifier in (m for m in recipe.modifiers if "Pruning" in m.name):
        names = {n for p in modifier.patterns() for n in matched(recipe, modifier, p, model)}
        held |= names
        both = [name for name in sparse if name in names and sparse[name] > kept_by(modifier)]
        if both and modifier.prunes:
            found.append(
                f"{modifier.name} starts its mask anew on {len(both)} matrices that are sparse "
                f"already (first: {both[0]}, {sparse[both[0]]:.0%} zeros). To keep those zeros "
                "take a ConstantPruningModifier; to add to them, an init_sparsity as high."
            )
    gone = tuple(f"{layer}." for layer in recipe.dropped_layers)
    free = [name for name in sparse if name not in held and not (gone and name.startswith(gone))]
    if free:
        found.append(
            f"{len(free)} matrices are sparse and nothing keeps their zeros (first: {free[0]}). "
            "Add a ConstantPruningModifier for them."
        )
    return found


def kept_by(modifier: "RecipeModifier") -> float:
    """Return how many zeros (0 to 1) a pruner may find in a matrix and still go on from them."""
    start = modifier.params.get("init_sparsity")
    # `__FROM_PARAM__` stands for whatever is there.
    return 1.0 if isinstance(start, str) else float(start or 0.0) + sparsity.TOLERANCE


def int8_modules(recipe: "Recipe", model: "nn.Module") -> tuple["pd.DataFrame", list[str]]:
    """Try out on a copy which modules a recipe turns to int8.

    Returns:
        One row a module (module, kind), see `sparsity.quantized_modules`; and what went wrong.
    """
    already = sparsity.quantized_modules(model)
    if len(already) or not recipe.has_quantization:
        return already, []
    try:
        table = sparsity.quantized_modules(tried_int8(recipe, model))
    except UserError as error:
        return already, [str(error)]
    return table, [] if len(table) else ["The recipe quantizes, but no module becomes int8."]
