"""Notebooks as a reader sees them: run in JupyterLab, and read as stored, both in Chromium.

Why: a widget that needs a lost package, a picture that is cut off or a warning in red passes every
test that has no eyes. Screenshots are left in runs/browser; look at them.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lab import ROOT, WINDOW, Lab, browser_program, chromium, jupyterlab
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook
from selenium.webdriver import Chrome

from helpers import notebooks

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not browser_program(), reason="no Chromium: apt install chromium-driver"),
]
PICTURES = ROOT / "runs" / "browser"
# One that trains, with a progress bar, and one that only computes.
RUN = ("01_baseline_fine_tune", "09_under_the_hood")
SECONDS = 600

CELLS = """
const panel = window.jupyterapp.shell.currentWidget;
const cells = [...panel.content.model.cells].filter(cell => cell.type === "code");
return {
  status: panel.sessionContext.kernelDisplayStatus,
  waiting: cells.filter(cell => cell.executionCount === null).length,
  outputs: cells.map(cell => cell.outputs.toJSON()),
};
"""
READY = """
const panel = window.jupyterapp?.shell?.currentWidget;
return Boolean(panel?.content?.model?.cells?.length) && panel.sessionContext.isReady
  && panel.sessionContext.kernelDisplayStatus === "idle";
"""
LOOKS = """
const area = document.querySelector(arguments[0]);
const pictures = [...area.querySelectorAll(".jp-OutputArea-output img, .jp-RenderedImage img")];
return {
  pictures: pictures.length,
  broken: pictures.filter(picture => !picture.complete || !picture.naturalWidth).length,
  red: area.querySelectorAll("[data-mime-type='application/vnd.jupyter.stderr']").length,
  wider: area.scrollWidth - area.clientWidth,
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """Open the browser all tests share."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab on a copy of the notebooks, since a browser saves what it has run."""
    repository = tmp_path_factory.mktemp("lab")
    root = repository / "notebooks"
    shutil.copytree(ROOT / "notebooks", root)
    for name in ("helpers", "recipes", "tools", "requirements.lock"):
        (repository / name).symlink_to(ROOT / name)
    broken = new_notebook(cells=[new_code_cell("1 / 0")])
    broken.metadata.kernelspec = {"name": "sparse-transfer", "display_name": "", "language": ""}
    nbformat.write(broken, root / "broken.ipynb")
    variables = {"TUTORIAL_TIER": "smoke", "TUTORIAL_RUNS": str(repository / "runs")}
    with jupyterlab(root, tmp_path_factory.mktemp("home"), **variables) as running:
        yield running


def until(driver: Chrome, script: str) -> None:
    """Return when a script in the page returns true."""
    end = time.monotonic() + 60
    while not driver.execute_script(script):
        assert time.monotonic() < end, driver.title
        time.sleep(0.2)


def run_all(driver: Chrome, address: str) -> dict[str, Any]:
    """Open a notebook, run all of its cells as the menu does, and return what the page holds."""
    driver.get(address)
    until(driver, READY)
    driver.execute_script(
        "const done = window.jupyterapp.commands;"
        "done.execute('notebook:clear-all-cell-outputs');"
        "done.execute('notebook:run-all-cells');"
    )
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(1)
        found = driver.execute_script(CELLS)
        failed = any(o["output_type"] == "error" for cell in found["outputs"] for o in cell)
        if found["status"] == "idle" and (failed or not found["waiting"]):
            return found
    raise AssertionError(f"not done after {SECONDS} seconds: {found['waiting']} cells wait")


def errors(found: dict[str, Any]) -> list[str]:
    """Return the names of the errors that cells have shown."""
    outputs = [output for cell in found["outputs"] for output in cell]
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


def photograph(driver: Chrome, name: str, area: str) -> None:
    """Store a picture of the page, as high as what is in it."""
    height = driver.execute_script("return document.querySelector(arguments[0]).scrollHeight", area)
    driver.set_window_size(WINDOW[0], min(int(height) + 200, 16_000))
    driver.execute_script("document.querySelector(arguments[0]).scrollTop = 0", area)
    time.sleep(1)
    driver.save_screenshot(str(PICTURES / f"{name}.png"))
    driver.set_window_size(*WINDOW)


@pytest.mark.parametrize("name", RUN)
def test_all_cells_run_in_jupyterlab(browser: Chrome, lab: Lab, name: str) -> None:
    found = run_all(browser, lab.address(f"{name}.ipynb"))
    assert errors(found) == []
    area = ".jp-Notebook .jp-WindowedPanel-outer"
    photograph(browser, f"lab_{name}", area)
    looks = browser.execute_script(LOOKS, area)
    assert looks["pictures"] >= 1 and looks["broken"] == 0
    assert looks["red"] == 0, "a warning or a log is red to a reader"
    assert looks["wider"] <= 1


def test_an_error_in_a_cell_is_seen(browser: Chrome, lab: Lab) -> None:
    assert errors(run_all(browser, lab.address("broken.ipynb"))) == ["ZeroDivisionError"]


@pytest.mark.parametrize("file", notebooks.ordered(), ids=lambda file: file.stem)
def test_a_stored_notebook_is_whole_on_a_page(browser: Chrome, file: Path, tmp_path: Path) -> None:
    page, _ = HTMLExporter(template_name="lab").from_filename(str(file))
    (tmp_path / "page.html").write_text(page)
    browser.get((tmp_path / "page.html").as_uri())
    photograph(browser, f"page_{file.stem}", "body")
    looks = browser.execute_script(LOOKS, "body")
    drawn = sum("image/png" in str(cell.get("outputs")) for cell in nbformat.read(file, 4).cells)
    assert looks["broken"] == 0 and looks["pictures"] >= drawn
    assert looks["red"] == 0
    assert looks["wider"] <= 1
