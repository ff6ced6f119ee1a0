"""The embedded data keeps its promises: masked, split by name, repeatable, and safe to cache."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from helpers import corpus, docstrings
from helpers.errors import ProofError, UserError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def data(cache: Path) -> datasets.DatasetDict:
    return corpus.docs_library(cache)


def tiny(text: str = "A row of the small set.") -> datasets.DatasetDict:
    rows = datasets.Dataset.from_dict({"text": [text], "label": [0], "source": ["numpy.a"]})
    return datasets.DatasetDict(train=rows, validation=rows)


@pytest.fixture
def small_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``build`` gives one row; the list tells how often it ran."""
    calls: list[str] = []

    def build() -> datasets.DatasetDict:
        calls.append("build")
        return tiny()

    monkeypatch.setattr(corpus, "build", build)
    monkeypatch.setattr(corpus, "EXPECTED_FINGERPRINT", corpus.fingerprint(tiny()))
    monkeypatch.setattr(corpus, "EXPECTED_VERSIONS", corpus.installed_versions())
    return calls


def test_sizes_columns_and_balance(data: datasets.DatasetDict) -> None:
    assert {part: len(rows) for part, rows in data.items()} == corpus.SIZES
    for rows in data.values():
        assert rows.column_names == ["text", "label", "source"]
        assert rows.features["label"].names == list(docstrings.LABELS)
        assert set(Counter(rows["label"]).values()) == {len(rows) // 5}


def test_rows_are_english_of_the_stated_length(data: datasets.DatasetDict) -> None:
    for text in data["train"]["text"] + data["validation"]["text"]:
        assert corpus.ROW_WORDS[0] <= len(text.split()) <= corpus.ROW_WORDS[1]
        assert text.isascii() and text.endswith(".")
        assert not re.search(r">>>|::|``|:\w+:`|\w_\w|https?:", text), text


def test_no_name_of_a_library_is_left(data: datasets.DatasetDict) -> None:
    names = r"numpy|scipy|pandas|sklearn|scikits?|matplotlib|mpl|plt|np|pd|pyplot|pylab"
    telling = re.compile(
        rf"\b({names}|dataframes?|ndarrays?|axes|figures?|estimators?|ufuncs?)\b", re.IGNORECASE
    )
    for text in data["train"]["text"] + data["validation"]["text"]:
        assert not telling.search(text), text


def test_no_class_name_is_left(data: datasets.DatasetDict) -> None:
    files = [file for library in docstrings.LABELS for _, file in docstrings.source_files(library)]
    classes = {n for file in files for n in docstrings.CLASS.findall(file.read_text("utf-8"))}
    assert {"DataFrame", "Axes", "PCA", "KMeans"} <= classes
    for text in data["train"]["text"] + data["validation"]["text"]:
        # The first word of a sentence may be a verb that is a class too: "Apply", "Show".
        inner = re.findall(r"(?<=[a-z,] )[A-Z]\w+", text)
        assert not classes.intersection(inner), text


def test_the_masks_alone_tell_nothing(data: datasets.DatasetDict) -> None:
    def masks(rows: datasets.Dataset) -> list[int]:
        return [len(re.findall(rf"\b{docstrings.MASK}\b", text)) for text in rows["text"]]

    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for count, label in zip(masks(data["train"]), data["train"]["label"], strict=True):
        seen[count][label] += 1
    guesses = [seen[n].most_common(1)[0][0] if seen[n] else 0 for n in masks(data["validation"])]
    assert np.mean(np.array(guesses) == data["validation"]["label"]) < 0.30


def test_no_function_is_on_both_sides(data: datasets.DatasetDict) -> None:
    train, validation = (set(data[part]["source"]) for part in ("train", "validation"))
    assert not train & validation


def test_no_sentence_is_there_twice(data: datasets.DatasetDict) -> None:
    texts = data["train"]["text"] + data["validation"]["text"]
    said = [corpus.normalised(s) for text in texts for s in docstrings.SENTENCE_END.split(text)]
    assert len({corpus.normalised(text) for text in texts}) == len(texts)
    # A full stop inside a sentence ("i.e. Foo") makes pieces that are no sentences of ours.
    long = [sentence for sentence in said if len(sentence.split()) >= corpus.SHINGLE]
    assert len(long) - len(set(long)) <= len(long) // 1000


def test_no_long_phrase_is_on_both_sides(data: datasets.DatasetDict) -> None:
    validation = {s for text in data["validation"]["text"] for s in corpus.shingles(text)}
    assert not any(validation & corpus.shingles(text) for text in data["train"]["text"])


def test_a_bag_of_words_learns_it_but_not_too_well(data: datasets.DatasetDict) -> None:
    """Well over the 0.2 of chance, and well under what a leaked name would give."""
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2)
    model = LogisticRegression(C=5, max_iter=200)
    model.fit(vectors.fit_transform(data["train"]["text"]), data["train"]["label"])
    accuracy = model.score(
        vectors.transform(data["validation"]["text"]), data["validation"]["label"]
    )
    assert 0.60 < accuracy < 0.85


def test_the_fingerprint_is_the_expected_one(data: datasets.DatasetDict) -> None:
    if corpus.installed_versions() != corpus.EXPECTED_VERSIONS:
        pytest.skip("other library versions than the locked ones")
    assert corpus.fingerprint(data) == corpus.EXPECTED_FINGERPRINT


def test_building_twice_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(library: str) -> list[tuple[str, Path]]:
        return found(library)[:40]

    found = docstrings.source_files
    monkeypatch.setattr(docstrings, "source_files", read)
    for name in ("one", "two"):
        corpus.build().save_to_disk(str(tmp_path / name))
    one, two = (sorted((tmp_path / name).rglob("*.arrow")) for name in ("one", "two"))
    assert one and [f.read_bytes() for f in one] == [f.read_bytes() for f in two]


def test_a_sentence_of_two_libraries_is_dropped() -> None:
    rows = [
        corpus.Sentence("The same 1 thing.", "numpy", "numpy.a"),
        corpus.Sentence("the same 2 thing", "scipy", "scipy.b"),
        corpus.Sentence("Only here.", "numpy", "numpy.a"),
        corpus.Sentence("Only here!", "numpy", "numpy.c"),
    ]
    assert corpus.distinct(rows) == [rows[2]]


def test_only_prose_is_read() -> None:
    source = '''
def f(x):
    """Fit the curve `x` of :class:`~numpy.ndarray` values.

    Parameters
    ----------
    x : int or None
        The number of points that the curve has.

    Notes
    -----
    A second note follows here::

        code = here

    >>> f(1)
    A printed line that is no prose.

    See Also
    --------
    g : Another function of this kind.
    """
'''
    [(name, text)] = [pair for pair in docstrings.docstrings(ast.parse(source), "m") if pair[1]]
    blocks = list(docstrings.paragraphs(text))
    assert name == "m.f"
    assert blocks == [
        "Fit the curve `x` of :class:`~numpy.ndarray` values.",
        "The number of points that the curve has.",
        "A second note follows here::",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A pandas DataFrame of ``np.sum(x)`` values.", "A thing of thing values."),
        ("Apply the KMeans and PCA to the Axes.", "Apply the thing and thing to the thing."),
        ("Use scikit-learn estimators, or set `copy` to False.", None),
        ("The rolling Series' window_size is 3.", "The rolling thing' window size is 3."),
    ],
)
def test_names_are_masked(text: str, expected: str | None) -> None:
    classes = frozenset({"DataFrame", "KMeans", "PCA", "Axes", "Apply"})
    assert docstrings.masked(text, classes) == (expected or "Use thing, or set copy to False.")


def test_the_cache_is_used_and_leaves_nothing_beside_it(
    tmp_path: Path, small_build: list[str]
) -> None:
    first = corpus.docs_library(tmp_path)
    derived = first["train"].filter(lambda row: bool(row["text"]), load_from_cache_file=True)
    assert len(derived) and list(tmp_path.rglob("cache-*.arrow")), "kept beside the rows"
    second = corpus.docs_library(tmp_path)
    assert small_build == ["build"]
    assert first["train"].to_dict() == second["train"].to_dict()
    assert [f.name for f in tmp_path.iterdir()] == [corpus.NAME]


def _flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("damage", [_flip_a_byte, _cut_short, Path.unlink])
@pytest.mark.parametrize("pattern", ["train/*.arrow", "validation/state.json", corpus.ABOUT])
def test_a_damaged_cache_is_built_again(
    tmp_path: Path, small_build: list[str], damage: object, pattern: str
) -> None:
    corpus.docs_library(tmp_path)
    [file] = (tmp_path / corpus.NAME).glob(pattern)
    damage(file)
    assert corpus.docs_library(tmp_path)["train"].to_dict() == tiny()["train"].to_dict()
    assert small_build == ["build", "build"]


def test_a_cache_of_other_versions_is_built_again(
    tmp_path: Path, small_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.docs_library(tmp_path)
    other = corpus.installed_versions() | {"numpy": "0.0"}
    monkeypatch.setattr(corpus, "installed_versions", lambda: other)
    with pytest.warns(UserWarning, match="numpy 0.0"):
        corpus.docs_library(tmp_path)
    assert small_build == ["build", "build"]


def test_a_stopped_write_leaves_no_cache(
    tmp_path: Path, small_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        corpus.docs_library(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_rows_from_the_locked_libraries_are_an_error(
    tmp_path: Path, small_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "build", lambda: tiny("An altered row."))
    with pytest.raises(ProofError, match="fingerprint"):
        corpus.docs_library(tmp_path)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LABELS", (*docstrings.LABELS, "no-such-library"))
    with pytest.raises(UserError, match="no-such-library is not installed"):
        corpus.installed_versions()
