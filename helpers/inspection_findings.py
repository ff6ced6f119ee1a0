"""What looks wrong in the weights of a checkpoint or an ONNX file, a sentence each.

Nothing here is an error: somebody looks into a file because something is wrong with it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import sparsity
from helpers.errors import UserError
from helpers.recipe_checks import matching

if TYPE_CHECKING:
    from helpers.recipe_modifier import PruningTarget
    from helpers.recipes import Recipe
    from helpers.stops import Checkpoint, OnnxModel


def seal(folder: Path, note: str, stop: "type[Checkpoint | OnnxModel]") -> list[str]:
    """Hold a finished stop to the hashes in its note; other folders have none."""
    if not (folder / note).is_file():
        return []
    try:
        stop.load(folder)
    except UserError as error:
        return [str(error)]
    return []


def weight(table: pd.DataFrame, not_finite: list[str]) -> list[str]:
    """Name what no healthy model has: no matrices, matrices of zeros only, NaN or infinity."""
    found = [] if len(table) else ["No weight matrices were found."]
    if empty := list(table.weight[table.zeros == 1]):
        found.append(f"Nothing but zeros in {len(empty)} matrices (first: {empty[0]}).")
    if not_finite:
        found.append(f"NaN or infinity in {len(not_finite)} tensors (first: {not_finite[0]}).")
    return found


def attention(missing: int) -> list[str]:
    """Say so where an int8 model multiplies activations in float, as inside attention."""
    if missing <= 0:
        return []
    return [
        f"{missing} products of two activations (attention) stay in float beside int8 weights: "
        "the model was quantized in part."
    ]


def recipe(folder: Path, table: pd.DataFrame) -> list[str]:
    """Hold the weights to the recipe beside them."""
    from helpers.recipes import load_recipe

    file, int8 = folder / "recipe.yaml", (table.precision == "int8 by QAT").any()
    if not file.is_file():
        lost = "Weights are int8 by QAT, but recipe.yaml is missing: nothing can rebuild the model."
        return [lost] if int8 else []
    try:
        recipe = load_recipe(file)
    except UserError as error:
        return [f"recipe.yaml cannot be read: {error}"]
    if recipe.has_quantization and not int8:
        return [*promise(recipe, table), "recipe.yaml has QAT, but no weight is int8."]
    return promise(recipe, table)


def promise(recipe: "Recipe", table: pd.DataFrame) -> list[str]:
    """Name patterns without a matrix, and matrices that are not as a recipe promises."""
    found, groups = [], {}
    for pattern, target in recipe.pruning_targets().items():
        names = matched(pattern, table)
        groups.setdefault(target, []).extend(names)
        if not names:
            found.append(f"recipe.yaml prunes {pattern}, but no matrix here has such a name.")
    for target, names in groups.items():
        rows = table[table.weight.isin(names)]
        if short := too_few(rows, target):
            share = rows.zeros[rows.weight == short[0]].iloc[0]
            found.append(
                f"recipe.yaml promises {target.final_sparsity:.1%} zeros, {len(short)} of "
                f"{len(rows)} matrices have fewer (first: {short[0]}, {share:.1%})."
            )
        torn = list(rows.weight[rows.blocks < rows.zeros - sparsity.TOLERANCE])
        if torn and target.in_blocks:
            found.append(
                f"recipe.yaml promises zeros in blocks of four, {len(torn)} of {len(rows)} "
                f"matrices have others (first: {torn[0]})."
            )
    return found


def matched(pattern: str, table: pd.DataFrame) -> list[str]:
    """Return the layers whose weight a recipe's pattern matches."""
    from torch import nn

    layers = {f"{name}.weight": name for name in table.weight[table.part != "embeddings"]}
    if pattern == "__ALL_PRUNABLE__":
        return list(layers.values())
    return [layers[name] for name in matching(pattern, list(layers), nn.Module())]


def too_few(rows: pd.DataFrame, target: "PruningTarget") -> list[str]:
    """Return the matrices with fewer zeros than promised: each by itself, or all if together."""
    goal = target.final_sparsity - sparsity.TOLERANCE
    if target.per_matrix:
        return list(rows.weight[rows.zeros < goal])
    return list(rows.weight) if len(rows) and overall(rows) < goal else []


def overall(rows: pd.DataFrame) -> float:
    """Return the share of zeros in several matrices together."""
    return float(np.average(rows.zeros, weights=[int(np.prod(size)) for size in rows["shape"]]))
