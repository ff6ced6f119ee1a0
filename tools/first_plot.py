"""Time a newcomer's way from `git clone` to the first plot: clone, make setup, notebook 1.

    python tools/first_plot.py            once with pip's cache as it is, once without it
    python tools/first_plot.py --store    the same, stored in results/first_plot.json

Why: a tutorial that takes half an hour to show something is left. What is cloned is this
repository's last commit, into a folder that is deleted again. Exit code 1: there was no plot.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from helpers import environment, results

NOTEBOOK = "01_baseline_fine_tune.ipynb"
CACHES = {"packages cached": {}, "packages not cached": {"PIP_NO_CACHE_DIR": "1"}}


def draws(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell has shown a picture."""
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def run_to_first_plot(folder: Path) -> None:
    """Run the cells of a clone's first notebook, on its own kernel, until one draws."""
    notebook = nbformat.read(folder / "notebooks" / NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder / "notebooks")}}
    client = NotebookClient(notebook, kernel_name="sparse-transfer", resources=resources)
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
            if draws(cell):
                return
    sys.exit(f"No cell of {NOTEBOOK} drew anything.")


def first_plot(variables: dict[str, str]) -> dict[str, float]:
    """Return the seconds of each part, and of all together, in a clone of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "clone"
        start = time.perf_counter()
        subprocess.run(["git", "clone", "-q", environment.REPOSITORY, folder], check=True)
        subprocess.run(["make", "-C", folder, "setup"], check=True, env=os.environ | variables)
        ready = time.perf_counter()
        os.environ["JUPYTER_PATH"] = str(folder / ".venv" / "share" / "jupyter")
        run_to_first_plot(folder)
        end = time.perf_counter()
    times = {"set-up": ready - start, "notebook": end - ready, "together": end - start}
    return {part: round(seconds, 1) for part, seconds in times.items()}


def main() -> None:
    """Time both ways and print, or store, the seconds."""
    # A newcomer has none of them; a folder of finished runs would cost no training.
    for name in [name for name in os.environ if name.startswith("TUTORIAL_")]:
        del os.environ[name]
    found = {name: first_plot(variables) for name, variables in CACHES.items()}
    print(json.dumps(found, indent=1))
    if "--store" in sys.argv[1:]:
        command = "python tools/first_plot.py --store"
        content = {"seconds_to_first_plot": found, **environment.describe()}
        results.write("first_plot", content, command)


if __name__ == "__main__":
    main()
