"""Hold a recipe to the model it is meant for, before the first training step.

SparseML accepts schedules that never come and patterns that match nothing. Both are errors here.
Names are matched as SparseML matches them: patterns that start with `re:` from the start of the
parameter name, other names as a whole, and quantized wrappers looked through.
"""

import copy
import math
import re
from typing import TYPE_CHECKING

from helpers import compat, sparsity
from helpers.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from helpers.recipe_modifier import RecipeModifier
    from helpers.recipes import Recipe

# Epochs are products of floats; this is less than a step of any run.
_ROUNDING = 1e-6
# They make no zeros of their own.
KEEPING = ("ConstantPruningModifier", "LayerPruningModifier")
# What Torch exports; 0 to 127 is 8 bits with one to spare.
ONNX_RANGES = ((-128, 127), (0, 255), (0, 127))


def check_schedule(recipe: "Recipe") -> None:
    """Refuse modifiers that start at the end of the run, act after it, or have no time at all.

    Raises:
        UserError: names the modifier, the epoch and the end.
    """
    end = recipe.num_epochs
    for modifier in recipe.modifiers:
        late = [f"{k}={v:g}" for k, v in modifier.epochs().items() if v > end + _ROUNDING]
        if modifier.start_epoch >= end - _ROUNDING:
            late = [f"start_epoch={modifier.start_epoch:g}"]
        if late:
            raise UserError(
                f"{recipe.name}: {modifier.name} has {', '.join(late)}, the run ends at epoch "
                f"{end:g}. Write its epochs as eval(num_epochs * share), or raise num_epochs."
            )
        refuse_no_time(recipe.name, modifier)


def refuse_no_time(recipe_name: str, modifier: "RecipeModifier") -> None:
    """Refuse a pruner whose last zeros come with its first, or never, and int8 never measured.

    SparseML divides by the epochs between, keeps `init_sparsity` for ever, or rounds by scales of
    1.0, under which every weight is 0.

    Raises:
        UserError: names the modifier and its epochs.
    """
    start = max(0.0, modifier.start_epoch)
    if modifier.prunes and modifier.end_epoch <= start:
        raise UserError(
            f"{recipe_name}: {modifier.name} starts at epoch {start:g} and has end_epoch "
            f"{modifier.end_epoch:g}. Expected a later one, at which its last zeros are made."
        )
    if modifier.quantizes and modifier.ranges_fixed <= start:
        raise UserError(
            f"{recipe_name}: {modifier.name} fixes its int8 ranges at epoch "
            f"{modifier.ranges_fixed:g}, before any text was read for them. Set "
            f"disable_quantization_observer_epoch later than its start, epoch {start:g}."
        )


def check_against(recipe: "Recipe", model: "nn.Module") -> dict[str, list[str]]:
    """Return what each pattern of a recipe matches in a model.

    Returns:
        pattern to parameter names (module names for `submodules`), in the model's order.

    Raises:
        UserError: a pattern that matches nothing, a schedule past the end, zeros in a shape that
            these matrices do not take, or int8 that this model cannot be trained in.
    """
    check_schedule(recipe)
    refuse_unproven(recipe)
    modules = [name for name, _ in model.named_modules()]
    dropped = tuple(f"{name}." for name in recipe.dropped_layers)
    # Layers go before the first mask: what was theirs is neither pruned nor promised.
    kept = [name for name, _ in model.named_parameters() if not name.startswith(dropped)]
    matched = {}
    for modifier in recipe.modifiers:
        refuse_missing_layers(recipe.name, modifier, modules)
        refuse_missing_states(recipe.name, modifier, modules)
        for pattern in modifier.patterns():
            found = matching(pattern, kept, model)
            # SparseML's own word for all matrices takes those of the layers that go, too.
            matched[pattern] = [name for name in found if not name.startswith(dropped)]
        for name in modifier.params.get("submodules") or []:
            matched[name] = [name] if name in modules else []
    for pattern, names in matched.items():
        if not names:
            raise UserError(unmatched(recipe.name, pattern, model))
    for modifier in recipe.modifiers:
        named = [name for pattern in modifier.patterns() for name in matched[pattern]]
        refuse_unfit_mask(recipe.name, modifier, named, model)
    if recipe.has_quantization:
        tried_int8(recipe, model)
    return matched


def refuse_unproven(recipe: "Recipe") -> None:
    """Refuse pruners that do not say how many zeros they end with: nothing could be proven.

    Raises:
        UserError: names the modifier.
    """
    for modifier in recipe.modifiers:
        makes_zeros = "Pruning" in modifier.name and modifier.name not in KEEPING
        if makes_zeros and not modifier.prunes:
            raise UserError(
                f"{recipe.name}: {modifier.name} has no final_sparsity, so its zeros cannot be "
                "held to anything. Take a pruner that has one, such as GMPruningModifier."
            )


def tried_int8(recipe: "Recipe", model: "nn.Module") -> "nn.Module":
    """Return a copy of a model as QAT makes it, after it has read a few texts.

    A `scheme` of SparseML's says more than it can do: ids of words rounded, one scale for each
    row of a table or each text of a batch, 4 bits. That fails when QAT starts, after the pruning,
    or not before the export.

    Raises:
        UserError: it fails here; says how, and which recipe to look at.
    """
    import torch

    compat.round_rows_looked_up()  # as the Trainer does
    trial = copy.deepcopy(model).train()
    try:
        # Training draws the same random numbers as without this trial.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            recipe.manager().apply_structure(trial, epoch=math.inf)
            trial.apply(torch.ao.quantization.enable_observer)
            for rows in (3, 1):
                words = model.dummy_inputs["input_ids"][:rows]
                trial(input_ids=words, attention_mask=torch.ones_like(words))
        refuse_other_bits(trial)
    except Exception as error:  # Torch and SparseML raise anything here
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{recipe.name}: int8 training fails on this model ({type(error).__name__}: {reason}). "
            "Write the QuantizationModifier as minilm-6layers_quant or _quant_per_channel do."
        ) from error
    return trial


def refuse_other_bits(model: "nn.Module") -> None:
    """Refuse ranges of integers that ONNX has no type for.

    Raises:
        ValueError: names the first.
    """
    for name, module in model.named_modules():
        ends = (getattr(module, "quant_min", 0), getattr(module, "quant_max", 255))
        if ends not in ONNX_RANGES:
            raise ValueError(f"{name} is rounded to {ends[0]} .. {ends[1]}, which is not 8 bits")


def refuse_unfit_mask(
    recipe_name: str, modifier: "RecipeModifier", parameters: list[str], model: "nn.Module"
) -> None:
    """Refuse zeros in a pattern that SparseML does not know, or that matrices cannot be cut into.

    SparseML says so itself, but only at the first mask, with a traceback.

    Args:
        recipe_name: for the message.
        modifier: with `mask_type` among its settings, or it is let pass.
        parameters: what it prunes, by name.
        model: has them.

    Raises:
        UserError: with SparseML's or Torch's reason.
    """
    mask_type = modifier.params.get("mask_type")
    # Single weights fit every matrix; structured pruning makes masks of another kind.
    if mask_type in (None, "unstructured") or modifier.name == "StructuredPruningModifier":
        return
    import torch
    from sparseml.pytorch.sparsification.pruning.mask_creator import get_mask_creator_default

    final = modifier.params.get("final_sparsity")
    share = final if isinstance(final, float) else 0.5
    # Tied weights are matched by any of their names.
    named = dict(model.named_parameters(remove_duplicate=False))
    try:
        creator = get_mask_creator_default(mask_type)
        for shape in dict.fromkeys(named[name].shape for name in parameters):
            weights = torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)
            creator.create_sparsity_masks([weights], share)
    except Exception as error:  # [0, 4] divides by zero, [-2, 4] fails inside Torch, and so on
        raise UserError(
            f"{recipe_name}: {modifier.name} has mask_type {mask_type}, which cannot be used here "
            f"({error}). Write unstructured or block4."
        ) from error


def refuse_missing_layers(recipe_name: str, modifier: "RecipeModifier", modules: list[str]) -> None:
    """Refuse to drop layers a model does not have: too few of them, or another prefix.

    Raises:
        UserError: names the first that is missing, and what the model's layers are called.
    """
    missing = [name for name in modifier.drops if name not in modules]
    if missing:
        layers = [name for name in modules if name.split(".")[-1].isdigit()]
        raise UserError(
            f"{recipe_name}: there is no layer {missing[0]} to drop. This model has "
            f"{', '.join(layers[:1] + layers[-1:]) or 'no layers'}: change `layers`, or the recipe."
        )


def check_states(recipe: "Recipe", teacher: "nn.Module") -> None:
    """Refuse a teacher without the modules whose outputs a recipe compares.

    Raises:
        UserError: names the first that is missing, and one that is there.
    """
    modules = [name for name, _ in teacher.named_modules()]
    for modifier in recipe.modifiers:
        refuse_missing_states(recipe.name, modifier, modules, "teacher")


def refuse_missing_states(
    recipe_name: str, modifier: "RecipeModifier", modules: list[str], side: str = "student"
) -> None:
    """Refuse to compare hidden states of modules that a model does not have, or as projected ones.

    Raises:
        UserError: names the first that is missing, and one that is there; `project_features`, which
            changes the optimizer after its learning rates were counted.
    """
    if modifier.params.get("project_features"):
        raise UserError(
            f"{recipe_name}: project_features is true, and Torch's schedules refuse the projection "
            "that SparseML adds in the first step. Set it to false, with a teacher as wide."
        )
    named = modifier.params.get(f"{side}_layer_names") or []
    missing = [name for name in named if name not in modules]
    if missing:
        states = [name for name in modules if name.endswith("output.LayerNorm")]
        raise UserError(
            f"{recipe_name}: there is no module {missing[0]} to compare. The {side} has "
            f"{', '.join(states[-1:]) or 'no such'}: change `{side}_layer_names`."
        )


def matching(pattern: str, parameters: list[str], model: "nn.Module") -> list[str]:
    """Return the parameters a pattern of a recipe matches, by SparseML's own rules."""
    if pattern == "__ALL__":
        return parameters
    if pattern == "__ALL_PRUNABLE__":
        return [f"{name}.weight" for name in linear_layers(model)]
    if not pattern.startswith("re:"):
        return [name for name in parameters if pattern in (name, name.replace(".module.", "."))]
    try:
        search = re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise UserError(f"Pattern {pattern} is no regular expression: {error}.") from None
    return [
        name
        for name in parameters
        if search.match(name) or search.match(name.replace(".module.", "."))
    ]


def linear_layers(model: "nn.Module") -> dict[str, "nn.Module"]:
    """Return the layers of a model that hold a matrix, by name."""
    from torch import nn

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def unmatched(recipe_name: str, pattern: str, model: "nn.Module") -> str:
    """Return the message for a pattern that matches nothing, with names it could match."""
    some = list(linear_layers(model))[:3]
    return (
        f"{recipe_name}: {pattern} matches nothing in {type(model).__name__}. Expected a pattern "
        f"for names like {', '.join(f'{name}.weight' for name in some)}. Change the pattern."
    )


def already_sparse(model: "nn.Module") -> list[str]:
    """Return the matrices in which more than 30 % are zeros.

    Gradual pruning forgets such zeros and starts its mask anew; only the caller knows whether
    that is meant. A recipe with `keeps_zeros` holds them.
    """
    return list(sparsity.sparse_parameters(model))
