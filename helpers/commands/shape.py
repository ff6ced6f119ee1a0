"""Export a model of a known shape with random weights, to time what nobody wants to train here.

`python -m helpers shape bert-base --recipe bert-base-12layers_prune_quant90 --onnx_export_path X`.
"""

from dataclasses import dataclass

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import FORMAT_HELP, JsonArgument, flag, recipe_variables
from helpers.errors import UserError


@dataclass
class ShapeArguments:
    """Which shape, and what a recipe makes of it."""

    shape: str | None = flag(None, "'minilm' or 'bert-base'; may stand first, without --shape")
    recipe: str | None = flag(None, "recipe that makes it sparse or int8; without one it is dense")
    recipe_args: str | None = flag(None, "the recipe's variables, such as final_sparsity=0.8")
    onnx_export_path: str | None = flag(None, "folder for the ONNX model and its proof")
    onnx_export_format: str = flag("deepsparse", FORMAT_HELP)
    overwrite_output_dir: bool = flag(False, "replace what that folder holds")


def main(argv: list[str]) -> int:
    """Export as the flags say; print the proof, and one JSON line if asked."""
    import pandas as pd

    from helpers.recipes import load_recipe
    from helpers.shapes import export_random

    types = (ShapeArguments, JsonArgument)
    asked, output = parse("shape", types, with_first(argv, "--shape"))
    if not asked.shape or not asked.onnx_export_path:
        raise UserError("Give a shape and --onnx_export_path.")
    if asked.recipe_args and not asked.recipe:
        raise UserError("--recipe_args has no recipe to change. Give --recipe as well.")
    variables = recipe_variables(asked.recipe_args)
    made = export_random(
        asked.shape,
        asked.onnx_export_path,
        recipe=load_recipe(asked.recipe, **variables) if asked.recipe else None,
        form=asked.onnx_export_format,
        overwrite=asked.overwrite_output_dir,
    )
    print(pd.DataFrame(made.proof["checks"]).to_string(index=False))
    print_json(output.json, {"onnx": str(made.file), "checks": made.proof["checks"]})
    return 0
