"""Workaround for SparseML's comparison of hidden states: symptom, cause, fix.

Symptom: the first step of a recipe with PerLayerDistillationModifier ends in "zip() argument 2 is
longer than argument 1". Cause: the modifier adds a group to the optimizer for its projections,
even where it has none, and the learning-rate schedule has counted the groups before that.
"""

from typing import Any


def keep_optimizer_groups() -> None:
    """Let PerLayerDistillationModifier add no optimizer group where it projects nothing."""
    from sparseml.pytorch.sparsification.distillation.modifier_per_layer import (
        PerLayerDistillationModifier as Modifier,
    )

    add_group = Modifier._patch_state_dict_loading
    if hasattr(add_group, "__wrapped__"):
        return

    def add(modifier: Modifier, optimizer: Any) -> None:  # noqa: ANN401 - SparseML's wrapper
        if modifier.project_features:
            add_group(modifier, optimizer)

    add.__wrapped__ = add_group
    Modifier._patch_state_dict_loading = add
