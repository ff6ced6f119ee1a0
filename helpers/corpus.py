"""The embedded data: a text-classification task that needs no network and no account.

Why: the tutorial must run anywhere, on real English. The docstrings of five scientific libraries
are installed beside it, so the question is "which library does this sentence describe?".

How: `docstrings.py` reads masked sentences. Repeated ones are removed, neighbours joined into a
row, and the rows split by documented function. The same library versions always give the
same rows, and that is checked.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets

from helpers import docstrings, environment
from helpers.docstrings import LABELS, Sentence, read_sentences
from helpers.errors import ProofError, UserError

NAME = "docs-library"
SIZES = {"train": 6_000, "validation": 1_000}
ABOUT = "about.json"
DERIVED = ("cache-", "tmp")
ROW_WORDS = (30, 70)  # fewest and most
SHINGLE = 8  # words in a row that no training sentence may share with a validation function

# Other versions have other docstrings, so the fingerprint only holds for these.
EXPECTED_VERSIONS = {
    "matplotlib": "3.11.2",
    "numpy": "1.26.4",
    "pandas": "2.2.3",
    "scipy": "1.17.1",
    "sklearn": "1.9.1",
}
EXPECTED_FINGERPRINT = "8785b7f0ad634c2ca6d454dc17ea06cc024042b61f03a4c34c1391892c4fe8a2"


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


def digest(text: str) -> str:
    """Return the sha256 of a text in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def held_out(source: str) -> bool:
    """Whether a documented function is for validation; its qualified name decides."""
    return int(digest(source.lower())[:8], 16) % 100 < 15


def shingles(text: str) -> set[tuple[str, ...]]:
    """Every run of ``SHINGLE`` words of the normalised text."""
    words = normalised(text).split()
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def split(rows: list[Sentence], sizes: dict[str, int]) -> dict[str, list[Sentence]]:
    """Equally many rows per library (fewer where there are fewer), shuffled by their hash."""
    rows = sorted(rows, key=lambda row: digest(f"{row.source}\n{row.text}"))
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
    return digest(json.dumps(rows, sort_keys=True))


def docs_library(cache: Path) -> datasets.DatasetDict:
    """Sentences (text), their library (label) and what they document (source).

    Args:
        cache: folder that keeps the task as Arrow files, in a folder of its own inside.

    Raises:
        UserError: a library is not installed.
        ProofError: the locked libraries are installed and gave other rows than they should.
    """
    versions = installed_versions()
    data = cached(cache / NAME, versions, build)
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
    """Hash of the code: rows made by other rules are not taken from a cache."""
    files = (Path(__file__), Path(docstrings.__file__))
    return digest("".join(file.read_text("utf-8") for file in files))


def _file_hashes(folder: Path) -> dict[str, str]:
    # What `datasets` derives from the rows it puts beside them; that is no damage.
    files = sorted(
        f
        for f in folder.rglob("*")
        if f.is_file() and f.name != ABOUT and not f.name.startswith(DERIVED)
    )
    return {
        f.relative_to(folder).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
    }


def cached(
    folder: Path, versions: dict[str, str], build: Callable[[], datasets.DatasetDict]
) -> datasets.DatasetDict:
    """The task from its cache; built and put there where there is none."""
    data = stored(folder, versions)
    if data is not None:
        return data
    environment.check_writable(folder.parent)
    store(build(), folder, versions)
    return datasets.load_from_disk(str(folder))


def stored(folder: Path, versions: dict[str, str]) -> datasets.DatasetDict | None:
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


def store(data: datasets.DatasetDict, folder: Path, versions: dict[str, str]) -> None:
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
