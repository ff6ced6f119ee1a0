"""Notebooks: what a reader relies on in every one of them, and the code that runs and stores them.

Why: a dead link, a cell nobody can read in one look or an output with a private path is seen by
the reader first. How: the stored files are read, not run; nbval runs them.
"""

import ast
import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from helpers import environment, notebooks, plots, results
from helpers.__main__ import main
from helpers.environment import REPOSITORY
from helpers.errors import CellFailed, UserError
from helpers.notebooks import in_few_colours

LONGEST_CELL = 14  # lines, as `ruff format` leaves them
LARGEST_FILE = 300_000  # bytes; GitHub does not show much larger ones
PROSE = ("text/plain", "text/html", "text/markdown", "text/latex")
PRIVATE_PATH = re.compile(r"(?<![\w.])/(work|root|home|tmp|Users|private|var)/")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(|<img (?![^>]*alt=\"[^\"]+\")")

FILES = notebooks.ordered()
LESSONS = FILES[1:]
every_notebook = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
TYPOS = Path(sys.executable).with_name("typos")
SOLUTIONS = "11_solutions"  # a lesson that has no exercise of its own
every_lesson = pytest.mark.parametrize("file", LESSONS, ids=lambda file: file.stem)
notebook_files = pytest.mark.notebooks


def read(file: Path) -> NotebookNode:
    """Return a notebook; fails if it is not a valid one."""
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(file: Path) -> list[NotebookNode]:
    """Return the code cells of a notebook."""
    return [cell for cell in read(file).cells if cell.cell_type == "code"]


def markdown(file: Path) -> list[str]:
    """Return the text of every Markdown cell."""
    return [cell.source for cell in read(file).cells if cell.cell_type == "markdown"]


def headings(file: Path) -> list[tuple[int, str]]:
    """Return level and text of every heading, in order."""
    found = re.findall(r"^(#+) (.+)$", "\n\n".join(markdown(file)), re.MULTILINE)
    return [(len(marks), text.strip()) for marks, text in found]


def output_texts(file: Path) -> Iterator[str]:
    """Yield what a reader can read in the stored outputs; pictures are left out."""
    for cell in code_cells(file):
        for output in cell.outputs:
            yield output.get("text", "")
            yield from (text for kind, text in output.get("data", {}).items() if kind in PROSE)


def shows_something(cell: NotebookNode) -> bool:
    """Tell whether a cell ends in an expression, which is there to be looked at."""
    return isinstance(ast.parse(cell.source).body[-1], ast.Expr)


@notebook_files
def test_the_path_is_complete() -> None:
    assert [file.stem for file in FILES] == [
        "00_index",
        "01_baseline_fine_tune",
        "02_prune_with_recipe",
        "03_quantize",
        "04_distill",
        "05_export_onnx",
        "06_benchmark_deepsparse",
        "07_sparse_transfer",
        "08_question_answering",
        "09_under_the_hood",
        "10_symptoms",
        "11_solutions",
    ]


@notebook_files
@every_notebook
def test_it_opens_with_title_promise_and_needs(file: Path) -> None:
    lines = [line for line in read(file).cells[0].source.splitlines() if line]
    assert re.match(r"# \S", lines[0])
    assert re.fullmatch(r"\*[^*].+[^*]\*", lines[1]), "a promise of one line, in italics"
    assert lines[2].startswith("**Minutes:**")
    assert "**You need:**" in lines[3]


@notebook_files
@every_lesson
def test_a_lesson_says_its_goals_and_ends_in_a_summary(file: Path) -> None:
    first = read(file).cells[0].source
    assert len(re.findall(r"^- ", first.partition("**Goals**")[2], re.MULTILINE)) >= 2
    assert "**You leave with:**" in first
    ends = [(2, "Exercise"), (2, "Summary")]
    assert headings(file)[-2:] == ends or file.stem == SOLUTIONS and headings(file)[-1] == ends[-1]
    assert re.search(r"^- ", markdown(file)[-1], re.MULTILINE)


@notebook_files
@every_lesson
def test_the_contents_name_every_heading(file: Path) -> None:
    (contents,) = [text for text in markdown(file) if text.startswith("**Contents:**")]
    linked = re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", contents)
    assert [text for text, _ in linked] == [text for level, text in headings(file) if level == 2]
    assert all(anchor == text.replace(" ", "-") for text, anchor in linked)


@notebook_files
@every_notebook
def test_headings_skip_no_level(file: Path) -> None:
    levels = [level for level, _ in headings(file)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(levels, levels[1:], strict=False))


@notebook_files
@every_lesson
def test_top_and_bottom_lead_to_the_neighbours(file: Path) -> None:
    place = FILES.index(file)
    wanted = {FILES[0].name} | {other.name for other in LESSONS[max(0, place - 2) : place + 1]}
    wanted.discard(file.name)
    for text in (markdown(file)[0], markdown(file)[-1]):
        assert wanted <= set(LINK.findall(text))


@notebook_files
def test_the_index_leads_to_every_lesson() -> None:
    table = "\n".join(markdown(FILES[0]))
    assert {file.name for file in LESSONS} <= set(LINK.findall(table))


@notebook_files
@every_notebook
def test_code_cells_are_short_and_plain_python(file: Path) -> None:
    for cell in code_cells(file):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.source
        assert not re.search(r"^\s*[!%]", cell.source, re.MULTILINE), cell.source
        ast.parse(cell.source)


@notebook_files
@every_lesson
def test_it_begins_with_versions_and_machine(file: Path) -> None:
    kernel, versions = code_cells(file)[:2]
    assert "import any_kernel" in kernel.source
    assert "print(environment.banner())" in versions.source


def test_every_notebook_has_the_cell_for_other_kernels() -> None:
    """Run `python tools/first_cell.py` where this fails."""
    tool = environment.REPOSITORY / "tools" / "first_cell.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "Every notebook has the cell.")


def test_a_missing_or_different_first_cell_is_written_anew() -> None:
    import first_cell

    title, contents = new_markdown_cell("# T"), new_markdown_cell("C")
    notebook = new_notebook(cells=[title, contents, new_code_cell("1", id="09-02")])
    assert first_cell.place(notebook, first_cell.source(""))
    assert [cell.source for cell in notebook.cells[2:]] == [first_cell.LINE, "1"]
    assert notebook.cells[2].id == "09-kernel"
    assert not first_cell.place(notebook, first_cell.source(""))
    assert first_cell.place(notebook, first_cell.source("https://example.org/t"))
    assert "https://example.org/t/raw/HEAD/notebooks/any_kernel.py" in notebook.cells[2].source
    assert len(notebook.cells) == 4


@notebook_files
@every_lesson
def test_there_is_an_exercise_with_a_folded_solution(file: Path) -> None:
    if file.stem == SOLUTIONS:
        return
    (cell,) = [cell for cell in code_cells(file) if "answer = None" in cell.source]
    assert "print(exercises." in cell.source
    assert any("<details><summary>Solution" in text for text in markdown(file))


@notebook_files
@every_notebook
def test_words_are_spelt_as_they_should_be(file: Path) -> None:
    cells = "\n\n".join(cell.source for cell in read(file).cells)
    done = subprocess.run([TYPOS, "-"], input=cells, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    slip = "sparse model".replace("el", "le")
    found = subprocess.run([TYPOS, "-"], input=slip, capture_output=True, text=True)
    assert slip.split()[1] in found.stdout, "the check finds a slip"


@notebook_files
@every_notebook
def test_pictures_in_the_text_say_what_they_show(file: Path) -> None:
    assert not [text for text in markdown(file) if "" in IMAGE.findall(text)]


@notebook_files
@every_notebook
def test_stored_plots_say_what_they_show(file: Path) -> None:
    # nbconvert's classic page reads them out; its newer template has no place for them yet.
    page, _ = HTMLExporter(template_name="classic").from_filename(str(file))
    said = re.findall(r'<img[^>]*\balt="([^"]*)"', page)
    drawn = [cell for cell in code_cells(file) if "'image/png'" in str(cell.outputs)]
    assert len(said) >= len(drawn)
    assert not [words for words in said if words.startswith("No description")]
    assert not [words for words in said if len(words.split()) < 8]


@notebook_files
@every_notebook
def test_the_kernel_is_ours(file: Path) -> None:
    assert read(file).metadata.kernelspec.name == "sparse-transfer"


@notebook_files
@every_notebook
def test_cells_that_show_something_have_stored_outputs(file: Path) -> None:
    """Run `make notebooks` where this fails."""
    bare = [cell.source for cell in code_cells(file) if shows_something(cell) and not cell.outputs]
    assert not bare
    assert re.search(r"^\*\*Minutes:\*\* \d", markdown(file)[0], re.MULTILINE)


@notebook_files
@every_notebook
def test_stored_outputs_are_fit_to_read(file: Path) -> None:
    outputs = [output for cell in code_cells(file) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not [output for output in outputs if "widget" in " ".join(output.get("data", {}))]
    assert "widgets" not in read(file).metadata
    for text in output_texts(file):
        assert not PRIVATE_PATH.search(text)
        assert "Warning" not in text
    assert file.stat().st_size < LARGEST_FILE


def small(*sources: str) -> NotebookNode:
    """Return a notebook with a first cell as ours have it, then code cells."""
    first = new_markdown_cell("# Title\n\n**Minutes:** not measured yet\n\n**You need:** nothing")
    return new_notebook(cells=[first, *(new_code_cell(source) for source in sources)])


def written(notebook: NotebookNode, folder: Path) -> Path:
    """Write a notebook and return its file."""
    file = folder / "07_small.ipynb"
    nbformat.write(notebook, file)
    return file


def test_a_notebook_is_run_in_a_fresh_kernel(tmp_path: Path) -> None:
    file = written(small("import helpers\nvalue = 6", "value * 7"), tmp_path)
    executed, minutes = notebooks.run(file)
    assert executed.cells[2].outputs[0].data["text/plain"] == "42"
    assert 0 < minutes < 5
    assert read(file).cells[2].outputs == [], "the file itself is left as it was"


def test_a_failing_cell_is_named(tmp_path: Path) -> None:
    file = written(small("fine = True", "1 / 0", "never = True"), tmp_path)
    with pytest.raises(CellFailed, match=r"07_small.ipynb, cell 3: ZeroDivisionError"):
        notebooks.run(file)


def test_a_cell_that_hangs_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebooks, "CELL_SECONDS", 1)
    file = written(small("import time\ntime.sleep(60)"), tmp_path)
    with pytest.raises(CellFailed, match=r"07_small.ipynb: CellTimeoutError"):
        notebooks.run(file)


def test_ctrl_c_is_no_failed_cell(tmp_path: Path) -> None:
    """nbclient takes the signal for itself, and ends the kernel."""
    began = f"open({str(tmp_path / 'began')!r}, 'w').close()"
    file = written(small(began, "import time\ntime.sleep(60)"), tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom helpers import notebooks\n"
        "try:\n    notebooks.run(Path(sys.argv[1]))\n"
        "except KeyboardInterrupt:\n    print('interrupted')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, file], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "interrupted\n"


def test_a_relative_folder_of_runs_is_the_kernels_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTORIAL_RUNS", "mine")
    seen = []

    def run(file: Path) -> tuple[nbformat.NotebookNode, float]:
        seen.append(os.environ["TUTORIAL_RUNS"])
        return nbformat.read(file, 4), 1.0

    monkeypatch.setattr(notebooks, "run", run)
    assert main(["tutorial", "--notebooks", "09"]) == 0
    assert seen == [str(tmp_path.resolve() / "mine")]
    assert (tmp_path / "mine" / "notebooks").is_dir()


def test_what_is_stored_is_light() -> None:
    notebook = small("train()")
    notebook.metadata["widgets"] = {"state": {}}
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}
    notebook.cells[1].outputs = [
        new_output("stream", name="stderr", text="50%|#####"),
        new_output("stream", name="stdout", text="done\n"),
        new_output("display_data", data=view),
    ]
    notebook.cells[1].metadata["execution"] = {"iopub.execute_input": "now"}
    light = notebooks.lightened(notebook, 1.25, "laptop")
    assert [output.text for output in light.cells[1].outputs] == ["done\n"]
    assert "widgets" not in light.metadata
    assert "execution" not in light.cells[1].metadata
    assert light.metadata.kernelspec.name == "sparse-transfer"
    nbformat.validate(json.loads(nbformat.writes(light)))


def test_the_measured_minutes_are_written_into_the_first_cell() -> None:
    light = notebooks.lightened(small(), 1.26, "smoke")
    again = notebooks.lightened(light, 2.0, "laptop").cells[0].source
    assert re.search(r"^\*\*Minutes:\*\* 2\.0, measured on .+ cores \(laptop size\)$", again, re.M)
    assert again.count("**Minutes:**") == 1
    assert again.endswith("**You need:** nothing")


def test_notebooks_are_found_by_the_start_of_their_name() -> None:
    names = [file.stem for file in notebooks.ordered(["03", "01_baseline_fine_tune.ipynb"])]
    assert names == ["03_quantize", "01_baseline_fine_tune"]
    assert notebooks.ordered() == notebooks.ordered([]) == sorted(FILES)


@notebook_files
@every_notebook
def test_stored_minutes_are_those_of_all_its_training(file: Path) -> None:
    """Where this fails, delete the stops that it names and store the notebook again."""
    found = notebooks.found_stops(read(file))
    # The solutions go on from what the lessons have left.
    assert found == (["upstream80"] if file.stem == SOLUTIONS else [])


@every_notebook
def test_no_output_is_older_than_its_code(file: Path) -> None:
    """Where this fails: `python -m helpers tutorial --store --notebooks NN`."""
    assert notebooks.outdated(nbformat.read(file, 4)) == []


def test_a_changed_cell_is_named() -> None:
    notebook = nbformat.read(FILES[1], 4)
    cell = next(c for c in notebook.cells if c.cell_type == "code" and c.outputs)
    cell.source = f"# a comment\n{cell.source}\n"
    assert notebooks.outdated(notebook) == [], "a comment changes nothing"
    cell.source += "answer = 43\n"
    assert notebooks.outdated(notebook) == ["# a comment"]


def test_a_notebook_goes_by_its_number() -> None:
    for names in (["1"], ["01"], ["01_base"]):
        assert [file.stem for file in notebooks.ordered(names)] == ["01_baseline_fine_tune"]


@pytest.mark.parametrize("names", [["99"], ["0", "nowhere"], [""]])
def test_an_unknown_notebook_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match=r"No notebook is called .* Expected one of 00_index, "):
        notebooks.ordered(names)


def test_pictures_are_stored_in_few_colours() -> None:
    figure, (axis,) = plots.new_figure()
    axis.plot([0, 1, 0, 2])
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    before = base64.b64encode(drawn.getvalue()).decode()
    after = in_few_colours(before)
    assert len(after) < len(before) / 2
    one, other = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(p))).convert("RGB"), dtype=int)
        for p in (before, after)
    )
    assert np.abs(one - other).max() < 32, "no dot looks different"


@pytest.mark.parametrize("some", [[], ["--notebooks", "09"]])
def test_storing_the_whole_tutorial_makes_the_tables_anew(
    some: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebooks are taken as they are: running them all takes forty minutes."""
    stored = (results.FOLDER / "docs-library_laptop.json").read_text()
    runs, pages = tmp_path / "runs", tmp_path / "page.md"
    pages.write_text("<!-- results: docs-library_laptop -->\n<!-- end -->\n")
    for module, name, value in (
        (results, "FOLDER", tmp_path),
        (results, "PAGES", [pages]),
        (notebooks, "FOLDER", tmp_path / "notebooks"),
        (notebooks, "run", lambda file: (nbformat.read(file, 4), 1.0)),
        (notebooks, "ordered", lambda names: FILES[9:10]),
        (results, "runs_of", lambda task: runs),
        (results, "collect", lambda task: json.loads(stored)),
    ):
        monkeypatch.setattr(module, name, value)
    (runs / "dense").mkdir(parents=True)
    (runs / "dense" / "run.json").touch()
    assert main(["tutorial", "--store", *some]) == 0
    assert (tmp_path / "notebooks" / FILES[9].name).is_file()
    assert ("| dense |" in pages.read_text()) == (not some)
