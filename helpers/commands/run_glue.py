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
    distill_hardness: float = flag(1.0, "weight of the teacher against the labels, 0 to 1")
    distill_temperature: float = flag(2.0, "softening of the answers that are compared")
    onnx_export_path: str | None = flag(None, "folder for the proven ONNX export")


def main(argv: list[str]) -> int:
    """Train as the flags say; print metrics, and one JSON line if asked."""
    from sparseml.transformers.sparsification.training_args import TrainingArguments

    from helpers.export import export
    from helpers.training import DEFAULTS, fine_tune

    types = (ModelArguments, DataArguments, TrainingArguments, JsonArgument)
    model, data, args, output = parse("run_glue", types, argv, **DEFAULTS)
    if not args.overwrite_output_dir:
        refuse_occupied(Path(args.output_dir))
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
        made = export(trained, task, model.onnx_export_path, overwrite=args.overwrite_output_dir)
        print(f"{made.file}: {len(made.proof['checks'])} checks passed")
        report |= {"onnx": str(made.file), "checks": made.proof["checks"]}
    print_json(output.json, report)
    return 0


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
