"""What the `run_*` commands and `sparsify_upstream` have in common: everything but the data."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from helpers import compat
from helpers.commands import given, parse, print_json, typed_out
from helpers.commands.arguments import (
    DataArguments,
    JsonArgument,
    ModelArguments,
    recipe_variables,
)
from helpers.commands.recorded import recorded, recorded_flags, recorded_of
from helpers.commands.refused_flags import check_flags
from helpers.errors import UserError
from helpers.stops import Checkpoint, is_or_holds, refuse_occupied

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.recipes import Recipe
    from helpers.tasks import Task

# How a model is taught, so of no use where it is only measured.
TEACHING = ("distill_teacher", "distill_hardness", "distill_temperature", "dropout")
# What they train is a start for other tasks.
NO_EXPORT = {
    "run_mlm": "what guesses words is a start for other tasks",
    "sparsify_upstream": "a sparse encoder is a start for other tasks",
}


def run(command: str, data_type: type[DataArguments], argv: list[str], **defaults: Any) -> int:
    """Train, evaluate and export as the flags say; print metrics, and one JSON line if asked.

    Args:
        command: its name.
        data_type: the flags that name the data.
        argv: what was typed.
        **defaults: of single flags, where this command has others than its sisters.
    """
    use_cache(argv)
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers import processes
    from helpers.training import DEFAULTS

    compat.word_flags(TrainingArguments)
    types = (ModelArguments, data_type, TrainingArguments, JsonArgument)
    known = {**DEFAULTS, **defaults, **recorded_settings(argv, data_type)}
    model, data, args, output = parse(command, types, without_fp16(argv), **known)
    check_flags(args)
    with processes.together():
        return work(command, model, data, args, output, argv)


def work(
    command: str,
    model: ModelArguments,
    data: DataArguments,
    args: "TrainingArguments",
    output: JsonArgument,
    argv: list[str],
) -> int:
    """Do what the flags say, in one process or in each of several."""
    from helpers import processes, training

    check_export(command, model)
    asked = given(argv, "num_train_epochs", "learning_rate", "lr_scheduler_type", "bf16")
    trains = will_train(argv)
    check_folders(args, model.onnx_export_path, trains)
    recipe = read_recipe(args, asked)
    if not trains:
        say_unused(command, recipe, argv)
    # What is read from the hub or made from docstrings is kept; the others find it there.
    with args.main_process_first():
        task = load(data, model, args, trains)
    bf16 = args.bf16 if "bf16" in asked else None
    done = train(task, model, args, recipe, bf16) if trains else evaluate(task, model, args)
    place = done.folder if trains else training.evaluation_folder(args.output_dir)
    report = {"output_dir": str(place), "metrics": done.metrics}
    print(f"{place}: {done.metrics}")
    if model.onnx_export_path and processes.is_main():
        report |= export(done, task, model, args.overwrite_output_dir)
    print_json(output.json, report)
    return 0


def say_unused(command: str, recipe: "Recipe | None", argv: list[str]) -> None:
    """Name what counts in training only, where nothing is trained."""
    # Without labels the teacher is what a model is measured against.
    measures = {"distill_teacher"} if command == "sparsify_upstream" else set()
    flags = [f"--{name}" for name in given(argv, *TEACHING) if name not in measures]
    # A command can have a recipe that nobody typed.
    unused = [*([recipe.name] if recipe and given(argv, "recipe") else []), *flags]
    if unused:
        print(f"Nothing is trained, so {' and '.join(unused)} will not count.")


def load(
    data: DataArguments, model: ModelArguments, args: "TrainingArguments", trains: bool
) -> "Task":
    """Return the data; where nothing is trained, only what is measured, with the model's labels."""
    if trains:
        return replace(data.load_for(model, args), origin=data.origin())
    known = recorded(model.model_name_or_path).get("labels", [])
    return data.measured().load_for(model, args).with_labels(known)


def train(
    task: "Task",
    model: ModelArguments,
    args: "TrainingArguments",
    recipe: "Recipe | None",
    bf16: bool | None,
) -> Checkpoint:
    """Fine-tune as the flags say; `bf16` None for "where it is faster"."""
    from helpers.training import fine_tune

    start = starting_point(model.model_name_or_path)
    return fine_tune(
        task,
        start,
        args.output_dir,
        recipe=recipe,
        distill_teacher=teacher(args.distill_teacher, start, task),
        distill_hardness=model.distill_hardness,
        distill_temperature=model.distill_temperature,
        dropout=model.dropout,
        bf16=bf16,
        overwrite=args.overwrite_output_dir,
        args=args,
    )


def evaluate(task: "Task", model: ModelArguments, args: "TrainingArguments") -> Checkpoint:
    """Measure a finished model; what it answers lies in `output_dir` afterwards."""
    from helpers.training import evaluate as measured

    return measured(finished(model.model_name_or_path, task), task, args)


def export(
    done: Checkpoint, task: "Task", model: ModelArguments, overwrite: bool
) -> dict[str, Any]:
    """Export and prove; return what the report says about it."""
    from helpers.export import export_onnx
    from helpers.export_proof import passed

    folder, form = model.onnx_export_path, model.onnx_export_format
    made = export_onnx(done, task, folder, form=form, overwrite=overwrite)
    print(f"{made.file}: {passed(made.proof['checks'])}")
    return {"onnx": str(made.file), "checks": made.proof["checks"]}


def recorded_settings(argv: list[str], data_type: type[DataArguments]) -> dict[str, Any]:
    """Return how a checkpoint was asked while it was trained, if it is only measured now.

    What is typed goes before it. Without it, a flag left out would ask in the command's own way, at
    a length say that the model was not trained for.
    """
    return {} if will_train(argv) else recorded_flags(recorded_of(argv), data_type, argv)


def use_cache(argv: list[str]) -> None:
    """Point the hub's client to `--cache_dir`; it reads its place when it is imported."""
    if place := given(argv, "cache_dir").get("cache_dir"):
        os.environ["HF_HUB_CACHE"] = os.environ["HF_DATASETS_CACHE"] = str(place)


def will_train(argv: list[str]) -> bool:
    """Tell whether a model is trained, not only measured; without either flag it is."""
    # Not args.do_eval: an evaluation after each epoch sets it, too.
    if given(argv, "do_train"):
        return said_yes(argv, "do_train")
    return not said_yes(argv, "do_eval")


def said_yes(argv: list[str], flag: str) -> bool:
    """Tell whether a flag was given and not switched off."""
    return given(argv, flag).get(flag, "false").lower() in ("true", "1", "yes", "t", "y")


def without_fp16(argv: list[str]) -> list[str]:
    """Take `--fp16` out where no GPU could follow it, and say so: Transformers would give up."""
    import torch

    if torch.cuda.is_available() or not said_yes(argv, "fp16"):
        return argv
    print("--fp16 needs a GPU; training goes on in bf16 or fp32, whichever is faster here.")
    # The last of two flags of one name counts, also after those of a file.
    return [*typed_out(argv), "--fp16", "false"]


def check_export(command: str, model: ModelArguments) -> None:
    """Refuse an export that there is none of."""
    from helpers.export import check_form

    check_form(model.onnx_export_format)
    if model.onnx_export_path:
        refuse_export(command)


def refuse_export(command: str | None) -> None:
    """Refuse to export what a command trains, where that is a start for other tasks."""
    if command in NO_EXPORT:
        raise UserError(
            f"{command} exports nothing: {NO_EXPORT[command]}. "
            "Fine-tune it with run_glue, run_qa or run_ner, and export that."
        )


def check_folders(args: "TrainingArguments", onnx_export_path: str | None, trains: bool) -> None:
    """Refuse folders that cannot be written now, rather than after the training."""
    from helpers import environment, training

    if trains:
        environment.check_disk(Path(args.output_dir).resolve(), training.DISK_NEEDED)
    # A finished run of exactly these flags is taken up as it is; `fine_tune` looks at it.
    if trains and not (Path(args.output_dir) / "run.json").is_file():
        refuse_occupied(Path(args.output_dir), args.overwrite_output_dir)
    if onnx_export_path is None:
        return
    # So is a proven export of it; `export_onnx` looks at that.
    done = (Path(args.output_dir) / "run.json").is_file() or not trains
    if not (done and (Path(onnx_export_path) / "proof.json").is_file()):
        refuse_occupied(Path(onnx_export_path), args.overwrite_output_dir)
    if is_or_holds(Path(onnx_export_path), Path(args.output_dir)):
        raise UserError(
            f"--onnx_export_path {onnx_export_path} is or holds --output_dir {args.output_dir}. "
            "Expected two folders, the model's not in the export's."
        )


def read_recipe(args: "TrainingArguments", asked: dict[str, str]) -> "Recipe | None":
    """Load the recipe, and say so where it overrules what was asked for, flag to text."""
    from helpers.recipes import load_recipe

    if not args.recipe:
        return None
    recipe = load_recipe(args.recipe, **recipe_variables(args.recipe_args))
    epochs = args.num_train_epochs
    if "num_train_epochs" in asked and epochs != recipe.num_epochs:
        print(
            f"{recipe.name} sets the length: {recipe.num_epochs} epochs, not {epochs}. "
            f"To rescale its whole schedule pass --recipe_args num_epochs={epochs}."
        )
    overruled = [f"--{name}" for name in ("learning_rate", "lr_scheduler_type") if name in asked]
    if overruled and recipe.sets_learning_rate:
        print(
            f"{recipe.name} sets the learning rate, so {' and '.join(overruled)} will not count. "
            "To change it pass --recipe_args init_lr=..., if the recipe has that variable."
        )
    return recipe


def starting_point(name: str) -> str | Checkpoint:
    """Return one of our checkpoints where the name is the folder of one, else the name."""
    return Checkpoint.load(name) if (Path(name) / "run.json").is_file() else name


def finished(name: str, task: "Task") -> Checkpoint:
    """Return a model that needs no training: ours, or anybody's with the task's head."""
    from helpers import adoption

    found = starting_point(name)
    return found if isinstance(found, Checkpoint) else adoption.adopt(found, task)


def teacher(
    name: str | None, start: str | Checkpoint, task: "Task"
) -> "Checkpoint | Literal['disable'] | None":
    """Open the teacher: a folder, a hub name, `self` for the starting point, `disable` for none.

    Raises:
        UserError: if it is no finished model of this task.
    """
    if not name:
        return None
    if name == "disable":
        return "disable"
    if name != "self":
        return finished(name, task)
    if isinstance(start, Checkpoint):
        return start
    raise UserError(
        f"--distill_teacher self: {start} has no trained head yet, so it has nothing to teach. "
        "Fine-tune it first and start from that, or name another teacher."
    )
