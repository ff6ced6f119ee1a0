"""What recipes leave behind in a model's architecture, and how stages add up.

Quantization and layer dropping change which modules a model has. To load such a model again, the
same changes are made first, then the weights are filled in strictly (`models.load_model`).
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def apply_structure(recipe_file: Path, model: "nn.Module") -> None:
    """Make the architectural changes a finished recipe made; weights are not touched.

    Raises:
        UserError: as `load_recipe` does, for a recipe that is broken or dangerous.
    """
    from helpers.recipe_text import read_recipe
    from helpers.recipes import make_manager

    # It may be a stranger's, from a hub.
    manager = make_manager(read_recipe(recipe_file), recipe_file.name)
    manager.apply_structure(model, epoch=math.inf)


def write_recipe(previous: Path | None, text: str, file: Path) -> None:
    """Write the recipe of a finished run: the stages before it, if any, and this one.

    Args:
        previous: recipe file of the checkpoint the run started from.
        text: the run's own recipe as resolved YAML.
        file: where to write.
    """
    if previous is None:
        file.write_text(text)
        return
    from sparseml.pytorch.optim import ScheduledModifierManager

    composed = ScheduledModifierManager.compose_staged(
        base_recipe=str(previous), additional_recipe=text, keep_original_epochs=True
    )
    composed.save(str(file))


def layer_count(model: "nn.Module") -> int:
    """Return the encoder layers that are left; the config still counts the dropped ones."""
    return sum(type(module).__name__ == "BertLayer" for module in model.modules())
