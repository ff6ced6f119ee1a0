"""Links that lead nowhere: files and headings in every page of this repository. No network."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from helpers.environment import REPOSITORY

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PAGES = [
    REPOSITORY / "README.md",
    *(REPOSITORY / name / "README.md" for name in ("helpers", "recipes", "results")),
    *sorted((REPOSITORY / "recipes").glob("[a-z]*.md")),
    *sorted((REPOSITORY / "notebooks").glob("*.md")),
    *sorted((REPOSITORY / "notebooks").glob("*.ipynb")),
]


def text_of(page: Path) -> str:
    """Return the prose of a page, of a notebook that of its markdown cells."""
    if page.suffix != ".ipynb":
        return page.read_text("utf-8")
    cells = nbformat.read(page, 4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def headings(page: Path) -> set[str]:
    """Return the anchors of a page: Jupyter keeps capitals and marks, GitHub does not."""
    code = re.compile(r"```.*?```", re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", code.sub("", text_of(page)), re.MULTILINE)
    plain = [re.sub(r"[`*]", "", title).strip() for title in titles]
    if page.suffix == ".ipynb":
        return {title.replace(" ", "-") for title in plain}
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in plain}


def dead_links(page: Path, text: str) -> Iterator[str]:
    """Yield links to files or headings that are not there."""
    for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / unquote(place)).resolve() if place else page
        if not target.exists() or (anchor and unquote(anchor) not in headings(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead_links(page, text_of(page))) == []


def test_dead_links_are_found() -> None:
    page = REPOSITORY / "README.md"
    text = "[a](no/such/file.md) [b](#no-such-heading) [c](LICENSE) [d](https://example.org/x)"
    assert list(dead_links(page, text)) == ["no/such/file.md", "#no-such-heading"]
