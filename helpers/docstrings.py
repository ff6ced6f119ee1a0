"""Prose out of docstrings: sentences with every name of code or of a library masked.

Why: an installed docstring is real English, but it is full of names that would give its library
away, and of code, tables and cross-references that are no prose.

How: source files are parsed, never imported. What is left after cutting and masking is kept only
if it reads as a sentence.
"""

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from helpers.errors import UserError

LABELS = ("matplotlib", "numpy", "pandas", "scipy", "sklearn")
MASK = "thing"
SENTENCE_WORDS = (5, 60)  # fewest and most

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
    | \b_\w*|\w*[A-Z0-9]\w*_\w*|\w+_\b                   # _private, CONST_ANT, name_
    | \b(?!NaNs?\b|LaTeX\b)\w*[a-z][A-Z]\w*              # innerCapitals
    """,
    re.VERBOSE,
)
CLASS = re.compile(r"^\s*class _*([A-Z]\w*)\s*[(:]", re.MULTILINE)
# A parameter such as `sample_weight` is read as words: it says what is meant, not by whom.
SNAKE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
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
    plain = PLAIN_LITERAL.fullmatch(match[1]) or SNAKE.fullmatch(match[1])
    return match[1] if plain else MASK


def masked(paragraph: str, class_names: frozenset[str]) -> str:
    """The text without markup, every name of code or of a library replaced by ``MASK``."""
    text = re.sub(r"\[\w+\]_|\\ |(?<=\w)\(s\)", "", paragraph)
    text = re.sub(r"(?::\w+)+:`[^`]*`|`[^`]*<[^`]*`__?", MASK, text)
    text = re.sub(r"``?([^`]+)``?_?", _literal, text)
    text = SNAKE.sub(lambda m: m[0].replace("_", " "), text)
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
