"""Show where the time of a call goes: milliseconds by part of the model, on each engine.

`python -m helpers profile runs/dense-onnx runs/sparse-onnx --engines deepsparse,onnxruntime`;
models are named as for `benchmark`. Profilers cost time: look at the shares.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.commands import parse, print_json, with_first
from helpers.commands.arguments import JsonArgument, flag
from helpers.commands.timing import (
    check_place,
    named,
    print_left_out,
    save_picture,
    split,
    whole,
    words,
)
from helpers.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class ProfileArguments:
    """What is looked into, and on what."""

    models: list[str] = words("", "what is profiled; may stand first, without --models")
    engines: list[str] = words("deepsparse,onnxruntime,openvino", "engines, with commas between")
    batch_sizes: list[str] = words("1", "texts of one call, with commas between")
    sequence_length: int = flag(128, "tokens of every text, none of them padding")
    num_cores: int | None = flag(None, "threads of every engine; all physical cores if not given")
    output: str | None = flag(None, "file for the table, as JSON")
    plot: str | None = flag(None, "file for a picture of the smallest batch size")


def main(argv: list[str]) -> int:
    """Print milliseconds and shares by part, one column a model and engine; JSON if asked."""
    types = (ProfileArguments, JsonArgument)
    asked, output = parse("profile", types, with_first(argv, "--models"))
    check(asked)
    found, failed = gather(asked)
    if found.empty:
        raise UserError("Nothing could be profiled. " + " ".join(failed.values()))
    shares = (100 * found / found.sum()).round().astype(int)
    print(found.round(2).to_string(), "\n\nShare of the profiled time (%)\n", shares.to_string())
    for column, reason in failed.items():
        print(f"{column}: {reason}")
    print_left_out(asked.models, asked.engines)
    content = {"ms": found.to_dict(), "errors": failed}
    if asked.output:
        store(content, argv, Path(asked.output))
    if asked.plot:
        from helpers import speed_plots

        # One batch size a picture: the larger would press the smaller against the axis.
        sizes = sorted(whole("batch_sizes", asked.batch_sizes))
        of_size = [found.filter(regex=f"batch {size}$") for size in sizes]
        smallest = next(columns for columns in of_size if not columns.empty)
        save_picture(speed_plots.time_by_part(smallest), asked.plot)
    print_json(output.json, content)
    return 0


def check(asked: ProfileArguments) -> None:
    """Refuse what cannot be profiled before anything is started.

    Raises:
        UserError: naming the flag.
    """
    from helpers.engine_profiles import PROFILED

    if not split(asked.models):
        raise UserError("Nothing to profile. Expected: python -m helpers profile MODEL [MODEL ...]")
    if unknown := [name for name in split(asked.engines) if name not in PROFILED]:
        known = ", ".join(PROFILED)
        raise UserError(f"No profile of engine {unknown[0]!r}. Expected some of {known}.")
    whole("batch_sizes", asked.batch_sizes)
    whole("sequence_length", [str(asked.sequence_length)])
    check_place("output", asked.output)
    check_place("plot", asked.plot, picture=True)


def gather(asked: ProfileArguments) -> "tuple[pd.DataFrame, dict[str, str]]":
    """Profile every model on every engine that takes it; return columns, and who failed why."""
    from helpers.benchmark import files_for, fits
    from helpers.engine_profiles import profiles
    from helpers.model_facts import facts_of

    models, engines = named(asked.models), split(asked.engines)
    return profiles(
        [
            (name, models[name], engine, batch)
            for batch in whole("batch_sizes", asked.batch_sizes)
            for (name, engine), file in files_for(models, engines).items()
            if facts_of(file) and fits(engine, file, engines)
        ],
        asked.sequence_length,
        asked.num_cores,
    )


def store(content: dict, argv: list[str], file: Path) -> None:
    """Write the table with the command, the machine and the versions."""
    from helpers import environment
    from helpers.measurements import write_json

    command = f"python -m helpers profile {shlex.join(argv)}"
    write_json({"command": command, **content, **environment.describe()}, file)
