"""The embedded questions: what type, which values, what default has a documented parameter?

Why: question answering must be tried without a network too. The docstrings of five scientific
libraries describe thousands of parameters in a fixed form, so questions about them, and the exact
place of each answer, can be read off.

How: a context is a few neighbouring parameters of one function, as documented. Rows are split by
function, and no parameter described in the same words is asked about twice.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm.auto import tqdm

from helpers import corpus, squad
from helpers.docstrings import LABELS, docstrings, source_files
from helpers.errors import ProofError

if TYPE_CHECKING:
    from datasets import DatasetDict

NAME = "docs-qa"
SIZES = {"train": 8_000, "validation": 1_000}
CONTEXT_WORDS = 110
ENTRY_WORDS = 70
ANSWER_PIECES = 20  # words and marks; a tokenizer makes little more of them
EXPECTED_FINGERPRINT = "946393a32fae883e4d697c0a82d69b83a9651e3dcb7cb31ee91829aa188c01dd"

SECTION = re.compile(
    r"^(?:Other )?Parameters\n-{3,}\n(.*?)(?=^\S[^\n]*\n[-=~]{3,} *$|\Z)", re.M | re.S
)
ENTRY = re.compile(
    r"^(?P<name>\*{0,2}\w+(?:, \*{0,2}\w+)*) ?: ?(?P<type>\S.*)\n"
    r"(?P<body>(?:[ \t]+\S.*\n|[ \t]*\n)*)",
    re.MULTILINE,
)
# From here on a description is no prose: a directive, code, a table.
NO_PROSE = re.compile(r"^\s*(?:\.\. |>>>|[-=+|]{3,}|:\w+:)|::\s*$", re.MULTILINE)
TEMPLATE = re.compile(r"%\(|%s|\{\w+\}")
# What follows the type on its line.
NOT_TYPE = re.compile(r"[,;]?\s*\(?\b(?:optional|default|keyword[- ]only|by default)\b.*$", re.I)
CHOICES = re.compile(r"[{]([^{}]+)[}]")
VALUE = (
    r"""(?:rcParams\["[^"]+"\]|'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?(?:e-?\d+)?|True|False|None"""
    r"""|-?(?:np\.)?(?:inf|nan))(?![\w/*^(\[])(?!\s*[-+*/^]\s)(?!\.\w)"""
)
DEFAULT = re.compile(
    rf"(?i:\bdefaults?(?:\svalue)?(?:\s?[:=]|\sis|\sto)?)\s?({VALUE})|({VALUE})\s\(default\)"
)
QUESTIONS = {
    "type": (
        "What type has parameter {parameter} of {function}?",
        "Of what type is the parameter {parameter} of {function}?",
        "Which type does {function} expect for {parameter}?",
    ),
    "choices": (
        "Which values may parameter {parameter} of {function} take?",
        "What can {parameter} be set to in {function}?",
    ),
    "default": (
        "What is the default of parameter {parameter} of {function}?",
        "What is the default value of {parameter} in {function}?",
        "Which value does {parameter} of {function} have by default?",
    ),
}


class Entry(NamedTuple):
    """A documented parameter: its name, what stands behind the colon, and the whole text."""

    name: str
    type: str
    text: str

    @property
    def words(self) -> int:
        """Words of the whole text."""
        return len(self.text.split())


class Question(NamedTuple):
    """A row in the making; `places` are the answers' first characters in `context`."""

    kind: str
    source: str
    entry: Entry
    context: str
    answers: tuple[str, ...]
    places: tuple[int, ...]

    @property
    def id(self) -> str:
        """The same on every machine."""
        return corpus.digest(f"{self.source} {self.entry.name} {self.kind}")[:20]


def plain(text: str) -> str:
    """Return text without the marks of reStructuredText, on one line."""
    text = re.sub(r":rc:`([^`]*)`", r'rcParams["\1"]', text)
    text = re.sub(r"(?::\w+)+:`~[\w.]*\.(\w+)`", r"\1", text)
    text = re.sub(r"(?::\w+)+:`[~!.]*([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)
    text = re.sub(r"``?([^`]*)``?_?", r"\1", text)
    text = re.sub(r"(?<![\w*)\]])\*{1,2}([^\s*][^*]*)\*{1,2}(?![\w*])", r"\1", text)
    return " ".join(re.sub(r"\s?\[\w+\]_|\\(?=[ *_s])", "", text).split())


def entries(docstring: str) -> Iterator[list[Entry]]:
    """Yield the parameters of each section of parameters of a numpydoc docstring."""
    for section in SECTION.finditer(docstring.expandtabs() + "\n"):
        found = [entry for match in ENTRY.finditer(section[1] + "\n") if (entry := _entry(match))]
        yield found


def _entry(match: re.Match[str]) -> Entry | None:
    """Read one parameter; None for a template, or a type that goes on in the next line."""
    name, kind = match["name"], plain(match["type"])
    body = NO_PROSE.split(match["body"], maxsplit=1)[0]
    unfinished = any(kind.count(a) != kind.count(b) for a, b in ("{}", "()", "[]"))
    if unfinished or TEMPLATE.search(match[0]):
        return None
    words = plain(body).split()[:ENTRY_WORDS]
    return Entry(name, kind, "\n".join([f"{name} : {kind}", *([" ".join(words)] if words else [])]))


def paragraphs(section: Iterable[Entry]) -> list[list[Entry]]:
    """Group neighbouring parameters into contexts of about `CONTEXT_WORDS`."""
    groups: list[list[Entry]] = []
    words = CONTEXT_WORDS
    for entry in section:
        if words + entry.words > CONTEXT_WORDS:
            groups.append([])
            words = 0
        groups[-1].append(entry)
        words += entry.words
    return groups


def spans(entry: Entry) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yield kinds of question and where in the entry's text their answers stand."""
    begin = len(entry.name) + len(" : ")
    kind = NOT_TYPE.sub("", entry.type).rstrip(" ,;.")
    if choices := CHOICES.fullmatch(kind):
        yield "choices", [(begin + choices.start(1), begin + choices.end(1))]
    elif kind and not kind.startswith(("{", "'", '"')):
        yield "type", [(begin, begin + len(kind))]
    found = [match.span(match.lastindex) for match in DEFAULT.finditer(entry.text)]
    # Two different defaults: it depends, so there is no answer.
    if len({entry.text[a:b].strip("'\"") for a, b in found}) == 1:
        yield "default", found


def questions(source: str, docstring: str) -> Iterator[Question]:
    """Yield the questions that a docstring answers."""
    for section in entries(docstring):
        for group in paragraphs(section):
            names = [entry.name for entry in group]
            context = "\n".join(entry.text for entry in group)
            begin = 0
            for entry in group:
                # Only one name: "x, y" would be asked about in the plural.
                if names.count(entry.name) == 1 and "," not in entry.name:
                    for kind, found in spans(entry):
                        texts = tuple(entry.text[a:b] for a, b in found)
                        places = tuple(begin + a for a, _ in found)
                        yield Question(kind, source, entry, context, texts, places)
                begin += len(entry.text) + 1


def sensible(question: Question) -> bool:
    """Tell whether the answers are short enough, and the name is one that a person would type."""
    short = all(len(re.findall(r"\w+|[^\w\s]", a)) <= ANSWER_PIECES for a in question.answers)
    return short and not called(question.source).startswith("_")


def called(source: str) -> str:
    """Return what a person calls a function: its name, of a method also the class."""
    parts = source.removesuffix(".__init__").removesuffix(".__new__").split(".")
    if len(parts) > 1 and parts[-2].lstrip("_")[:1].isupper():
        return ".".join(parts[-2:])
    return parts[-1]


def read_questions() -> list[Question]:
    """Every sensible question of the five libraries, in reading order."""
    files = [file for library in LABELS for file in source_files(library)]
    return [
        question
        for module, file in tqdm(files, desc="reading parameters", unit="file")
        for name, docstring in docstrings(ast.parse(file.read_bytes()), module)
        for question in questions(name, docstring)
        if sensible(question)
    ]


def distinct(found: Iterable[Question]) -> list[Question]:
    """One question a described parameter and kind, whichever functions share the description."""
    first: dict[tuple[str, str], Question] = {}
    ids: set[str] = set()
    for question in found:
        key = (question.kind, question.entry.text.lower())
        if key not in first and question.id not in ids:
            first[key] = question
            ids.add(question.id)
    return list(first.values())


def split(found: Iterable[Question]) -> dict[str, list[Question]]:
    """Shuffle by hash and split by function; no context is on both sides."""
    shuffled = sorted(found, key=lambda question: question.id)
    validation = [q for q in shuffled if corpus.held_out(q.source)][: SIZES["validation"]]
    seen = {question.context for question in validation}
    train = [q for q in shuffled if not corpus.held_out(q.source) and q.context not in seen]
    return {"train": train[: SIZES["train"]], "validation": validation}


def row(question: Question) -> squad.Row:
    """Word a question and bring it to the columns of SQuAD."""
    wordings = QUESTIONS[question.kind]
    wording = wordings[int(question.id[:8], 16) % len(wordings)]
    return {
        "id": question.id,
        "title": question.source,
        "context": question.context,
        "question": wording.format(
            parameter=question.entry.name.lstrip("*"), function=called(question.source)
        ),
        "answers": {"text": list(question.answers), "answer_start": list(question.places)},
    }


def build() -> "DatasetDict":
    """The questions, made anew from the installed libraries. Takes about 10 s on one core."""
    from datasets import DatasetDict

    parts = split(distinct(read_questions()))
    return DatasetDict(
        {part: squad.checked([row(q) for q in found], part) for part, found in parts.items()}
    )


def docs_qa(cache: Path) -> "DatasetDict":
    """Questions on the parameters of the installed libraries, columns as `squad.COLUMNS`.

    Args:
        cache: folder that keeps them as Arrow files, in a folder of its own inside.

    Raises:
        UserError: a library is not installed.
        ProofError: the locked libraries are installed and gave other rows than they should.
    """
    from datasets import load_from_disk

    versions = corpus.installed_versions()
    folder = cache / NAME
    made_by = {**versions, "rules": corpus.digest(Path(__file__).read_text("utf-8"))}
    corpus.cached(folder, made_by, build)
    # In memory, or `map` would put files of its own into the folder, which counts as damage.
    data = load_from_disk(str(folder), keep_in_memory=True)
    check_fingerprint(corpus.fingerprint(data), versions)
    return data


def check_fingerprint(found: str, versions: dict[str, str]) -> None:
    """ProofError for other rows from the same libraries, a warning for other libraries."""
    if found == EXPECTED_FINGERPRINT:
        return
    if versions == corpus.EXPECTED_VERSIONS:
        mend = "A library's source was changed, or the cache was: reinstall, delete the cache."
        raise ProofError(f"fingerprint of {NAME}", EXPECTED_FINGERPRINT, found, mend)
    warnings.warn(
        f"The data {NAME!r} was measured with {corpus.EXPECTED_VERSIONS}; installed are "
        f"{versions}. Your figures may differ a little from the printed ones.",
        stacklevel=3,
    )
