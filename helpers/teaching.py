"""What a teacher can teach: which answers carry over, and whether it reads the same words."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import models
from helpers.errors import UserError
from helpers.stops import Checkpoint
from helpers.tasks import Task

if TYPE_CHECKING:
    from helpers.recipes import Recipe

ANSWERS = "DistillationModifier"


def taught(
    recipe: "Recipe | None",
    teacher: Checkpoint | None,
    hardness: float | None,
    temperature: float | None,
    task: Task,
) -> "Recipe | None":
    """Return the recipe with the distillation its flags ask for, if it declares none itself.

    Raises:
        UserError: flags without a teacher, beside a recipe that declares its distillation, or for
            a task without answers that can be distilled.
    """
    asked = hardness is not None or temperature is not None
    if asked and teacher is None:
        raise UserError(
            "Hardness or temperature is given, but no teacher. "
            "Pass --distill_teacher, or leave those flags away."
        )
    if recipe is None or teacher is None:
        return recipe
    if not asked and (recipe.distills_answers or not task.teaches_answers):
        return recipe
    if not task.teaches_answers:
        raise UserError(
            f"{task.name} has no softened answers to weigh. Leave --distill_hardness and "
            "--distill_temperature away: its answers are not compared."
        )
    from helpers.recipes import with_distillation

    return with_distillation(
        recipe,
        hardness=1.0 if hardness is None else hardness,
        temperature=2.0 if temperature is None else temperature,
        output_keys=task.outputs,
    )


def check_teaching(
    task: Task, teacher: Checkpoint | None, hardness: float | None, recipe: "Recipe | None"
) -> None:
    """Refuse a teacher whose answers SparseML's distillation cannot carry over.

    It compares softmaxes of the logits. Over one score that is always 1, so nothing would be
    learnt; over independent labels it says which is likelier, but not whether any is.

    Raises:
        UserError: for a regression, unless the recipe compares states; for several labels without
            any weight on their own loss; for a recipe that compares answers the task does not have.
    """
    from helpers.text_tasks import MultiLabel, Regression

    if teacher is None:
        return
    declared = [m for m in recipe.modifiers if m.name == ANSWERS] if recipe else []
    for modifier in declared:
        check_declared(modifier.params, task, recipe.name)
        hardness = modifier.params["hardness"]
    if isinstance(task, Regression) and not (recipe and recipe.compares_states):
        raise UserError(
            f"{task.name} is a regression, and a teacher's score cannot be distilled: its softmax "
            "is always 1. Leave --distill_teacher away, or take a recipe that compares hidden "
            "states, such as minilm-6layers_obs80_states."
        )
    if isinstance(task, MultiLabel) and (hardness is None or hardness >= 1):
        flag = "--recipe_args distill_hardness=0.5" if declared else "--distill_hardness 0.5"
        raise UserError(
            f"{task.name} has several labels a row; a teacher alone does not teach how likely each "
            f"is. Pass {flag}, or another value below 1."
        )


def check_declared(distillation: dict[str, Any], task: Task, recipe: str) -> None:
    """Hold the answers that a recipe compares itself to those that a task's models give.

    Raises:
        UserError: the task has none that a softmax says something of, or other ones.
    """
    if not task.teaches_answers:
        raise UserError(
            f"{recipe} distills answers, and {task.name} has none that can be. "
            f"Take a recipe without {ANSWERS}."
        )
    keys = distillation.get("distill_output_keys") or task.outputs
    if set(keys) != set(task.outputs):
        raise UserError(
            f"{recipe} compares {', '.join(keys)}, and a model for {task.name} answers with "
            f"{', '.join(task.outputs)}. Change its distill_output_keys, or take a recipe without "
            f"{ANSWERS}: --distill_teacher adds the right one."
        )


def check_width(teacher: Checkpoint, student: str | Path | Checkpoint) -> None:
    """Refuse a teacher whose states cannot be compared with the student's, number by number.

    Raises:
        UserError: if one is wider than the other.
    """
    sources = (str(teacher.folder), models.tokenizer_source(student))
    widths = [models.load_config(source).hidden_size for source in sources]
    if widths[0] == widths[1]:
        return
    raise UserError(
        f"{teacher.name} is {widths[0]} wide, the model it is to teach {widths[1]}, so there is "
        "nothing to compare. Give a teacher as wide, such as the dense model it is made of."
    )


def check_vocabulary(teacher: Checkpoint, student: str | Path | Checkpoint) -> None:
    """Refuse a teacher that reads other words in the student's token ids.

    Raises:
        UserError: if the two vocabularies differ.
    """
    sources = (str(teacher.folder), models.tokenizer_source(student))
    first, second = (models.load_tokenizer(source).get_vocab() for source in sources)
    if first == second:
        return
    raise UserError(
        f"{teacher.name} has another vocabulary ({len(first):,} tokens) than the model it is to "
        f"teach ({len(second):,}), so it would read other words. Give a teacher with the same one."
    )
