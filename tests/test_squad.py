"""Question files: every shape SQuAD comes in, and data that would mislead is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from helpers import squad
from helpers.errors import UserError

CONTEXT = "The tide rises twice a day. The moon pulls the water."


def question(name: str, *texts: str, context: str = CONTEXT, **fields: Any) -> squad.Row:
    """Return a flat row as a hub has them, its answers where they stand."""
    answers = {"text": list(texts), "answer_start": [context.index(text) for text in texts]}
    row = {"id": name, "title": "tides", "context": context, "question": f"What is {name}?"}
    return row | {"answers": answers} | fields


ROWS = [question("a", "twice a day", "twice"), question("b", "The moon")]


def nested(rows: list[squad.Row]) -> dict[str, Any]:
    """Return rows in the shape of SQuAD's own files, with the other fields those have."""
    paragraphs = []
    for row in rows:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        asked = {
            "id": row["id"],
            "question": row["question"],
            "is_impossible": not row["answers"]["text"],
            "plausible_answers": [],
            "answers": [{"text": text, "answer_start": start} for text, start in pairs],
        }
        paragraphs.append({"context": row["context"], "qas": [asked], "document_id": 7})
    return {"version": "v2.0", "data": [{"title": "tides", "paragraphs": paragraphs}]}


def write(file: Path, content: dict | list) -> Path:
    """Write JSON as it is, characters outside of ASCII included."""
    file.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    return file


def read(file: Path, part: squad.Part = "train", **options: Any) -> Dataset:
    """Read one file."""
    return squad.read_questions(file, part, **options)


def refused(tmp_path: Path, rows: list[squad.Row], **options: Any) -> str:
    """Return what is said about rows that must be refused."""
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / "q.json", rows), **options)
    return str(caught.value)


@pytest.mark.parametrize("shape", ["nested", "rows", "data", "lines", "one line", "with a BOM"])
def test_every_shape_gives_the_same_rows(shape: str, tmp_path: Path) -> None:
    expected = ROWS[:1] if shape == "one line" else ROWS
    lines = "\n".join(json.dumps(row) for row in expected) + "\n"
    text = {
        "nested": json.dumps(nested(ROWS)),
        "rows": json.dumps(ROWS),
        "data": json.dumps({"data": ROWS}),
        "with a BOM": "\ufeff" + json.dumps(nested(ROWS)),
    }.get(shape, lines)
    file = tmp_path / "questions.json"
    file.write_text(text, "utf-8")
    found = read(file)
    assert found.column_names == list(squad.COLUMNS)
    assert found.to_list() == expected


def test_a_missing_title_is_empty_and_other_fields_are_ignored(tmp_path: Path) -> None:
    row = question("a", "twice", topic="sea")
    del row["title"]
    assert read(write(tmp_path / "q.json", [row])).to_list() == [question("a", "twice", title="")]


def test_answers_may_be_a_list_of_objects_in_flat_rows_too(tmp_path: Path) -> None:
    row = question("a", "twice") | {"answers": [{"text": "twice", "answer_start": 15}]}
    assert read(write(tmp_path / "q.json", [row])).to_list() == [question("a", "twice")]


def test_several_files_are_joined_in_order(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{row['id']}.json", nested([row])) for row in ROWS]
    assert squad.read_questions(files, "train")["id"] == ["a", "b"]


def test_characters_are_counted_not_bytes(tmp_path: Path) -> None:
    context = "Zürich 🌊 naïve\u2028tide"
    rows = [question("a", "naïve", "tide", context=context)]
    assert rows[0]["answers"]["answer_start"] == [9, 15]
    lines = tmp_path / "q.jsonl"
    lines.write_text(json.dumps(rows[0], ensure_ascii=False) + "\n" * 3, "utf-8")
    for file in (write(tmp_path / "q.json", nested(rows)), lines):
        assert read(file).to_list() == rows


def test_the_same_id_twice_is_refused_because_predictions_are_kept_by_id(tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", nested(ROWS))
    with pytest.raises(UserError, match=r"2 ids of train .* \(first: a\).*give each file once"):
        squad.read_questions([file, file], "train")


def test_misplaced_answers_are_counted_and_three_are_shown(tmp_path: Path) -> None:
    rows = [question(f"q{i}", "twice") for i in range(5)]
    for row in rows[:4]:
        row["answers"]["answer_start"] = [16]
    said = refused(tmp_path, rows)
    assert "4 of 5 train answers" in said and "--on_bad_answers drop" in said
    assert said.count("'twice' at 16") == 3 and "(there: 'wice ')" in said


def test_a_mistake_that_annotators_share_is_shown_once(tmp_path: Path) -> None:
    rows = [question("a", "twice", "twice", "twice"), question("b", "twice")]
    rows[0]["answers"]["answer_start"] = [16, 16, 16]
    rows[1]["answers"]["answer_start"] = [17]
    said = refused(tmp_path, rows)
    assert "4 of 4 train answers" in said
    assert said.count("'twice' at 16") == 1 and said.count("'twice' at 17") == 1


@pytest.mark.parametrize("start", [-3, 10_000])
def test_an_answer_outside_of_the_context_is_misplaced(start: int, tmp_path: Path) -> None:
    # From the end, -3 would even find "er.".
    row = question("a", "er.") | {"answers": {"text": ["er."], "answer_start": [start]}}
    assert f"at {start} of a" in refused(tmp_path, [row])


def test_dropping_bad_answers_keeps_the_good_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, bad, good = question("half", "day", "twice"), question("bad", "day"), ROWS[1]
    half["answers"]["answer_start"][0] = 0
    bad["answers"]["answer_start"][0] = 0
    file = write(tmp_path / "q.json", [half, bad, good])
    assert read(file, on_bad_answers="drop").to_list() == [question("half", "twice"), good]
    assert "2 of 4 train answers" in (said := capsys.readouterr().out)
    assert "1 questions with them" in said
    assert read(file, "validation", on_bad_answers="drop")["id"] == ["half", "bad", "b"]
    assert "scored by their text" in capsys.readouterr().out


def test_another_word_for_bad_answers_is_refused(tmp_path: Path) -> None:
    assert "expected stop or drop" in refused(tmp_path, ROWS, on_bad_answers="keep")


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    row = question("a", "twice") | {"answers": {"text": ["twice"], "answer_start": [3]}}
    assert "no train questions" in refused(tmp_path, [row], on_bad_answers="drop")


@pytest.mark.parametrize(
    "answers",
    [[], [{"text": " ", "answer_start": 0}], [{"text": "", "answer_start": None}]],
)
def test_a_question_without_an_answer_needs_the_flag(answers: list, tmp_path: Path) -> None:
    rows = [ROWS[0], question("none", answers=answers)]
    said = refused(tmp_path, rows)
    assert "1 of 2 train questions have no answer (first: none)" in said
    assert "--version_2_with_negative" in said
    found = read(write(tmp_path / "q.json", rows), version_2_with_negative=True)
    assert found["answers"][1] == {"text": [], "answer_start": []}


@pytest.mark.parametrize("column", ["context", "question"])
def test_empty_texts_are_counted(column: str, tmp_path: Path) -> None:
    rows = [ROWS[0], question("x", **{column: " \n"}), question("y", **{column: ""})]
    assert f"2 of 3 train questions have an empty {column} (first: x)" in refused(tmp_path, rows)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no questions"),
        ("  \n", "holds no questions"),
        ("[]", "holds no questions"),
        ('{"data": []}', "holds no questions"),
        ('{"data": [{"title": "x", "paragraphs": []}]}', "holds no questions"),
        ('{"data": [', "not readable as JSON"),
        ("id,question\n1,what", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"data": 3}', "another shape"),
        ('"text"', "another shape"),
        ("[1, 2]", "another shape"),
        ('["an idle text"]', "another shape"),
        ('[["id"]]', "another shape"),
        ('{"rows": []}', "no field 'answers'"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": 1}]}]}]}', "no field 'context'"),
        ('{"data": [{"paragraphs": {"qas": 1}}]}', "another shape"),
        ('[{"id": 1, "question": "q", "context": "c", "answers": null}]', "another shape"),
        ('[{"id": 1, "question": "q", "context": "c", "answers": "c"}]', "answers are 'c'"),
        ('[{"id": 1, "question": "q", "context": 5, "answers": []}]', "5 is not a text"),
        (
            '[{"id": 1, "question": "q", "context": "c", '
            '"answers": {"text": ["c"], "answer_start": []}}]',
            "question 1 has another shape (1 texts of answers, 0 times answer_start",
        ),
        (
            '[{"id": 1, "question": "q", "context": "c", '
            '"answers": {"text": ["c"], "answer_start": ["0"]}}]',
            "question 1 has another shape (answer_start '0' is not a whole number",
        ),
        ('[{"id": 1, "question": "q", "context": "\\ud83c", "answers": []}]', "surrogates"),
    ],
)
def test_other_files_are_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.json"
    file.write_text(content, "utf-8")
    with pytest.raises(UserError) as caught:
        read(file, version_2_with_negative=True)
    assert said in str(caught.value) and "questions.json" in str(caught.value)
    assert str(caught.value).count("\n") < 2


def test_bytes_that_are_no_utf8_and_missing_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "q.json"
    file.write_bytes(json.dumps(ROWS).encode("utf-16"))
    with pytest.raises(UserError, match="not readable as JSON in UTF-8"):
        read(file)
    with pytest.raises(UserError, match="no data file"):
        read(tmp_path / "none.json")


def test_a_hub_split_is_brought_to_the_same_columns() -> None:
    split = Dataset.from_list([row | {"topic": "sea"} for row in ROWS])
    assert squad.from_hub_rows(split, "train", "hub/set").to_list() == ROWS
    with pytest.raises(UserError, match="hub/set has no column context, answers, but id"):
        squad.from_hub_rows(split.select_columns(["id", "question"]), "train", "hub/set")
