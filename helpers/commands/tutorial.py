"""Run the notebooks in order and print what they measured."""

import os
import time
from dataclasses import dataclass, field

from helpers.commands import parse, print_json
from helpers.commands.arguments import JsonArgument, flag


@dataclass
class TutorialArguments:
    """Which notebooks, and what becomes of their outputs."""

    notebooks: list[str] = field(
        default_factory=list, metadata={"help": "such as 01 02; all if none is named"}
    )
    store: bool = flag(False, "store the outputs in notebooks/ instead of runs/notebooks/")


def main(argv: list[str]) -> int:
    """Run the notebooks at the size of `TUTORIAL_TIER`; print minutes, then the results."""
    import nbformat

    from helpers import compat, environment, notebooks, result_tables, results, tiers

    asked, output = parse("tutorial", (TutorialArguments, JsonArgument), argv)
    environment.check_python()
    environment.check_packages()
    for name in ("TUTORIAL_RUNS", "TUTORIAL_DATA_DIR"):
        if os.environ.get(name):  # kernels stand in notebooks/
            os.environ[name] = compat.absolute(os.environ[name])
    tier = tiers.current().name
    folder = notebooks.FOLDER if asked.store else environment.runs_folder() / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    minutes = {}
    began = time.monotonic()
    # The index comes last: it shows what the others have stored.
    files = sorted(notebooks.ordered(asked.notebooks), key=lambda file: file.stem[:2] == "00")
    for file in files:
        executed, minutes[file.stem] = notebooks.run(file)
        if found := notebooks.found_stops(executed):
            print(f"{file.stem}: minutes without {', '.join(found)}, trained before.")
        light = notebooks.lightened(executed, minutes[file.stem], tier)
        nbformat.write(light, folder / file.name)
    total = (time.monotonic() - began) / 60
    print("\n".join(f"{name:28} {value:5.1f} min" for name, value in minutes.items()))
    print(f"{'together':28} {total:5.1f} min ({tier} size)\n")
    if not any(results.runs_of(results.EMBEDDED).glob("*/run.json")):
        print_json(output.json, {"minutes": minutes})
        return 0
    found = results.collect(results.EMBEDDED)
    if asked.store and not asked.notebooks:
        results.store(found, "make notebooks")
        results.write_pages()
    print(result_tables.accuracy_table(found), "\n")
    print(result_tables.speed_table(found))
    print_json(output.json, found)
    return 0
