"""What training must have done before its result counts as a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from helpers import models
from helpers.errors import ProofError
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    import torch

    from helpers.recipes import Recipe

# Two forward passes of the same weights on one machine differ by rounding only.
LOGITS_TOLERANCE = 1e-4


def promises(recipe: "Recipe | None", network: "torch.nn.Module") -> dict[str, float]:
    """Return parameter name to promised final sparsity; refuses a recipe that does not fit."""
    if recipe is None:
        return {}
    from helpers.recipes import check_against

    matched = check_against(recipe, network)
    promised = {}
    for pattern, target in recipe.pruning_targets().items():
        if not target.per_matrix:
            continue  # A global recipe promises a share of all matrices together, not of each.
        promised |= dict.fromkeys(matched[pattern], target.final_sparsity)
    return promised


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
    difference = max(float((trained - stored).abs().max()) for trained, stored in pairs)
    if difference <= LOGITS_TOLERANCE:
        return
    raise ProofError(
        "reload",
        f"logits within {LOGITS_TOLERANCE} of the trained model's",
        f"a difference of {difference:.4f}",
        "The files do not hold what was trained; nothing was written.",
    )
