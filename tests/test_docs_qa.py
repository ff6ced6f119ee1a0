"""The embedded questions: answers stand where they say, no function twice, always the same rows."""

import re
from collections import Counter
from pathlib import Path

import pytest
from datasets import DatasetDict
from transformers import AutoTokenizer

from helpers import answers, corpus, docs_qa, squad
from helpers.errors import ProofError
from helpers.question_answering import QuestionAnswering, load_question_answering

DOCSTRING = """Do a thing.

Parameters
----------
x, y : array_like
    The data.
method : {'fast', "exact"}, optional
    How it is done. Default is ``'fast'``.

    .. versionadded:: 1.2
       Default is 'slow' here.
limits : (float, float), default=None
    Limits [1]_ of :class:`~pkg.Thing`. If None (default) there are *no* limits.
color : color, default: :rc:`lines.color`
    The color.
size : int or None
    By default 2. The default is 3 for large data.
scale : float, default: 2 * pi
    Default is 1/n.
kind : %(kind)s
    A template.
values : {'a',
          'b'}
    A type that goes on.
*args : Foo or Bar
    Handed on::

        default=5

Returns
-------
out : float, default: 7
    No parameter.

Other Parameters
----------------
alpha : float, default 1e-3
    Step.
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("questions")


@pytest.fixture(scope="module")
def data(cache: Path) -> DatasetDict:
    return docs_qa.docs_qa(cache)


@pytest.fixture
def small_build(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """``build`` reads one docstring; the list tells how often it ran."""
    calls: list[str] = []

    def build() -> DatasetDict:
        calls.append("build")
        rows = [docs_qa.row(q) for q in docs_qa.questions("pkg.mod.do", DOCSTRING)]
        return DatasetDict(
            train=squad.checked(rows, "train"), validation=squad.checked(rows[:3], "validation")
        )

    monkeypatch.setattr(docs_qa, "EXPECTED_FINGERPRINT", corpus.fingerprint(build()))
    monkeypatch.setattr(docs_qa, "build", build)
    monkeypatch.setattr(corpus, "EXPECTED_VERSIONS", corpus.installed_versions())
    calls.clear()
    return calls


def test_what_is_asked_about_a_docstring() -> None:
    found = {
        (question.entry.name, question.kind): question.answers
        for question in docs_qa.questions("pkg.mod.Thing.do", DOCSTRING)
    }
    assert found == {
        ("method", "choices"): ("'fast', \"exact\"",),
        ("method", "default"): ("'fast'",),
        ("limits", "type"): ("(float, float)",),
        ("limits", "default"): ("None", "None"),
        ("color", "type"): ("color",),
        ("color", "default"): ('rcParams["lines.color"]',),
        ("size", "type"): ("int or None",),
        ("scale", "type"): ("float",),
        ("*args", "type"): ("Foo or Bar",),
        ("alpha", "type"): ("float",),
        ("alpha", "default"): ("1e-3",),
    }


def test_a_context_is_the_docstring_without_its_marks() -> None:
    question = next(q for q in docs_qa.questions("pkg.mod.do", DOCSTRING))
    lines = question.context.split("\n")
    assert lines[:5] == [
        "x, y : array_like",
        "The data.",
        "method : {'fast', \"exact\"}, optional",
        "How it is done. Default is 'fast'.",
        "limits : (float, float), default=None",
    ]
    assert lines[5] == "Limits of Thing. If None (default) there are no limits."
    assert lines[-2:] == ["*args : Foo or Bar", "Handed on"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pkg.mod.do", "do"),
        ("pkg.mod.Thing", "Thing"),
        ("pkg.mod.Thing.do", "Thing.do"),
        ("pkg.mod.Thing.__init__", "Thing"),
        ("do", "do"),
    ],
)
def test_functions_are_called_as_a_person_does(source: str, name: str) -> None:
    assert docs_qa.called(source) == name


def test_sizes_columns_and_places(data: DatasetDict) -> None:
    assert {part: len(rows) for part, rows in data.items()} == docs_qa.SIZES
    assert docs_qa.SIZES["train"] >= 6000 and docs_qa.SIZES["validation"] >= 1000
    for rows in data.values():
        assert rows.column_names == list(squad.COLUMNS)
        for row in rows:
            assert row["answers"]["text"] and not list(squad.misplaced(row))
            assert row["question"].endswith("?")


def test_the_fingerprint_is_the_expected_one(data: DatasetDict) -> None:
    if corpus.installed_versions() != corpus.EXPECTED_VERSIONS:
        pytest.skip("other library versions than the locked ones")
    assert corpus.fingerprint(data) == docs_qa.EXPECTED_FINGERPRINT


def test_contexts_are_plain_and_of_sensible_length(data: DatasetDict) -> None:
    for rows in data.values():
        for context in rows["context"]:
            assert 3 <= len(context.split()) <= docs_qa.CONTEXT_WORDS
            assert not re.search(r">>>|::$|:\w+:`|``|^\s*\.\. ", context, re.MULTILINE), context


def test_no_function_and_no_context_is_on_both_sides(data: DatasetDict) -> None:
    for column in ("title", "context", "id"):
        assert not set(data["train"][column]) & set(data["validation"][column])


def test_no_parameter_described_in_the_same_words_is_asked_about_twice() -> None:
    questions = list(docs_qa.questions("pkg.mod.do", DOCSTRING))
    again = list(docs_qa.questions("pkg.other.copy_of_do", DOCSTRING))
    assert docs_qa.distinct([*questions, *again]) == questions


def test_questions_are_of_all_kinds_and_answers_vary(data: DatasetDict) -> None:
    validation = data["validation"]
    shares = Counter(
        "default" if "default" in q else "type" if "type" in q else "choices"
        for q in validation["question"]
    )
    assert min(shares.values()) > 50 and len(shares) == 3
    most_common = Counter(row["text"][0] for row in validation["answers"]).most_common(1)[0][1]
    assert most_common < 0.15 * len(validation)


def test_guessing_without_the_question_scores_low(data: DatasetDict) -> None:
    """A model that reads no question: the type that the first line of the context states."""
    validation = data["validation"]
    texts = {
        row["id"]: docs_qa.NOT_TYPE.sub("", row["context"].split("\n")[0].split(" : ", 1)[1])
        for row in validation
    }
    golds = {row["id"]: row["answers"]["text"] for row in validation}
    assert answers.score(texts, golds)["exact_match"] < 0.45


def test_answers_fit_into_the_longest_answer_of_the_task(
    data: DatasetDict, tiny_model: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    texts = [text for row in data["validation"]["answers"] for text in row["text"]]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    too_long = sum(length > QuestionAnswering.max_answer_length for length in lengths)
    assert too_long <= len(texts) // 200


def test_other_rows_from_the_same_libraries_are_refused(
    cache: Path, small_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs_qa, "EXPECTED_FINGERPRINT", "0" * 64)
    with pytest.raises(ProofError, match="docs-qa"):
        docs_qa.docs_qa(cache / "refused")


def test_other_libraries_are_a_warning(
    tmp_path: Path, small_build: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**corpus.installed_versions(), "numpy": "9.9"}
    monkeypatch.setattr(corpus, "EXPECTED_VERSIONS", other)
    monkeypatch.setattr(docs_qa, "EXPECTED_FINGERPRINT", "0" * 64)
    with pytest.warns(UserWarning, match="docs-qa.*9.9"):
        docs_qa.docs_qa(tmp_path)


def test_rows_are_built_once_and_a_damaged_cache_is_built_anew(
    tmp_path: Path, small_build: list[str]
) -> None:
    first = docs_qa.docs_qa(tmp_path)
    # Work on the rows must leave nothing in the cache that looks like damage.
    first["train"].map(lambda row: {"more": row["id"]})
    assert docs_qa.docs_qa(tmp_path)["train"].to_list() == first["train"].to_list()
    assert len(small_build) == 1
    file = next((tmp_path / docs_qa.NAME).rglob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-100])
    assert docs_qa.docs_qa(tmp_path)["train"].to_list() == first["train"].to_list()
    assert len(small_build) == 2


def test_it_is_the_default_of_question_answering(
    small_build: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path))
    task = load_question_answering()
    assert task.name == "docs-qa" and small_build == ["build"]
    assert len(task.validation) == 3
