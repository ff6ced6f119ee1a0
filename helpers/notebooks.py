"""Run the notebooks in order, as a reader would, and store light outputs."""

import ast
import base64
import hashlib
import io
import re
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from tqdm.auto import tqdm

from helpers import compat, environment
from helpers.errors import CellFailed, UserError

FOLDER = environment.REPOSITORY / "notebooks"
CELL_SECONDS = 1500
COLOURS = 128
# What `requests.reuse` prints of a stop.
FOUND = re.compile(r"^(\S+): finished run of .* nothing to train", re.MULTILINE)
MINUTES = re.compile(r"^\*\*Minutes:\*\*.*$", re.MULTILINE)


def ordered(names: list[str] | None = None) -> list[Path]:
    """Return the numbered notebooks in order, or the named ones.

    Raises:
        UserError: for a name that is no notebook.
    """
    every = sorted(FOLDER.glob("[0-9]*.ipynb"))
    if not names:
        return every
    chosen = []
    for name in names:
        found = [file for file in every if is_called(file, Path(name).stem)]
        if not name or not found:
            there = ", ".join(file.stem for file in every)
            raise UserError(f"No notebook is called {name!r}. Expected one of {there}.")
        chosen += [file for file in found if file not in chosen]
    return chosen


def is_called(file: Path, name: str) -> bool:
    """Tell whether a notebook goes by a name: its number, or how its file's name begins."""
    if name.isdecimal():
        return int(name) == int(file.stem.partition("_")[0])
    return file.stem.startswith(name)


def run(file: Path) -> tuple[NotebookNode, float]:
    """Execute a notebook in a fresh kernel of this Python.

    Returns:
        The executed notebook and the minutes it took.

    Raises:
        CellFailed: at the first cell that raises, or takes longer than `CELL_SECONDS`.
        KeyboardInterrupt: Ctrl-C, which nbclient takes for itself.
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
        except Exception as error:
            if compat.was_interrupted(client):
                raise KeyboardInterrupt from error
            if isinstance(error, CellExecutionError):
                reason = f"{error.ename}: {error.evalue}"
                raise CellFailed(f"{file.name}, cell {failing(notebook)}: {reason}") from error
            if isinstance(error, CellTimeoutError | DeadKernelError):
                raise CellFailed(f"{file.name}: {type(error).__name__}: {error}") from error
            raise
        if compat.was_interrupted(client):  # as the kernel was shut down, or the cell let it pass
            raise KeyboardInterrupt
        bar.update(bar.total - bar.n)
    return notebook, (time.monotonic() - began) / 60


def failing(notebook: NotebookNode) -> int | None:
    """Return the number of the cell (from 1) that holds an error, None if none does."""
    for number, cell in enumerate(notebook.cells, start=1):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return number
    return None


def found_stops(notebook: NotebookNode) -> list[str]:
    """Return the stops it had no need to train, so that its minutes are without theirs."""
    texts = (o.text for c in notebook.cells for o in c.get("outputs", []) if "text" in o)
    return [name for text in texts for name in FOUND.findall(text)]


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
            cell.metadata["outputs_of"] = digest(cell.source)
    cpu = environment.machine()
    where = f"{cpu['cpu']}, {cpu['cores']} cores ({tier} size)"
    words = f"**Minutes:** {max(minutes, 0.1):.1f}, measured on {where}"
    first = notebook.cells[0]
    first.source = MINUTES.sub(words, first.source)
    return notebook


def digest(code: str) -> str:
    """Return what stays the same as long as a cell does the same, whatever its format."""
    return hashlib.sha256(ast.dump(ast.parse(code)).encode()).hexdigest()[:16]


def outdated(notebook: NotebookNode) -> list[str]:
    """Return the cells whose stored outputs are older than their code: their first lines."""
    return [
        cell.source.splitlines()[0]
        for cell in notebook.cells
        if cell.cell_type == "code"
        and cell.outputs
        and cell.metadata.get("outputs_of") != digest(cell.source)
    ]


def light_outputs(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Drop progress bars and other stderr, and widget views that no reader could see.

    Pictures are kept in few colours, which makes a plot a third of its bytes.
    """
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        data = output.get("data", {})
        if "application/vnd.jupyter.widget-view+json" in data:
            continue
        if picture := data.get("image/png"):
            data["image/png"] = in_few_colours(picture)
        yield output


def in_few_colours(picture: str) -> str:
    """Return a PNG (base64) with at most `COLOURS` colours, or as it was where that is no gain."""
    from PIL import Image

    made = io.BytesIO()
    plain = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    plain.quantize(COLOURS, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    smaller = base64.b64encode(made.getvalue()).decode()
    return min(picture, smaller, key=len)
