"""Measured results: collected from the stops into results/, and from there into pages.

No figure is typed by hand: `collect` reads what runs wrote, `render` writes the tables between
the markers of `PAGES`, and a test holds these to results/.
"""

import json
import re
from operator import itemgetter
from pathlib import Path
from typing import Any

from helpers import environment, tiers
from helpers.errors import UserError
from helpers.exercises import zipped_size
from helpers.published import published_table
from helpers.result_tables import (
    accuracy_table,
    first_plot_line,
    forms_table,
    idle_line,
    machine_line,
    profile_table,
    roof_table,
    speed_table,
    texts_table,
    training_table,
)
from helpers.score_tables import ablations_table, kept_table, tasks_table, transfer_table
from helpers.stops import Checkpoint, OnnxModel

FOLDER = environment.REPOSITORY / "results"
NOTEBOOKS = environment.REPOSITORY / "notebooks"
EMBEDDED = "docs-library"
PAGES = (environment.REPOSITORY / "README.md", FOLDER / "README.md")
UNMEASURED = "Not measured yet."
OF_WHOLE_RUNS = {"kept": kept_table, "published": published_table}
# By a key that only files of this kind have: what says their figures.
WORDS = {
    "ablations": ablations_table,
    "upstream": transfer_table,
    "ms_a_step": training_table,
    "lengths": texts_table,
    "ms": profile_table,
    "seconds_to_first_plot": first_plot_line,
    "forms": forms_table,
    "ms_idle_recipe": idle_line,
}
KEPT = ("metrics", "minutes", "steps", "rows", "recipe", "peak_memory_gb", "request", "finished")


def runs_of(task_name: str) -> Path:
    """Return the folder of a task's stops at the current size."""
    return environment.runs_folder() / task_name / tiers.current().name


def collect(task_name: str) -> dict[str, Any]:
    """Gather the stops, proofs and timings of a task at the current size.

    Raises:
        UserError: if nothing of it was run yet.
    """
    folder = runs_of(task_name)
    stops = kept_stops(folder)
    if not stops:
        raise UserError(f"Nothing was run for {task_name} at {tiers.current().name} size yet.")
    proofs = {f.parent.name: OnnxModel.load(f.parent) for f in folder.glob("*/proof.json")}
    timings = folder / "benchmark.json"
    return {
        "task": task_name,
        "tier": tiers.current().name,
        "stops": stops,
        "proofs": {name: model.proof["checks"] for name, model in sorted(proofs.items())},
        "sizes": {name: size(model.file) for name, model in sorted(proofs.items())},
        "benchmark": json.loads(timings.read_text()) if timings.is_file() else None,
        "minutes": notebook_minutes(tiers.current().name) if task_name == EMBEDDED else {},
        **environment.describe(),
    }


def collect_transfer() -> dict[str, Any]:
    """Gather what `tools/sparse_transfer.sh` has trained: upstream models, and stops by task.

    Raises:
        UserError: if it has trained nothing yet.
    """
    runs = environment.runs_folder()
    upstream = kept_stops(runs / "upstream")
    if not upstream:
        raise UserError("Nothing was pruned upstream yet. See tools/sparse_transfer.sh.")
    tasks = {place.parent.name: kept_stops(place) for place in sorted(runs.glob("*/transfer"))}
    return {"upstream": upstream, "tasks": tasks, **environment.describe()}


def collect_ablations() -> dict[str, Any]:
    """Gather what `tools/ablations.sh` has trained: the dense model, and each way with each seed.

    Raises:
        UserError: if it has trained nothing yet.
    """
    stops = kept_stops(environment.runs_folder() / EMBEDDED / "ablations")
    if not stops:
        raise UserError("No way of pruning was compared yet. Run `bash tools/ablations.sh`.")
    return {"ablations": stops, **environment.describe()}


def kept_stops(folder: Path) -> dict[str, dict[str, Any]]:
    """Return name to what is kept of each finished stop in a folder."""
    stops = {f.parent.name: Checkpoint.load(f.parent) for f in sorted(folder.glob("*/run.json"))}
    return {name: {key: stop.run[key] for key in KEPT} for name, stop in stops.items()}


def size(file: Path) -> dict[str, float]:
    """Return a file's size, and its size zipped, in MB."""
    return {
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "zipped_mb": round(zipped_size(file) / 1e6, 1),
    }


def notebook_minutes(tier: str) -> dict[str, float]:
    """Return notebook to minutes, as their headers say, for those stored at this size."""
    pattern = re.compile(rf"\*\*Minutes:\*\* ([\d.]+), .*\({tier} size\)")
    found = {}
    for file in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        header = "".join(json.loads(file.read_text())["cells"][0]["source"])
        if match := pattern.search(header):
            found[file.stem] = float(match[1])
    return found


def store(found: dict[str, Any], command: str) -> Path:
    """Write collected results to results/, with the command that made them."""
    return write(f"{found['task'].replace('/', '--')}_{found['tier']}", found, command)


def write(name: str, found: dict[str, Any], command: str) -> Path:
    """Write figures to a file of results/, with the command that made them."""
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    return file


def section(file: Path) -> str:
    """Return a page's section for one results file; one plain line while there is none.

    The section `tasks` is made of all files that have no section of their own, `kept` and
    `published` of all that hold whole runs.
    """
    if table := OF_WHOLE_RUNS.get(file.stem):
        return table(whole_runs())
    if file.stem == "tasks":
        others = sorted(set(FOLDER.glob("*_full.json")) - {FOLDER / "sst2_full.json"})
        lines = [machine_line(json.loads(other.read_text())) for other in others]
        return "\n\n".join([tasks_table(others), *lines]) if others else UNMEASURED
    if not file.is_file():
        return UNMEASURED
    found = json.loads(file.read_text())
    for key, words in WORDS.items():
        if key in found:
            return f"{words(found)}\n\n{machine_line(found)}"
    if "measurements" in found:
        parts = [speed_table({"benchmark": found}), machine_line(found)]
        parts.insert(1, roof_table(found) if "roofline" in found else "")
        return "\n\n".join(part for part in parts if part)
    parts = [accuracy_table(found), speed_table(found), machine_line(found)]
    return "\n\n".join(part for part in parts if part)


def whole_runs() -> list[tuple[str, dict[str, Any]]]:
    """Return task and stops of every stored run on well-known data."""
    found = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("sparse_transfer*.json"))]
    runs = [run for file in found for run in file["tasks"].items()]
    alone = [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*_full.json"))]
    return sorted([*runs, *((file["task"], file["stops"]) for file in alone)], key=itemgetter(0))


def rendered(text: str) -> str:
    """Return a page's text with every marked section made anew.

    A section stands between `<!-- results: NAME -->` and `<!-- end -->`, where NAME is a file of
    results/ without its ending.
    """
    pattern = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda m: f"{m[1]}{section(FOLDER / f'{m[2]}.json')}\n{m[3]}", text)


def write_pages() -> None:
    """Make the tables of all pages anew from results/."""
    for page in PAGES:
        page.write_text(rendered(page.read_text()))
