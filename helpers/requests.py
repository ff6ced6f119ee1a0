"""What was asked for: is it done already, and can it work at all?"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import models, stops, weights
from helpers.errors import UserError
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.teaching import check_vocabulary, check_width

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.recipes import Recipe


# Arguments of the Trainer that change what is learnt, beside those named one by one.
DECISIVE = (
    "data_seed",
    "dataloader_drop_last",
    "full_determinism",
    "lr_scheduler_kwargs",
    "neftune_noise_alpha",
    "optim_args",
    "weight_decay",
    "warmup_ratio",
    "warmup_steps",
    "max_grad_norm",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "group_by_length",
    "label_smoothing_factor",
    "lr_scheduler_type",
    "optim",
)
# Which of the models on the way is the best, where that is asked.
CHOOSING = ("greater_is_better", "save_strategy", "save_steps")
# When and by what a run is measured, where that has a say in how it goes on.
LOOKING = ("metric_for_best_model", "evaluation_strategy", "eval_steps")
LATER = ("eval_delay", "best_model_after_epoch")
CHOICES = ("Task", "MultiLabel", "TokenClassification")
SMOOTHED = ("Task", "TokenClassification", "MaskedLanguageModel")
# What the kinds of tasks are called in a sentence.
KINDS = {
    "Task": "one of several classes",
    "MultiLabel": "any number of labels",
    "Regression": "a score",
    "TokenClassification": "a tag for every word",
    "QuestionAnswering": "questions about a context",
    "MaskedLanguageModel": "hidden words",
    "Upstream": "how a dense model sees text",
}


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Attributes:
        task: what is learnt, and how it is scored.
        args: the Trainer's.
        model: 'minilm', a folder, a hub name, or a checkpoint to go on from.
        recipe: what is done to the model while it trains; None for a plain fine-tune.
        teacher: whose answers are imitated.
        bf16: autocast outside QAT; None for "where it is faster".
        dropout: share of activations left out while training; the model's own if None.
    """

    task: Task
    args: "TrainingArguments"
    model: str | Path | Checkpoint = "minilm"
    recipe: "Recipe | None" = None
    teacher: Checkpoint | None = None
    bf16: bool | None = None
    dropout: float | None = None


def describe_request(asked: Request) -> dict[str, Any]:
    """Return what makes two runs the same run."""
    args = asked.args
    return {
        "task": asked.task.name,
        "data": asked.task.fingerprint,
        "start": identity(asked.model),
        "recipe": asked.recipe.sha256 if asked.recipe else None,
        "teacher": identity(asked.teacher) if asked.teacher else None,
        "epochs": args.num_train_epochs,
        "batch_size": args.per_device_train_batch_size
        * args.gradient_accumulation_steps
        * args.world_size,
        "learning_rate": args.learning_rate,
        "max_steps": args.max_steps,
        "seed": args.seed,
        "bf16": asked.bf16,
        **{name: getattr(args, name) for name in DECISIVE},
        # Only where they are asked for, so that runs from before they counted are found again.
        **({"fp16": True} if args.fp16 else {}),
        **({} if asked.dropout is None else {"dropout": asked.dropout}),
        **({"best": best} if (best := measures_that_count(args)) else {}),
    }


def measures_that_count(args: "TrainingArguments") -> dict[str, str]:
    """Return when and by what a run is measured, if its outcome depends on that."""
    best = args.load_best_model_at_end
    if not best and args.lr_scheduler_type != "reduce_lr_on_plateau":
        return {}
    later = [name for name in LATER if getattr(args, name)]
    names = (*(CHOOSING if best else ()), *LOOKING, *later)
    return {name: str(getattr(args, name)) for name in names}


def check_smoothing(task: Task, teacher: Checkpoint | None, factor: float) -> None:
    """Refuse smoothed labels where the loss has none to smooth, or where they are not looked at."""
    if not factor:
        return
    kind = type(task).__name__
    if kind not in SMOOTHED:
        raise UserError(
            f"--label_smoothing_factor does not fit {KINDS.get(kind, kind)}: it smooths one right "
            "class of several. Leave it away."
        )
    if teacher:
        raise UserError(
            "--label_smoothing_factor has no effect beside a teacher, whose answers are soft "
            "already. Leave one of them away."
        )


def check_steps(recipe: "Recipe | None", max_steps: int, an_epoch: int) -> None:
    """Refuse a run that would be over before its recipe has made all zeros, or int8.

    Args:
        recipe: what is done to the model.
        max_steps: `--max_steps`; below 1 for the recipe's own length.
        an_epoch: steps of the optimizer in an epoch.
    """
    if recipe is None:
        return
    whole = math.ceil(recipe.num_epochs * an_epoch)
    steps, start = max_steps if max_steps > 0 else whole, recipe.quantization_start
    needed = math.ceil(recipe.last_event_epoch * an_epoch)
    if 0 < max_steps < needed:
        raise UserError(
            f"--max_steps {max_steps} ends before {recipe.name} has done its work, which takes "
            f"{needed} steps. Leave it away, or shorten the recipe: --recipe_args num_epochs=..."
        )
    if start is not None and math.ceil(start * an_epoch) >= steps:
        raise UserError(
            f"{recipe.name} turns to int8 at epoch {start:g}, after the last of the {steps} steps "
            f"({an_epoch} an epoch). Give more rows, smaller batches or a longer run."
        )
    fixed = min((m.ranges_fixed for m in recipe.modifiers if m.quantizes), default=math.inf)
    if start is not None and fixed * an_epoch <= math.ceil(start * an_epoch):
        raise UserError(
            f"{recipe.name} turns to int8 at epoch {start:g} and fixes its ranges at {fixed:g}, "
            f"with no step between, of {an_epoch} an epoch: no text would be read for them. Give "
            "more rows, smaller batches or a longer run."
        )
    if steps < whole:
        print(
            f"--max_steps {steps} ends {recipe.name} early, which has {whole} steps: its learning "
            "rate will not have come down."
        )


def identity(model: str | Path | Checkpoint) -> str:
    """Name a starting point so that another one has another name."""
    if isinstance(model, Checkpoint):
        files = model.run["files"]
        return files.get("model.safetensors") or files["pytorch_model.bin"]
    if str(model) == "minilm" or not Path(model).is_dir():
        return str(model)
    # Somebody else's folder can have other weights tomorrow.
    file = weights.file_of(Path(model))
    return stops.sha256(file) if file.is_file() else str(model)


def reuse(output_dir: Path, request: dict[str, Any]) -> Checkpoint | None:
    """Return the finished run in `output_dir` if it is exactly the one asked for.

    Raises:
        UserError: from `stops.read_note`, if the folder holds a run that was tampered with.
    """
    if not (output_dir / "run.json").is_file():
        return None
    found = Checkpoint.load(output_dir)
    if found.run["request"] != request:
        return None
    print(f"{output_dir.name}: finished run of {found.run['finished']} found, nothing to train.")
    return found


def check_request(asked: Request, *, disabled: bool = False) -> None:
    """Refuse combinations that train without an error and come out wrong.

    Args:
        asked: the run.
        disabled: whether the distillation that its recipe declares is to be left out.

    Raises:
        UserError: one label for all rows; QAT on top of QAT; a teacher without a recipe, of
            another task, or to whom the student's token ids mean other words.
    """
    task, model, recipe, teacher = asked.task, asked.model, asked.recipe, asked.teacher
    if type(task).__name__ in CHOICES and len(task.labels) < 2:
        raise UserError(
            f"{task.name} holds {len(task.labels)} labels ({', '.join(task.labels)}): nothing to "
            "learn. Expected 2 or more."
        )
    if isinstance(model, Checkpoint) and model.run["quantized_modules"]:
        raise UserError(
            f"{model.name} is already quantized; training goes on from a checkpoint before QAT. "
            "Start from the one it was made of."
        )
    if recipe and recipe.declares_distillation and teacher is None and not disabled:
        raise UserError(f"{recipe.name} distills, but no teacher is given. Pass --distill_teacher.")
    if teacher is None:
        return
    if recipe is None:
        raise UserError("A teacher needs a recipe to be used in. Give --recipe as well.")
    check_answers(teacher, task, "Give a teacher that was fine-tuned on this task.")
    check_vocabulary(teacher, model)
    if recipe.compares_states or task.head == models.NO_HEAD:
        check_width(teacher, model)


def check_answers(checkpoint: Checkpoint, task: Task, mend: str) -> None:
    """Refuse a checkpoint that answers another question than the task asks.

    Raises:
        UserError: another kind of task, or other labels.
    """
    answered = (checkpoint.run.get("kind", Task.__name__), checkpoint.run["labels"])
    asked = (type(task).__name__, task.labels)
    if answered == asked:
        return
    (was, had), (kind, labels) = answered, asked
    first, second = (had, labels) if was == kind else (KINDS.get(was, was), KINDS.get(kind, kind))
    raise UserError(f"{checkpoint.name} answers {first}, {task.name} asks for {second}. {mend}")
