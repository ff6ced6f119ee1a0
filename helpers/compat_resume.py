"""What SparseML forgets when a killed run goes on: where its schedule was, its masks, its flags.

Symptom: a run resumed by SparseML's Trainer counts its epochs from 0 again, so it prunes a second
time from the start; without a recipe it crashes on loading the optimizer.
Cause: `ScheduledOptimizer` begins at epoch 0 whatever is resumed, the manager's state is never
saved, and what is loaded into the optimizer ends up beside the one that is used.

So all of it is written into each of the Trainer's checkpoints, and put back here in the order in
which it came about: structure, weights, masks, optimizer.
"""

import codecs
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helpers import compat, weights
from helpers.row_order import updates_an_epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from helpers.trainer import RecipeTrainer

# Written last, so a checkpoint that has it is whole.
STATE = "modifiers.pt"
# The state of these is a few flags, epochs and masks.
RESUMABLE = (
    "EpochRangeModifier",
    "LearningRateFunctionModifier",
    "SetLearningRateModifier",
    "GMPruningModifier",
    "MagnitudePruningModifier",
    "GlobalMagnitudePruningModifier",
    "ConstantPruningModifier",
    "LayerPruningModifier",
    "QuantizationModifier",
    "DistillationModifier",
    "PerLayerDistillationModifier",
)
KEPT = (
    "_started",
    "_ended",
    "_last_update_epoch",
    "_applied_sparsity",
    "_init_sparsity",
    "_learning_rate",
    "_last_applied_lr",
    "_applied",
    "_lr_set",
)
# What numpy's random state is made of; Torch 2.6 and later read nothing they were not told of.
NUMPY_STATE = [
    np.ndarray,
    np.dtype,
    np.dtypes.UInt32DType,
    np.core.multiarray._reconstruct,
    codecs.encode,
]


def not_resumable(names: "Iterable[str]") -> list[str]:
    """Return the modifiers that SparseML cannot go on with.

    Movement pruning adds up scores over the whole run, OBS holds gradients; neither is saved.
    """
    return [name for name in names if name not in RESUMABLE]


def write_state(trainer: "RecipeTrainer", checkpoint: Path) -> None:
    """Complete a checkpoint of the Trainer with what SparseML would forget; whole or not at all.

    Not with `--save_only_model`: without the optimizer's moments nothing can go on from it.
    """
    if trainer.args.save_only_model:
        return
    state = {
        "seconds": trainer.clock.seconds,
        "steps": wrapper._wrapped_steps if (wrapper := schedule(trainer)) else None,
        "modifiers": [modifier_state(modifier) for modifier in modifiers(trainer)],
    }
    scratch = checkpoint / f"{STATE}.partial"
    torch.save(state, scratch)
    os.replace(scratch, checkpoint / STATE)


def modifier_state(modifier: Any) -> dict[str, Any]:  # noqa: ANN401 - any SparseML modifier
    """Return flags and epochs of a modifier, and its masks [as their matrices], if it has any."""
    state = {name: getattr(modifier, name) for name in KEPT if hasattr(modifier, name)}
    masks = getattr(modifier, "module_masks", None)
    if masks is None:
        return state
    return {**state, "masking": masks.enabled, "masks": [m.bool() for m in masks.param_masks]}


def restore(trainer: "RecipeTrainer", checkpoint: Path) -> None:
    """Put network, recipe and optimizer back to where a checkpoint was written.

    Raises:
        UserError: if the checkpoint's weights are not those of this model and recipe.
    """
    state = torch.load(checkpoint / STATE, weights_only=True)
    trainer.clock.before = state["seconds"]
    wrapper = schedule(trainer)
    if wrapper is None:
        weights.load(trainer.model, checkpoint)
        return
    kept = list(zip(modifiers(trainer), state["modifiers"], strict=True))
    for modifier, _ in kept:
        restore_structure(modifier, trainer.model, state["steps"] - 1, wrapper)
    weights.load(trainer.model, checkpoint)
    for modifier, values in kept:
        restore_modifier(modifier, values)
    wrapper._wrapped_steps = state["steps"]
    wrapper._wrapped_epoch = epoch_of(state["steps"], wrapper)
    # Loading has put the state beside the optimizer that SparseML wraps.
    compat.share_learning_rate(trainer.optimizer)
    moments = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    wrapper.wrapped_optimizer.load_state_dict(moments)


def restore_structure(
    modifier: Any,  # noqa: ANN401 - any SparseML modifier
    model: torch.nn.Module,
    steps: int,
    wrapper: Any,  # noqa: ANN401 - SparseML's step wrapper
) -> None:
    """Drop the layers and start the QAT that had been dropped and started after so many steps."""
    for name in ("_check_quantization_update", "_check_update_pruning"):
        if change := getattr(modifier, name, None):
            change(model, epoch_of(steps, wrapper), wrapper.wrapped_steps_per_epoch)


def restore_modifier(modifier: Any, state: dict[str, Any]) -> None:  # noqa: ANN401
    """Put flags, epochs and masks back; the counterpart of `modifier_state`."""
    for name in state.keys() - {"masking", "masks"}:
        setattr(modifier, name, state[name])
    if "masks" in state:
        masks = modifier.module_masks
        pairs = zip(state["masks"], masks.params_data, strict=True)
        masks.set_param_masks([mask.to(data) for mask, data in pairs])
        masks.enabled = state["masking"]


def schedule(trainer: "RecipeTrainer") -> Any:  # noqa: ANN401 - SparseML's step wrapper
    """Return what counts SparseML's steps, None without a recipe."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return getattr(optimizer, "_wrapper", None) if trainer.manager else None


def count_updates(trainer: "RecipeTrainer") -> None:
    """Let an epoch of the recipe have as many steps as one of the Trainer.

    Symptom: with `--gradient_accumulation_steps` the run is over before the recipe is, and zeros
    are missing.
    Cause: of an epoch that the accumulated batches do not fill, SparseML rounds the steps up, the
    Trainer down.
    """
    if wrapper := schedule(trainer):
        wrapper._wrapped_steps_per_epoch = updates_an_epoch(
            trainer.args, len(trainer.train_dataset)
        )


def modifiers(trainer: "RecipeTrainer") -> "Iterator[Any]":
    """Return the recipe's modifiers in SparseML's order, none without a recipe."""
    return trainer.manager.iter_modifiers() if trainer.manager else iter(())


def epoch_of(steps: int, wrapper: Any) -> float:  # noqa: ANN401 - SparseML's step wrapper
    """Return the epoch after so many steps, rounded as SparseML rounds it."""
    whole, rest = divmod(steps, wrapper.wrapped_steps_per_epoch)
    return float(whole) + float(rest) / float(wrapper.wrapped_steps_per_epoch)
