"""The tutorial's path: which stop is made from which, so that any notebook can start anywhere.

`checkpoint("prune80", task)` opens the stored stop or makes it, and what it stands on, first.
"""

from dataclasses import dataclass
from pathlib import Path

from helpers import tiers
from helpers.environment import runs_folder
from helpers.errors import UserError
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task


@dataclass(frozen=True)
class Step:
    """How one stop is made.

    Attributes:
        start: the stop, or the plain model, it is trained from.
        recipe: name of the recipe; None for a plain fine-tune.
        teacher: the stop whose answers it learns from.
        only_quantizes: it needs few epochs, since it prunes nothing.
        notebook: where a reader meets it.
    """

    start: str
    notebook: str
    recipe: str | None = None
    teacher: str | None = None
    only_quantizes: bool = False


STEPS = {
    "dense": Step("minilm", "01_baseline_fine_tune"),
    "prune80": Step("dense", "02_prune_with_recipe", "minilm-6layers_prune80"),
    "prune80_quant": Step("prune80", "03_quantize", "minilm-6layers_quant", only_quantizes=True),
    "prune80_quant_distill": Step(
        "dense", "04_distill", "minilm-6layers_prune80_quant", teacher="dense"
    ),
    "prune90_quant_distill": Step(
        "dense", "05_export_onnx", "minilm-6layers_prune90_quant", teacher="dense"
    ),
}


def folder(task: Task, stop: str) -> Path:
    """Return where a stop of this task lies at the current size."""
    return runs_folder() / task.name / tiers.current().name / stop


def epochs(step: Step) -> float:
    """Return how long a step trains at the current size."""
    tier = tiers.current()
    if step.recipe is None:
        return tier.dense_epochs
    return tier.quant_epochs if step.only_quantizes else tier.recipe_epochs


def checkpoint(stop: str, task: Task) -> Checkpoint:
    """Open the stored checkpoint of a stop, or make the missing one and say so.

    Raises:
        UserError: for a name that is no stop; whatever `fine_tune` raises while making it.
    """
    if stop not in STEPS:
        raise UserError(f"No stop {stop!r}. The path has {', '.join(STEPS)}.")
    place = folder(task, stop)
    if not (place / "run.json").is_file():
        print(
            f"{stop}: not there yet, making it now (notebook {STEPS[stop].notebook} explains it)."
        )
        return make(stop, task)
    found = Checkpoint.load(place)
    if found.run["request"]["data"] == task.fingerprint:
        return found
    raise UserError(
        f"{place} was trained on other data than {task.name} is now. "
        "Delete that folder, or set TUTORIAL_RUNS to a new one."
    )


def make(stop: str, task: Task) -> Checkpoint:
    """Train a stop, and first whatever it starts or learns from."""
    from helpers.recipes import load_recipe
    from helpers.training import fine_tune

    step = STEPS[stop]
    return fine_tune(
        task,
        checkpoint(step.start, task) if step.start in STEPS else step.start,
        folder(task, stop),
        recipe=load_recipe(step.recipe, num_epochs=epochs(step)) if step.recipe else None,
        distill_teacher=checkpoint(step.teacher, task) if step.teacher else None,
        num_train_epochs=epochs(step),
        per_device_train_batch_size=tiers.current().batch_size,
    )


def onnx_model(stop: str, task: Task) -> OnnxModel:
    """Open the stored export of a stop, or make the missing one and say so."""
    place = folder(task, stop).with_name(f"{stop}-onnx")
    if (place / "proof.json").is_file():
        return OnnxModel.load(place)
    from helpers.export import export

    source = checkpoint(stop, task)
    print(f"{stop}: no ONNX file yet, exporting it now.")
    return export(source, task, place)
