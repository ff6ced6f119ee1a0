"""Write the cell that makes any kernel do into every notebook, after its title and contents.

    python tools/first_cell.py            write it where it is missing or different
    python tools/first_cell.py --check    only say where that is so, by exit code 1, too

Why: a notebook that is opened alone, as in Colab, has to know where its repository is, and that
address is to stand in one place, notebooks/any_kernel.py.
"""

import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
AFTER = 2  # cells: the title, the contents
LINE = "import any_kernel  # any kernel will do: the cells below run on Python 3.11"
FETCH = """from pathlib import Path
from urllib.request import urlretrieve

# Opened alone, as in Colab: get the file that gets the rest.
file = Path("any_kernel.py")
file.exists() or urlretrieve("{url}/raw/HEAD/notebooks/any_kernel.py", file)
"""


def source(url: str) -> str:
    """Return the code of the cell; `url` is the address of the repository, "" if it has none."""
    return (FETCH.format(url=url) if url else "") + LINE


def place(notebook: NotebookNode, code: str) -> bool:
    """Put the cell where it belongs; tell whether anything had to change."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    if cell.source == code:
        return False
    if "import any_kernel" in cell.source:
        cell.source = code
        return True
    prefix = cell.id.split("-")[0]
    notebook.cells.insert(AFTER, new_code_cell(code, id=f"{prefix}-kernel"))
    return True


def main() -> int:
    """Write or check every notebook."""
    sys.path.insert(0, str(NOTEBOOKS))
    from any_kernel import REPOSITORY_URL

    changed = []
    for file in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        notebook = nbformat.read(file, as_version=4)
        if place(notebook, source(REPOSITORY_URL)):
            changed.append(file.name)
            if "--check" not in sys.argv:
                nbformat.write(notebook, file)
    print("\n".join(changed) or "Every notebook has the cell.")
    return 1 if changed and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
