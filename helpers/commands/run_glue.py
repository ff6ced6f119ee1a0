"""Fine-tune a text classifier, with or without a recipe, and export it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.commands import parse, print_json
from helpers.commands.arguments import DataArguments, JsonArgument, flag, recipe_variables
from helpers.errors import UserError
from helpers.stops import Checkpoint, refuse_occupied

if TYPE_CHECKING:
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.recipes import Recipe


@dataclass
class ModelArguments:
    """What is trained, and what it learns from."""

    model_name_or_path: str = flag("minilm", "'minilm' (embedded), a folder, or a hub name")
    distill_hardness: float | None = flag(None, "weight of the teacher, 0 to 1 (1.0)")
    distill_temperature: float | None = flag(None, "softening of the compared answers (2.0)")
    onnx_export_path: str | None = flag(None, "folder for the proven ONNX export")


def main(argv: list[str]) -> int:
    """Train as the flags say; print metrics, and one JSON line if asked."""
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.export import export_onnx
    from helpers.training import DEFAULTS, fine_tune

    types = (ModelArguments, DataArguments, TrainingArguments, JsonArgument)
    model, data, args, output = parse("run_glue", types, argv, **DEFAULTS)
    check_folders(args.output_dir, model.onnx_export_path, args.overwrite_output_dir)
    recipe = read_recipe(args)
    task = data.load()
    trained = fine_tune(
        task,
        starting_point(model.model_name_or_path),
        args.output_dir,
        recipe=recipe,
        distill_teacher=teacher(args.distill_teacher),
        distill_hardness=model.distill_hardness,
        distill_temperature=model.distill_temperature,
        overwrite=args.overwrite_output_dir,
        args=args,
    )
    print(f"{trained.folder}: {trained.metrics}")
    report = {"output_dir": str(trained.folder), "metrics": trained.metrics}
    if model.onnx_export_path:
        made = export_onnx(
            trained, task, model.onnx_export_path, overwrite=args.overwrite_output_dir
        )
        print(f"{made.file}: {len(made.proof['checks'])} checks passed")
        report |= {"onnx": str(made.file), "checks": made.proof["checks"]}
    print_json(output.json, report)
    return 0


def check_folders(output_dir: str, onnx_export_path: str | None, overwrite: bool) -> None:
    """Refuse folders that cannot be written now, rather than after the training."""
    refuse_occupied(Path(output_dir), overwrite)
    if onnx_export_path is None:
        return
    refuse_occupied(Path(onnx_export_path), overwrite)
    if Path(onnx_export_path).resolve() == Path(output_dir).resolve():
        raise UserError(
            f"--onnx_export_path and --output_dir are both {output_dir}. Expected two folders."
        )


def read_recipe(args: "TrainingArguments") -> "Recipe | None":
    """Load the recipe, and say so where it overrules a flag."""
    from helpers.recipes import load_recipe
    from helpers.training import DEFAULTS

    if not args.recipe:
        return None
    recipe = load_recipe(args.recipe, **recipe_variables(args.recipe_args))
    asked = args.num_train_epochs
    if asked not in (DEFAULTS["num_train_epochs"], recipe.num_epochs):
        print(
            f"{recipe.name} sets the length: {recipe.num_epochs} epochs, not {asked}. "
            f"To rescale its whole schedule pass --recipe_args num_epochs={asked}."
        )
    return recipe


def starting_point(name: str) -> str | Checkpoint:
    """Return one of our checkpoints where the name is the folder of one, else the name."""
    return Checkpoint.load(name) if (Path(name) / "run.json").is_file() else name


def teacher(name: str | None) -> Checkpoint | None:
    """Open the teacher.

    Raises:
        UserError: if it is no finished checkpoint of this project.
    """
    if not name:
        return None
    if (Path(name) / "run.json").is_file():
        return Checkpoint.load(name)
    raise UserError(
        f"{name} is no finished checkpoint (no run.json). "
        "Fine-tune the teacher with run_glue first and give its --output_dir."
    )
