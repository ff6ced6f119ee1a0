"""Workarounds for SparseML's comparison with a teacher: symptom, cause, fix."""

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def mend_hidden_states() -> None:
    """Let PerLayerDistillationModifier leave the optimizer alone, and let go of old states.

    Symptom: the first step ends in "zip() argument 2 is longer than argument 1". Cause: the
    modifier adds a group to the optimizer for its projections, even where it has none, and the
    learning-rate schedule has counted the groups before that.

    Symptom: training takes twice the memory. Cause: the states of a step, and with them its whole
    graph, are kept until the next step has replaced them one by one.
    """
    from sparseml.pytorch.sparsification.distillation.modifier_per_layer import (
        PerLayerDistillationModifier as Modifier,
    )

    add_group, compare = Modifier._patch_state_dict_loading, Modifier.compute_distillation_loss
    if hasattr(compare, "__wrapped__"):
        return

    @functools.wraps(add_group)
    def add(modifier: Modifier, optimizer: Any) -> None:  # noqa: ANN401 - SparseML's wrapper
        if modifier.project_features:
            add_group(modifier, optimizer)

    @functools.wraps(compare)
    def compare_and_forget(modifier: Modifier, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        loss = compare(modifier, *args, **kwargs)
        modifier._cached_student_output.clear()
        modifier._cached_teacher_output.clear()
        return loss

    Modifier._patch_state_dict_loading = add
    Modifier.compute_distillation_loss = compare_and_forget


def ask_once(teacher: "nn.Module") -> "Callable[[], None]":
    """Let a teacher answer a batch once, however many modifiers ask; return what forgets it.

    Symptom: with a recipe that compares answers and hidden states a step takes two passes of the
    teacher. Cause: each of the modifiers asks for itself, with its own copy of the batch.
    """
    forward, answers = teacher.forward, []

    @functools.wraps(forward)
    def answer(*inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - the model's own
        if not answers:
            answers.append(forward(*inputs, **named))
        return answers[0]

    teacher.forward = answer
    return answers.clear
