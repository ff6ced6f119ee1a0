"""The embedded data: a text-classification task that needs no network and no account.

Why: the tutorial must run anywhere, on real English. The docstrings of five scientific libraries
are installed beside it, so the question is "which library does this sentence describe?".

How: the source files are parsed (never imported) and their docstrings cut into prose sentences.
Names that give the label away are masked, repeated sentences removed, short neighbours joined
into a row, and the rows split by documented name. The same library versions always give the
same rows, and that is checked.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
from tqdm.auto import tqdm

from helpers.errors import ProofError, UserError

NAME = "docs-library"
LABELS = ("matplotlib", "numpy", "pandas", "scipy", "sklearn")
SIZES = {"train": 10_000, "validation": 1_000}
MASK = "thing"
ABOUT = "about.json"
SENTENCE_WORDS = (5, 60)  # fewest and most
ROW_WORDS = (18, 60)
SHINGLE = 8  # words in a row that no training sentence may share with a validation function

# Other versions have other docstrings, so the fingerprint only holds for these.
EXPECTED_VERSIONS = {
    "matplotlib": "3.11.2",
    "numpy": "1.26.4",
    "pandas": "2.2.3",
    "scipy": "1.17.1",
    "sklearn": "1.9.1",
}
EXPECTED_FINGERPRINT = "51b1636cb47c9e5d2043a6c10abd1238fbff8bcde2cebe90e0d28d928f86a34f"

# Tests, copies of other people's packages, and files that differ from machine to machine.
SKIPPED_PATHS = frozenset(
    [
        "tests",
        "testing",
        "_testing",
        "conftest.py",
        "externals",
        "_external",
        "extern",
        "_vendored",
        "distutils",
        "f2py",
        "array_api",
        "array_api_compat",
        "array_api_extra",
        "_distributor_init.py",
        "__config__.py",
        "version.py",
        "_version.py",
    ]
)
SKIPPED_SECTIONS = frozenset({"references", "examples", "example", "see also", "methods"})
FIELD_SECTIONS = frozenset(
    {"parameters", "other parameters", "returns", "yields", "raises", "warns", "attributes"}
)
# Names that tell the library wherever they stand, in any case and with a plural s.
TELLING_NAMES = (
    "matplotlib numpy pandas scipy sklearn scikit-learn scikits? mpl plt np pd sp sk skl pyplot "
    "pylab axes3d axes axs ax fig figure subplot artist rcparam dataframe df series ndarray "
    "masked.array maskedarray ufunc estimator multiindex datetimeindex linalg ndimage fftpack "
    "numpydoc"
)
TELLING = re.compile(rf"\b(?:{'|'.join(TELLING_NAMES.split(' '))})s?\b", re.IGNORECASE)
CODE = re.compile(
    r"""\b[A-Za-z_]\w+(?:\.[A-Za-z_]\w*)+(?:\([^)]*\))?  # dotted.names, called or not
    | \b\w+\([^)]*\)                                     # calls()
    | \w*_\w*                                            # snake_case
    | \b(?!NaNs?\b|LaTeX\b)\w*[a-z][A-Z]\w*              # innerCapitals
    """,
    re.VERBOSE,
)
CLASS = re.compile(r"^\s*class _*([A-Z]\w*)\s*[(:]", re.MULTILINE)
PLAIN_LITERAL = re.compile(r"'?[a-z]{2,}'?|None|True|False|-?\d+(?:\.\d+)?")
SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!cf\.)(?<!vs\.)(?<!al\.)(?<!Fig\.)(?<!Eq\.)"
    r"(?<!Ref\.)(?<!\b[A-Z]\.)\s+(?=[A-Z'\"(]|thing\b)"
)
MARKUP_LEFT = re.compile(r"[{}<>|\\^~$@#=`*\[\]_]|%\(|::|https?:|www\.|\.\.|--|\s[,.;]")


class Sentence(NamedTuple):
    """Masked text, its library, and the qualified name it documents."""

    text: str
    library: str
    source: str


def installed_versions() -> dict[str, str]:
    """Version of each library by its import name; UserError when one is not installed."""
    versions = {}
    for library in LABELS:
        package = {"sklearn": "scikit-learn"}.get(library, library)
        try:
            versions[library] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"{package} is not installed. The data {NAME!r} is made of the docstrings of "
                f"{', '.join(LABELS)}. Install the locked packages."
            ) from None
    return versions


def source_files(library: str) -> list[tuple[str, Path]]:
    """(dotted module name, file) of a library's own modules, in an order no machine changes."""
    spec = importlib.util.find_spec(library)
    if spec is None or spec.origin is None:
        raise UserError(f"The source of {library} was not found. Install the locked packages.")
    root = Path(spec.origin).parent
    files = []
    for file in root.rglob("*.py"):
        parts = file.relative_to(root).parts
        if not SKIPPED_PATHS.intersection(parts):
            module = ".".join((library, *parts)).removesuffix(".py").removesuffix(".__init__")
            files.append((module, file))
    return sorted(files)


def docstrings(tree: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """(qualified name, docstring) of a module and of all that is documented inside it.

    Compiled functions have no docstring in the source: numpy and scipy attach theirs by calls of
    ``add_newdoc``, and pandas keeps shared ones in variables, so both are read as well.
    """
    if isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield name, ast.get_docstring(tree) or ""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from docstrings(node, f"{name}.{node.name}")
        elif isinstance(node, ast.Assign):
            yield from _assigned_docstring(node, name)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _added_docstrings(node.value, name)
        elif isinstance(node, ast.stmt | ast.excepthandler):
            yield from docstrings(node, name)


def _assigned_docstring(node: ast.Assign, name: str) -> Iterator[tuple[str, str]]:
    target = ast.unparse(node.targets[0])
    if "doc" in target and isinstance(node.value, ast.Constant):
        key = re.findall(r"\w+", target)[-1]
        yield f"{name}.{key}", inspect.cleandoc(str(node.value.value))


def _added_docstrings(call: ast.Call, name: str) -> Iterator[tuple[str, str]]:
    if "add_newdoc" not in ast.unparse(call.func):
        return
    strings = [n.value for n in ast.walk(call) if isinstance(n, ast.Constant)]
    words = [str(s) for s in strings if str(s).isidentifier()]
    text = max(map(str, strings), key=len, default="")
    yield ".".join([name, *words]), inspect.cleandoc(text)


def paragraphs(docstring: str) -> Iterator[str]:
    """The prose of a numpydoc docstring: no code, tables, references, nor lines of only types."""
    lines = [*docstring.expandtabs().splitlines(), ""]
    block: list[str] = []
    section, indent, header = "", 0, False
    hidden: int | None = None  # the indent whose inside is a literal or directive
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        text = re.sub(r"^(\s*)(?:[-*+•]|\(?\w[.)])(\s)", r"\1 \2", line)
        depth = len(text) - len(text.lstrip())
        if line.strip() and hidden is not None and len(line) - len(line.lstrip()) <= hidden:
            hidden = None
        underline, header = (
            header,
            re.fullmatch(r"\s*([-=~])\1{2,}\s*", following) is not None and bool(line.strip()),
        )
        prose = _is_prose(line, section) and not (header or underline) and hidden is None
        if block and (not prose or depth != indent or text != line):
            yield from _joined(block)
            block = []
        if prose:
            block.append(text)
            indent = depth
        if header:
            section = line.strip().lower()
        if hidden is None and (line.rstrip().endswith("::") or line.lstrip().startswith(".. ")):
            hidden = len(line) - len(line.lstrip())


def _is_prose(line: str, section: str) -> bool:
    typed = re.match(r"\s*[\w*`'\",. /\\{}()]+ : ", line) is not None
    field = section in FIELD_SECTIONS and not line.startswith(" ")
    directive = line.lstrip().startswith((".. ", ":param", ":return", "@"))
    return bool(line.strip()) and not (section in SKIPPED_SECTIONS or typed or field or directive)


def _joined(block: list[str]) -> Iterator[str]:
    if not any(re.search(r">>>|^\s*[-=+|]{3,}|={4,}|\s\|\s|\S {3,}\S", line) for line in block):
        yield " ".join(line.strip() for line in block)


def _literal(match: re.Match[str]) -> str:
    return match[1] if PLAIN_LITERAL.fullmatch(match[1]) else MASK


def masked(paragraph: str, class_names: frozenset[str]) -> str:
    """The text without markup, every name of code or of a library replaced by ``MASK``."""
    text = re.sub(r"\[\w+\]_|\\ |(?<=\w)\(s\)", "", paragraph)
    text = re.sub(r"(?::\w+)+:`[^`]*`|`[^`]*<[^`]*`__?", MASK, text)
    text = re.sub(r"``?([^`]+)``?_?", _literal, text)
    text = re.sub(r"\*\*?([^*\s][^*]*)\*\*?", r"\1", text)
    text = CODE.sub(MASK, text)
    text = TELLING.sub(MASK, text)
    text = re.sub(r"\b[A-Z]\w*", lambda m: _class_masked(m, class_names), text)
    return re.sub(rf"\b{MASK}(?:[\s,/.-]+{MASK}\b)+", MASK, " ".join(text.split()))


def _class_masked(match: re.Match[str], class_names: frozenset[str]) -> str:
    word, before = match[0], match.string[: match.start()].rstrip("'\"( ")
    # "Apply", "Show" and "Sum" are classes too: as the first word of a sentence they are verbs.
    verb_like = word[1:].islower() and (not before or before[-1] in ".!?:")
    named = word in class_names or word.removesuffix("s") in class_names
    return MASK if named and not verb_like else word


def sentences(paragraph: str, class_names: frozenset[str]) -> Iterator[str]:
    """Masked sentences that read as English, of ``SENTENCE_WORDS`` words."""
    shortest, longest = SENTENCE_WORDS
    for text in SENTENCE_END.split(masked(paragraph, class_names)):
        words = text.split()
        letters = sum(c.isalpha() or c == " " for c in text)
        opening = text[:1].isupper() or text.startswith(MASK)
        clean = text.isascii() and not MARKUP_LEFT.search(text) and letters > 0.85 * len(text)
        named = len(re.findall(rf"\b{MASK}\b", text)) <= 0.25 * len(words)
        length = shortest <= len(words) <= longest
        if length and text.endswith(".") and opening and clean and named:
            yield text


def read_sentences() -> list[Sentence]:
    """Every sentence of the five libraries in reading order, before duplicates are removed."""
    files = [(library, *file) for library in LABELS for file in source_files(library)]
    names = frozenset(n for *_, file in files for n in CLASS.findall(file.read_text("utf-8")))
    return [
        Sentence(text, library, name)
        for library, module, file in tqdm(files, desc="reading docstrings", unit="file")
        for name, docstring in docstrings(ast.parse(file.read_bytes()), module)
        for paragraph in paragraphs(docstring)
        for text in sentences(paragraph, names)
    ]


def normalised(text: str) -> str:
    """What two sentences that say the same have in common: their letters, in lower case."""
    return " ".join(re.findall("[a-z]+", text.lower()))


def distinct(rows: Iterable[Sentence]) -> list[Sentence]:
    """One row per normalised sentence; none of a sentence that two libraries have."""
    first: dict[str, Sentence] = {}
    libraries: dict[str, set[str]] = {}
    for row in rows:
        first.setdefault(normalised(row.text), row)
        libraries.setdefault(normalised(row.text), set()).add(row.library)
    return [row for key, row in first.items() if len(libraries[key]) == 1]


def passages(rows: Iterable[Sentence]) -> list[Sentence]:
    """Sentences on the same name joined, in reading order, just until ``ROW_WORDS`` is reached.

    A short sentence alone often says nothing about its library ("The default is the last one.").
    Joining comes after ``distinct``, so no sentence returns inside another row.
    """
    shortest, longest = ROW_WORDS
    joined: list[Sentence] = []
    for row in rows:
        last = joined[-1] if joined else None
        if last and last.source == row.source and len(last.text.split()) < shortest:
            text = f"{last.text} {row.text}"
            if len(text.split()) <= longest:
                joined[-1] = last._replace(text=text)
                continue
        joined.append(row)
    return [row for row in joined if len(row.text.split()) >= shortest]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(source: str) -> bool:
    """Whether a name is for validation; its last part decides, so ``A.fit`` and ``B.fit`` agree."""
    return int(_digest(source.rpartition(".")[2].strip("_").lower())[:8], 16) % 100 < 15


def shingles(text: str) -> set[tuple[str, ...]]:
    """Every run of ``SHINGLE`` words of the normalised text."""
    words = normalised(text).split()
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def split(rows: list[Sentence], sizes: dict[str, int]) -> dict[str, list[Sentence]]:
    """Equally many rows per library (fewer where there are fewer), shuffled by their hash."""
    rows = sorted(rows, key=lambda row: _digest(f"{row.source}\n{row.text}"))
    outside = [row for row in rows if held_out(row.source)]
    validation = _balanced(outside, sizes["validation"])
    seen = {shingle for row in validation for shingle in shingles(row.text)}
    inside = [r for r in rows if not held_out(r.source) and not seen & shingles(r.text)]
    return {"train": _balanced(inside, sizes["train"]), "validation": validation}


def _balanced(rows: list[Sentence], size: int) -> list[Sentence]:
    libraries = [row.library for row in rows]
    each = min([size // len(LABELS), *(libraries.count(label) for label in LABELS)])
    taken = dict.fromkeys(LABELS, 0)
    kept = []
    for row in rows:
        if taken[row.library] < each:
            taken[row.library] += 1
            kept.append(row)
    return kept


def build() -> datasets.DatasetDict:
    """The task, made anew from the installed libraries. Takes about 20 s on one core."""
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=list(LABELS)),
        source=datasets.Value("string"),
    )
    parts = {}
    for part, rows in split(passages(distinct(read_sentences())), SIZES).items():
        columns = {
            "text": [row.text for row in rows],
            "label": [LABELS.index(row.library) for row in rows],
            "source": [row.source for row in rows],
        }
        parts[part] = datasets.Dataset.from_dict(columns, features=features)
    return datasets.DatasetDict(parts)


def fingerprint(data: datasets.DatasetDict) -> str:
    """sha256 of all rows in their order; the same on every machine for the same rows."""
    rows = {part: data[part].to_dict() for part in sorted(data)}
    return _digest(json.dumps(rows, sort_keys=True))


def docs_library(cache: Path) -> datasets.DatasetDict:
    """Sentences (text), their library (label) and what they document (source).

    Args:
        cache: folder that keeps the task as Arrow files, in a folder of its own inside.

    Raises:
        UserError: a library is not installed.
        ProofError: the locked libraries are installed and gave other rows than they should.
    """
    versions = installed_versions()
    folder = cache / NAME
    data = _stored(folder, versions)
    if data is None:
        _store(build(), folder, versions)
        data = datasets.load_from_disk(str(folder))
    check_fingerprint(fingerprint(data), versions)
    return data


def check_fingerprint(found: str, versions: dict[str, str]) -> None:
    """ProofError for other rows from the same libraries, a warning for other libraries."""
    other = [
        f"{library} {version} (not {EXPECTED_VERSIONS[library]})"
        for library, version in versions.items()
        if version != EXPECTED_VERSIONS[library]
    ]
    if other:
        warnings.warn(
            f"The data {NAME!r} was measured with other libraries: found {', '.join(other)}. "
            "Your figures may differ a little from the printed ones; install the locked "
            "packages to get the same rows.",
            stacklevel=3,
        )
    elif found != EXPECTED_FINGERPRINT:
        mend = "A library's source was changed, or the cache was: reinstall, delete the cache."
        raise ProofError(f"fingerprint of {NAME}", EXPECTED_FINGERPRINT, found, mend)


def _rules() -> str:
    """Hash of this file: rows made by other rules are not taken from a cache."""
    return _digest(Path(__file__).read_text("utf-8"))


def _file_hashes(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != ABOUT)
    return {
        f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
    }


def _stored(folder: Path, versions: dict[str, str]) -> datasets.DatasetDict | None:
    """The cached task, or None where there is none, or a damaged or an outdated one.

    Hashes are compared before Arrow maps the files: a damaged one could crash the process.
    """
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if about != {"versions": versions, "rules": _rules(), "files": _file_hashes(folder)}:
        return None
    return datasets.load_from_disk(str(folder))


def _store(data: datasets.DatasetDict, folder: Path, versions: dict[str, str]) -> None:
    """Write beside the folder, then rename: whoever is stopped half-way leaves no half cache."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{NAME}-", dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        data.save_to_disk(str(new))
        about = {"versions": versions, "rules": _rules(), "files": _file_hashes(new)}
        (new / ABOUT).write_text(json.dumps(about, indent=1), "utf-8")
        if folder.exists():
            os.replace(folder, Path(temporary) / "old")
        os.replace(new, folder)
