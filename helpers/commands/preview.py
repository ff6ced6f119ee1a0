"""Show what a recipe will do, and in which model to what, before it is run.

`python -m helpers preview RECIPE --model_name_or_path minilm --plot schedule.png`
"""

import shutil
import textwrap
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag, recipe_variables
from helpers.commands.timing import check_place
from helpers.errors import UserError
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from helpers.recipes import Recipe

# Names shown of what a pattern matches.
FIRST = 2
# Width of a column below which the longest settings would be cut.
NARROWEST = 42


@dataclass
class PreviewArguments:
    """Which recipe, and for which model."""

    recipe: str | None = flag(None, "name or file of the recipe; may stand first, without --recipe")
    recipe_args: str | None = flag(None, "new values for its variables, such as num_epochs=3")
    model_name_or_path: str | None = flag(
        None, "model to match it with: 'minilm', a folder, one of our checkpoints, or a hub name"
    )
    head: str = flag("SequenceClassification", "the new head, where the model is no checkpoint")
    plot: str | None = flag(None, "file for a picture of the schedule: .png, .svg or .pdf")


def main(argv: list[str]) -> int:
    """Print schedule, matches and warnings; write the picture; one JSON line if asked."""
    from helpers.recipes import load_recipe

    argv = with_first(argv, "--recipe", (".json",))  # a recipe may be .yaml
    asked, output = parse("preview", (PreviewArguments, JsonArgument), argv)
    if not asked.recipe:
        raise UserError("No recipe is given. Expected: python -m helpers preview RECIPE")
    check_place("plot", asked.plot, picture=True)
    recipe = load_recipe(asked.recipe, **recipe_variables(asked.recipe_args))
    name = asked.model_name_or_path
    model = open_model(name, asked.head) if name else None
    report = describe(recipe, model)
    if asked.plot:
        report["plot"] = draw(recipe, Path(asked.plot))
    show(report)
    print_json(output.json, report)
    return 0


def open_model(name: str, head: str) -> "nn.Module":
    """Load the model that training would start from."""
    from helpers import models

    if (Path(name) / "run.json").is_file():
        return models.load_model(Checkpoint.load(name))
    heads = (*models.HEADS, models.NO_HEAD)
    if head not in heads:
        raise UserError(f"--head {head} is unknown. Expected one of {', '.join(heads)}.")
    return models.pretrained(name, head)[0]


def describe(recipe: "Recipe", model: "nn.Module | None") -> dict[str, Any]:
    """Return all that is known beforehand about a recipe, as plain values."""
    from helpers import recipe_findings

    report = {
        "recipe": recipe.name,
        "num_epochs": recipe.num_epochs,
        "last_event_epoch": recipe.last_event_epoch,
        "needs_teacher": recipe.declares_distillation,
        "modifiers": recipe.explain().to_dict("records"),
        "promises": {p: target._asdict() for p, target in recipe.pruning_targets().items()},
        "warnings": recipe_findings.schedule_findings(recipe),
    }
    if model is None:
        return report
    table, _ = recipe_findings.int8_modules(recipe, model)
    report["model"] = type(model).__name__
    report["matches"] = recipe_findings.matches(recipe, model).to_dict("records")
    report["dropped_layers"] = recipe.dropped_layers
    report["int8"] = {kind: list(rows.module) for kind, rows in table.groupby("kind")}
    report["warnings"] += recipe_findings.model_findings(recipe, model)
    return report


def draw(recipe: "Recipe", file: Path) -> str:
    """Write the picture of the schedule; return its name."""
    from helpers import schedule_plot

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        schedule_plot.schedule(recipe).savefig(file)
    except OSError as error:
        raise UserError(f"--plot {file} cannot be written ({error.strerror}).") from error
    return str(file)


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    import pandas as pd

    print(f"{report['recipe']}: {report['num_epochs']:g} epochs, ", end="")
    print(f"last change of zeros or int8 at epoch {report['last_event_epoch']:g}")
    print("It needs a teacher: pass --distill_teacher.\n" if report["needs_teacher"] else "")
    columns = ["modifier", "epochs", "settings", "why"]
    print(folded(pd.DataFrame(report["modifiers"], columns=columns)), "\n")
    if "model" in report:
        show_model(report)
    else:
        show_promises(report["promises"])
    if "plot" in report:
        print(f"picture: {report['plot']}")
    print("\n".join(f"warning: {text}" for text in report["warnings"]) or "no warnings")


def show_promises(promises: dict[str, dict[str, Any]]) -> None:
    """Print what each pattern is promised, where there is no model to match it with."""
    for pattern, target in promises.items():
        whole = "each matrix" if target["per_matrix"] else "all together"
        print(f"{target['final_sparsity']:.1%} zeros, {target['mask_type']}, {whole}: {pattern}")
    print("To see what it matches, pass --model_name_or_path minilm, or another model.\n")


def show_model(report: dict[str, Any]) -> None:
    """Print what a recipe matches, drops and quantizes in a model."""
    print(f"In {report['model']}:")
    for row in report["matches"]:
        print(f"{row['matrices']:4} x {row['promise'] or row['modifier']}: {row['pattern']}")
        print(f"       {shortened(row['names'])}")
    print(f"layers dropped: {', '.join(report['dropped_layers']) or 'none'}")
    kinds = [f"{len(names)} {kind} ({shortened(names)})" for kind, names in report["int8"].items()]
    print(f"modules in int8: {', '.join(kinds) or 'none'}\n")


def shortened(names: list[str]) -> str:
    """Return the first names, and dots where there are more."""
    return ", ".join(names[:FIRST]) + (", ..." if len(names) > FIRST else "")


def folded(table: "pd.DataFrame") -> str:
    """Return a table of words as text; long cells go on in the next line, to fit the terminal."""
    import pandas as pd

    width = max(NARROWEST, (shutil.get_terminal_size((120, 24)).columns - NARROWEST) // 2)
    lines = []
    for row in table.itertuples(index=False):
        lines += zip_longest(*(textwrap.wrap(cell, width) for cell in row), fillvalue="")
    text = pd.DataFrame(lines, columns=table.columns)
    widths = {name: text[name].str.len().max() for name in text}
    left = {name: f"{{:{longest}}}".format for name, longest in widths.items()}
    return text.to_string(index=False, justify="left", formatters=left)
