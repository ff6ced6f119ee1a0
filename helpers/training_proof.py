"""What training must have done before its result counts as a checkpoint."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import models, sparsity
from helpers.errors import ProofError
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    import torch

    from helpers.recipe_modifier import PruningTarget
    from helpers.recipes import Recipe

# Two forward passes of the same weights on one machine differ by rounding only.
LOGITS_TOLERANCE = 1e-4


def promises(
    recipe: "Recipe | None", network: "torch.nn.Module"
) -> "dict[PruningTarget, list[str]]":
    """Return what is promised, and for which matrices; refuses a recipe that does not fit."""
    if recipe is None:
        return {}
    from helpers.recipes import check_against

    matched = check_against(recipe, network)
    promised: dict[PruningTarget, list[str]] = {}
    for pattern, target in recipe.pruning_targets().items():
        promised.setdefault(target, []).extend(matched[pattern])
    return promised


def check_pruned(promised: "dict[PruningTarget, list[str]]", network: "torch.nn.Module") -> None:
    """Hold the zeros to the recipe: in each matrix or in all together, and in whole blocks.

    Raises:
        ProofError: naming the first promise that was not kept.
    """
    for target, names in promised.items():
        found = sparsity.parameter_sparsity(network, names)
        if not target.per_matrix:
            found = {"all matrices together": sparsity.total_sparsity(network, names)}
        sparsity.check_sparsity(found, dict.fromkeys(found, target.final_sparsity))
        if target.in_blocks:
            sparsity.check_blocks(network, names)


def check_kept(
    before: "dict[str, torch.Tensor]",
    promised: "dict[PruningTarget, list[str]]",
    network: "torch.nn.Module",
) -> None:
    """Hold zeros that a start brought to their places, but where the recipe chooses new ones.

    How many there are of those is for `check_pruned` to say.

    Raises:
        ProofError: naming the first matrix with zeros that came back to life.
    """
    anew = {name for names in promised.values() for name in names}
    kept = {name: zero for name, zero in before.items() if name not in anew}
    sparsity.check_zeros_kept(kept, network)


def check_quantized(recipe: "Recipe | None", modules: int) -> None:
    """Hold a recipe with QAT to having quantized something."""
    if recipe is None or not recipe.has_quantization or modules:
        return
    raise ProofError(
        "quantization",
        "modules that compute in int8",
        "none",
        "QAT never started: its start_epoch lies at or after the last epoch.",
    )


def check_reload(
    folder: Path, network: "torch.nn.Module", batch: "dict[str, torch.Tensor]"
) -> None:
    """Load what was saved and compare its logits with the trained network's.

    Args:
        folder: the checkpoint, not finished yet.
        network: what was trained; it is on the CPU and in evaluation mode afterwards.
        batch: some inputs of it, [rows, tokens] each.

    Raises:
        ProofError: if the stored checkpoint is another model than the one that was trained.
    """
    import torch

    reloaded = models.load_model(Checkpoint(folder, {}))
    with torch.no_grad():
        outputs = [model(**batch).values() for model in (network.cpu().eval(), reloaded)]
    pairs = zip(*outputs, strict=True)
    gaps = [float((trained - stored).abs().max()) for trained, stored in pairs]
    difference = max(gaps)
    if any(math.isnan(gap) for gap in gaps):
        raise ProofError(
            "training",
            "finite logits",
            "nan",
            "It diverged: lower --learning_rate.",
        )
    if difference <= LOGITS_TOLERANCE:
        return
    raise ProofError(
        "reload",
        f"logits within {LOGITS_TOLERANCE} of the trained model's",
        f"a difference of {difference:.4f}",
        "The files do not hold what was trained; nothing was written.",
    )
