"""Run the notebooks in order, as a reader would, and store light outputs."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tqdm import tqdm

from helpers import environment
from helpers.errors import UserError

FOLDER = environment.REPOSITORY / "notebooks"
CELL_SECONDS = 1500
MINUTES = re.compile(r"^\*\*Minutes:\*\*.*$", re.MULTILINE)


class CellFailed(UserError):
    """A cell raised an exception; the message names notebook, cell and error."""


def ordered(names: list[str] | None = None) -> list[Path]:
    """Return the numbered notebooks in order, or the named ones.

    Raises:
        UserError: for a name that is no notebook.
    """
    every = sorted(FOLDER.glob("[0-9]*.ipynb"))
    if not names:
        return every
    chosen = [file for name in names for file in every if file.stem.startswith(Path(name).stem)]
    if len(chosen) >= len(names):
        return chosen
    raise UserError(f"No notebook like {names}. There are {', '.join(f.stem for f in every)}.")


def run(file: Path) -> tuple[NotebookNode, float]:
    """Execute a notebook in a fresh kernel of this Python.

    Returns:
        The executed notebook and the minutes it took.

    Raises:
        CellFailed: at the first cell that raises.
    """
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    began = time.monotonic()
    with tqdm(total=len(notebook.cells), desc=file.stem, unit="cell") as bar:
        client.on_cell_executed = lambda **_: bar.update()
        try:
            client.execute()
        except CellExecutionError as error:
            raise CellFailed(f"{file.name}: {error.ename}: {error.evalue}") from error
        bar.update(bar.total - bar.n)
    return notebook, (time.monotonic() - began) / 60


def lightened(notebook: NotebookNode, minutes: float, tier: str) -> NotebookNode:
    """Return the notebook fit to be stored: no stderr, no widgets, no run times but one.

    The line that begins with `**Minutes:**` is rewritten with what was measured, and where.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {
        "name": "sparse-transfer",
        "display_name": "Python 3.11 (sparse-transfer)",
        "language": "python",
    }
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = list(light_outputs(cell.outputs))
    cpu = environment.machine()
    words = (
        f"**Minutes:** {minutes:.1f}, measured on {cpu['cpu']}, {cpu['cores']} cores ({tier} size)"
    )
    first = notebook.cells[0]
    first.source = MINUTES.sub(words, first.source)
    return notebook


def light_outputs(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Drop progress bars and other stderr, and widget views that no reader could see."""
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            continue
        yield output


def measured(notebook: NotebookNode) -> dict[str, Any]:
    """Return what a notebook printed under the tag `result`, as text by cell number."""
    return {
        str(i): "".join(o.get("text", "") for o in cell.outputs)
        for i, cell in enumerate(notebook.cells)
        if "result" in cell.metadata.get("tags", [])
    }
