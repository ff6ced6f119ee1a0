"""Tasks: rows from files of every kind, and data that would mislead is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from helpers import fine_tune, labels, load_task, tasks, tiers
from helpers.catalogue import KNOWN
from helpers.errors import UserError
from helpers.models import load_tokenizer
from helpers.tasks import Task
from helpers.text_tasks import MultiLabel, Regression
from helpers.token_tasks import load_token_classification

ROWS = [("a good film", "good"), ("a bad film", "bad"), ('a "fine" film', "good")]


def write(file: Path, rows: list[tuple], columns: tuple[str, str] = ("text", "label")) -> Path:
    """Write rows in the format the file's name asks for."""
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    if file.suffix == ".json":
        content = json.dumps(objects)
    elif file.suffix == ".jsonl":
        content = "".join(json.dumps(row) + "\n" for row in objects)
    else:
        mark, quote = (",", '"') if file.suffix == ".csv" else ("\t", "")
        cells = [[f"{quote}{t}{quote}" if quote else t, str(v)] for t, v in quoted(rows, quote)]
        content = "".join(mark.join(line) + "\n" for line in [list(columns), *cells])
    file.write_text(content, encoding="utf-8")
    return file


def quoted(rows: list[tuple], quote: str) -> list[tuple]:
    """Double the quotation marks inside a csv's texts."""
    return [(text.replace('"', '""') if quote else text, label) for text, label in rows]


def load(folder: Path, rows: list[tuple] = ROWS, **options: object) -> Task:
    """Load a task whose train and validation files hold the same rows."""
    file = write(folder / "data.csv", rows)
    return load_task("mine", train_file=file, validation_file=file, **options)


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_every_kind_of_file_gives_the_same_task(kind: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"data.{kind}", ROWS)
    task = load_task("mine", train_file=file, validation_file=file)
    assert task.labels == ["bad", "good"]
    assert list(zip(task.train["text"], task.train["label"], strict=True)) == [
        (text, ["bad", "good"].index(label)) for text, label in ROWS
    ]
    assert task.fingerprint == load(tmp_path).fingerprint


def test_numeric_labels_keep_the_order_of_their_numbers(tmp_path: Path) -> None:
    task = load(tmp_path, [("a", 10), ("b", 9), ("c", 0)])
    assert task.labels == ["0", "9", "10"]
    assert task.train["label"] == [2, 1, 0]


def test_whole_floats_are_no_classes(tmp_path: Path) -> None:
    """They may be scores, or numbers of classes that a gap turned into floats: better ask."""
    with pytest.raises(UserError, match="2 different fractions.*problem_type regression"):
        load(tmp_path, [("a", 0.0), ("b", 1.0)])


def test_fractions_are_scores(tmp_path: Path) -> None:
    task = load(tmp_path, [("a", 0.5), ("b", 1.0)])
    assert (type(task), task.labels, task.train["label"]) == (Regression, ["label"], [0.5, 1.0])
    whole = load(tmp_path, [("a", 0.0), ("b", 1.0)], problem_type="regression")
    assert (type(whole), whole.train["label"]) == (Regression, [0.0, 1.0])


@pytest.mark.parametrize("pair", [("sentence1", "sentence2"), ("premise", "hypothesis")])
def test_pairs_are_found_by_their_usual_names(pair: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(f"{pair[0]},{pair[1]},label\none,two,yes\nthree,four,no\n")
    task = load_task("mine", train_file=file, validation_file=file)
    assert task.train["text"] == ["one", "three"]
    assert task.train["text_pair"] == ["two", "four"]
    alone = load_task("mine", train_file=file, validation_file=file, text_column=pair[0])
    assert "text_pair" not in alone.train.column_names


def test_a_pair_is_one_input_with_two_segments(tmp_path: Path, tiny_model: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("mine,yours,label\none,two three,1\nfour,five,0\n")
    names = {"text_column": "mine", "text_pair_column": "yours"}
    task = load_task("p", train_file=file, validation_file=file, max_seq_length=16, **names)
    row = task.encode(load_tokenizer(tiny_model), task.train)[0]
    assert row["token_type_ids"] == [0, 0, 0, 1, 1, 1]


def test_several_labels_in_a_cell_or_a_list(tmp_path: Path) -> None:
    cells = tmp_path / "cells.csv"
    cells.write_text('text,label\na,"2,10"\nb,2\nc,\n')
    lists = tmp_path / "lists.jsonl"
    rows = ({"text": t, "label": v} for t, v in (("a", [2, 10]), ("b", [2]), ("c", [])))
    lists.write_text("\n".join(json.dumps(row) for row in rows))
    kind = "multi_label_classification"
    for file, asked in ((cells, {"problem_type": kind}), (lists, {})):
        task = load_task("mine", train_file=file, validation_file=file, **asked)
        assert (type(task), task.labels) == (MultiLabel, ["2", "10"])
        assert task.train["label"] == [[0, 1], [0], []]


@pytest.mark.parametrize("gap", [None, [2, None], ["a", ""], [None]])
def test_a_gap_among_several_labels_is_no_class(gap: object, tmp_path: Path) -> None:
    word = "a" if isinstance(gap, list) and "a" in gap else 2
    good, bad = [("x", [word]), ("y", [10 if word == 2 else "b"]), ("z", [])], ("w", gap)
    whole = write(tmp_path / "whole.json", good)
    broken = write(tmp_path / "broken.jsonl", [*good, bad])
    for train, validation, where in ((broken, whole, "train"), (whole, broken, "validation")):
        with pytest.raises(UserError, match=f"1 {where} rows have no 'label'.*row 4.*empty list"):
            load_task("mine", train_file=train, validation_file=validation)
    task = load_task("mine", train_file=whole, validation_file=whole)
    assert task.train["label"] == [[0], [1], []]


@pytest.mark.parametrize("kind", ["single_label_classification", "regression"])
def test_lists_are_no_single_labels(kind: str, tmp_path: Path) -> None:
    file = write(tmp_path / "lists.json", [("a", [1]), ("b", [2, 3])])
    message = f"train row 1 has .1. as 'label'; {kind} expects one.*multi_label_classification"
    with pytest.raises(UserError, match=message) as caught:
        load_task("mine", train_file=file, validation_file=file, problem_type=kind)
    assert len(str(caught.value).splitlines()) <= 2
    objects = write(tmp_path / "objects.json", [("a", {"is": 1}), ("b", {"is": 2})])
    with pytest.raises(UserError, match="expects one value a row"):
        load_task("mine", train_file=objects, validation_file=objects, problem_type=kind)


def test_scores_that_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 'high', which is no number"):
        load(tmp_path, [("a", 0.5), ("b", "high")], problem_type="regression")
    with pytest.raises(UserError, match="problem_type 'ranking': expected one of"):
        load(tmp_path, problem_type="ranking")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_sets_load_from_the_local_folder(name: str) -> None:
    known = KNOWN[name]
    if known.home is None:
        pytest.skip("TUTORIAL_DATA_DIR names no folder with this set")
    task = load_task(name, tier=tiers.TIERS["smoke"])
    kind = {"regression": Regression, "multi_label_classification": MultiLabel}
    assert type(task) is kind.get(known.problem_type, tasks.Task)
    assert (len(task.train), len(task.validation)) == (160, 200)
    if name == "go_emotions":
        assert (len(task.labels), task.labels[0], task.labels[-1]) == (28, "admiration", "neutral")


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1001 different values; a classification takes up to 1000"):
        load(tmp_path, [(f"t{i}", i) for i in range(1001)])


@pytest.mark.parametrize(
    "columns", [("sentence", "label"), ("review", "sentiment"), ("question", "intent")]
)
def test_usual_column_names_are_found(columns: tuple[str, str], tmp_path: Path) -> None:
    file = write(tmp_path / "data.csv", ROWS, columns)
    assert len(load_task("mine", train_file=file, validation_file=file).train) == 3


def test_unusual_columns_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "data.csv", ROWS, ("what", "kind"))
    files = {"train_file": file, "validation_file": file}
    task = load_task("mine", text_column="what", label_column="kind", **files)
    assert task.labels == ["bad", "good"]
    with pytest.raises(UserError, match="No column text / sentence.*has what, kind.*text_column"):
        load_task("mine", **files)
    with pytest.raises(UserError, match="No column flavour.*--label_column"):
        load_task("mine", text_column="what", label_column="flavour", **files)


def test_a_quotation_mark_in_a_tsv_swallows_no_lines(tmp_path: Path) -> None:
    rows = [('he said " and left', 0), ("second", 1), ('" third', 0), ("fourth", 1)]
    file = write(tmp_path / "data.tsv", rows)
    task = load_task("mine", train_file=file, validation_file=file)
    assert task.train["text"] == [text for text, _ in rows]


def test_words_that_pandas_takes_for_nothing_stay_words(tmp_path: Path) -> None:
    task = load(tmp_path, [("null", "None"), ("NA", "nan")])
    assert task.train["text"] == ["null", "NA"]
    assert task.labels == ["None", "nan"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_texts_and_classes_stay_as_written(kind: str, tmp_path: Path) -> None:
    """What looks like a number is still a text, and 01 another class than 1."""
    rows = [("007", "1"), ("1e5", "01"), ("12.50", "2"), ("-0", "10"), ("1", "01")]
    for column in ("text", "date"):
        file = write(tmp_path / f"{column}.{kind}", rows, (column, "label"))
        task = load_task("mine", train_file=file, validation_file=file, text_column=column)
        assert task.train["text"] == [text for text, _ in rows]
        assert task.labels == ["01", "1", "2", "10"]
        assert task.train["label"] == [1, 0, 2, 3, 0]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_dates_and_words_of_logic_stay_as_written(kind: str, tmp_path: Path) -> None:
    rows = [("2024-01-31", "true"), ("2024-02-01", "TRUE"), ("2024-02-02", "true")]
    file = write(tmp_path / f"data.{kind}", rows, ("date", "label"))
    task = load_task("mine", train_file=file, validation_file=file, text_column="date")
    assert task.train["text"] == [text for text, _ in rows]
    assert task.labels == ["TRUE", "true"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_a_mark_of_the_byte_order_belongs_to_no_column(kind: str, tmp_path: Path) -> None:
    plain = write(tmp_path / f"plain.{kind}", ROWS)
    marked = tmp_path / f"marked.{kind}"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    found, wanted = (load_task("m", train_file=f, validation_file=f) for f in (marked, plain))
    assert found.fingerprint == wanted.fingerprint


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
@pytest.mark.parametrize("as_text", [False, True])
def test_numbers_are_labels_whatever_file_holds_them(
    kind: str, as_text: bool, tmp_path: Path
) -> None:
    def read(values: list, **options: object) -> Task:
        rows = [(f"t{v}", str(v) if as_text else v) for v in values]
        file = write(tmp_path / f"{len(values)}.{kind}", rows)
        return load_task("mine", train_file=file, validation_file=file, **options)

    scores = read([2.4, 5.0, 0.25])
    assert (type(scores), scores.train["label"]) == (Regression, [2.4, 5.0, 0.25])
    classes = read([10, -1, 9, 10])
    assert (classes.labels, classes.train["label"]) == (["-1", "9", "10"], [2, 0, 1, 2])
    with pytest.raises(UserError, match="2 different fractions.*problem_type regression"):
        read([0.0, 1.0])
    assert read([0, 1], problem_type="regression").train["label"] == [0.0, 1.0]


def test_blanks_around_numbers_make_no_classes(tmp_path: Path) -> None:
    file = tmp_path / "aligned.csv"
    file.write_text("text,label\na,10\nb, 9\nc,9\n")
    assert load_task("mine", train_file=file, validation_file=file).labels == ["9", "10"]


def test_infinite_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="infinite scores"):
        load(tmp_path, [("a", 0.5), ("b", "inf")])


@pytest.mark.skipif("TUTORIAL_DATA_DIR" not in os.environ, reason="TUTORIAL_DATA_DIR is not set")
def test_a_well_known_set_is_read_from_the_data_folder() -> None:
    task = load_task("sst2", tier=tiers.TIERS["full"])
    assert (len(task.validation), task.labels) == (872, ["0", "1"])
    assert len(task.train) > 60_000


def test_a_well_known_set_is_looked_up_in_the_folder_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    for split in ("train", "validation"):
        write(tmp_path / "sst2" / f"{split}.tsv", [("fine", 1), ("poor", 0)], ("sentence", "label"))
    assert load_task("sst2").train["label"] == [1, 0]


def test_an_unknown_name_without_a_network_is_refused() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    with pytest.raises(UserError, match="No data set 'nobody/nothing-here'.*--train_file"):
        load_task("nobody/nothing-here")


def damaged_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write one file for each kind of damage; return it with what the error has to say."""
    contents = {
        "empty.csv": (b"", "holds no rows"),
        "header.tsv": (b"text\tlabel\n", "holds no rows"),
        "latin.csv": ("text,label\nschön,1\n".encode("latin-1"), "not a readable .csv.*UTF-8"),
        "broken.json": (b'[{"text": "a", "label"', "not a readable .json"),
        "lines.jsonl": (b'{"text": "a", "label": 0}\nnothing\n', "not a readable .jsonl"),
        "mixed.json": (b'[{"text":"a","label":0},{"text":"b","label":"x"}]', "not a readable"),
        "ragged.csv": (b"text,label\na,0\nb,1,2,3\n", "not a readable .csv"),
        "commas.csv": (b"text,label\nwell, a,0\nso, b,1\n", "more columns than its header"),
        "semicolons.csv": (b"text;label\na, b;0\n", "Expected commas between columns, not ';'"),
        "spreadsheet.tsv": (b"text,label;x\na,0;b\n", "Expected tabs between columns, not ';'"),
        "notes.txt": (b"text,label\na,0\n", "ends in .csv, .tsv, .json or .jsonl"),
        "unlabelled.csv": (b"text,label\na,x\nb,\nc,y\n", r"1 train rows have no 'label'.*row 2"),
        "null.json": (b'[{"text":"a","label":"x"},{"text":"b","label":null}]', "row 2"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: (folder / name, message) for name, (_, message) in contents.items()}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for name, (file, message) in damaged_files(tmp_path).items():
        with pytest.raises(UserError, match=message) as caught:
            load_task("mine", train_file=file, validation_file=file)
        assert len(str(caught.value).splitlines()) <= 2, name


def test_missing_files_are_refused(tmp_path: Path) -> None:
    there = write(tmp_path / "data.csv", ROWS)
    with pytest.raises(UserError, match="There is no data file"):
        load_task("mine", train_file=tmp_path / "absent.csv", validation_file=there)
    with pytest.raises(UserError, match="validation_file is missing. Give both"):
        load_task("mine", train_file=there)
    with pytest.raises(UserError, match="train_file is missing"):
        load_task("mine", validation_file=there)


def test_validation_has_to_fit_train(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", ROWS)
    strange = write(tmp_path / "strange.csv", [*ROWS, ("odd", "ugly")])
    with pytest.raises(UserError, match="labels that train does not: ugly"):
        load_task("mine", train_file=train, validation_file=strange)
    other = write(tmp_path / "other.csv", ROWS, ("text", "class"))
    with pytest.raises(UserError, match="validation data has no column 'label'"):
        load_task("mine", train_file=train, validation_file=other)


def test_sequences_longer_than_the_model_takes_are_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    from helpers.models import load_tokenizer

    task, tokenizer = load(tmp_path, max_seq_length=65), load_tokenizer(tiny_model)
    with pytest.raises(UserError, match="max_seq_length is 65.*at most 64 tokens.*64 or less"):
        task.encode(tokenizer, task.train)


def test_texts_are_cut_at_the_length(tmp_path: Path, tiny_model: Path) -> None:
    from helpers.models import load_tokenizer

    task = load(tmp_path, [("word " * 50, 0), ("short", 1)], max_seq_length=16)
    rows = task.encode(load_tokenizer(tiny_model), task.train)
    assert rows["length"] == [16, 3]
    assert rows["labels"] == [0, 1]
    assert "text" not in rows.column_names


def test_the_fingerprint_changes_with_the_data_and_only_with_it(tmp_path: Path) -> None:
    task = load(tmp_path)
    assert task.fingerprint == load(tmp_path).fingerprint
    changed = [
        load(tmp_path, [("A good film", "good"), *ROWS[1:]]),
        load(tmp_path, [("a good film", "bad"), *ROWS[1:]]),
        load(tmp_path, ROWS[::-1]),
        load(tmp_path, [*ROWS, ROWS[0]]),
        load(tmp_path, [(text, label.upper()) for text, label in ROWS]),
        load(tmp_path, max_seq_length=8),
    ]
    assert len({task.fingerprint, *(other.fingerprint for other in changed)}) == 7


def test_shortening_draws_the_same_rows_every_time(tmp_path: Path) -> None:
    rows = [(f"text {i}", i % 2) for i in range(40)]
    task = load(tmp_path, rows)
    short = task.shortened(10, 5)
    assert (len(short.train), len(short.validation)) == (10, 5)
    assert short.fingerprint == load(tmp_path, rows).shortened(10, 5).fingerprint
    assert short.train["text"] != task.train["text"][:10], "drawn, not the first ones"
    assert set(short.train["text"]) <= set(task.train["text"])
    assert task.shortened(None, 99).fingerprint == task.fingerprint


def test_metrics_are_those_of_scikit_learn(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 3)), generator.integers(0, 3, 50)
    found = load(tmp_path).metrics(logits, labels)
    answers = logits.argmax(axis=1)
    assert found == {
        "accuracy": pytest.approx(accuracy_score(labels, answers)),
        "f1_macro": pytest.approx(f1_score(labels, answers, average="macro")),
    }
    assert load(tmp_path).metrics(np.eye(3), np.arange(3)) == {"accuracy": 1.0, "f1_macro": 1.0}


def test_two_classes_have_the_scores_of_glue(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    logits, expected = generator.normal(size=(50, 2)), generator.integers(0, 2, 50)
    found = load(tmp_path).metrics(logits, expected)
    assert found["f1"] == pytest.approx(f1_score(expected, logits.argmax(1)))
    matthews = matthews_corrcoef(expected, logits.argmax(1))
    assert found["matthews_correlation"] == pytest.approx(matthews)


def test_a_sample_shows_labels_in_words(tmp_path: Path) -> None:
    sample = load(tmp_path).sample(2)
    assert set(map(tuple, sample.to_numpy())) <= set(ROWS)
    assert len(load(tmp_path).sample(99)) == 3


def test_class_labels_of_a_hub_set_keep_their_names() -> None:
    """A hub set carries its names in the type of the column, not in its values."""
    from datasets import ClassLabel, Dataset, Features, Value

    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    split = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds)
    assert labels.read_labels(split, split, "label", labels.SINGLE_LABEL) == (
        ["neg", "pos"],
        [1, 0],
        [1, 0],
    )
    hidden = Dataset.from_dict({"text": ["a"], "label": [-1]})
    with pytest.raises(UserError, match="labels that train does not: -1"):
        labels.read_labels(split, hidden, "label", labels.SINGLE_LABEL)


def test_check_length_takes_the_limit_itself() -> None:
    tasks.check_length(512, 512)
    with pytest.raises(UserError):
        tasks.check_length(513, 512)


def test_rows_without_a_text_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text,label\none,good\n,odd\ntwo,odd\n")
    other = tmp_path / "other.csv"
    other.write_text(file.read_text())
    load_task("some", train_file=file, validation_file=other)
    said = capsys.readouterr().out
    assert "1 of 3 train rows have an empty text (first: row 2)" in said
    assert "1 of 3 validation rows have an empty text (first: row 2)" in said
    load_task("some", train_file=file, validation_file=file)
    assert capsys.readouterr().out.count("empty text") == 1
    file.write_text("text,label\none,good\ntwo,odd\n")
    load_task("some", train_file=file, validation_file=file)
    assert "empty text" not in capsys.readouterr().out


def test_rows_with_some_of_a_models_labels_take_the_models_numbers(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text,label\none,good\ntwo,odd\n")
    some = load_task("some", train_file=file, validation_file=file)
    found = some.with_labels(["bad", "good", "none", "odd"])
    assert found.labels == ["bad", "good", "none", "odd"]
    assert list(found.validation["label"]) == [1, 3]
    assert list(found.train["label"]) == [1, 3]
    assert some.with_labels(["bad", "good"]) is some
    assert some.with_labels(["odd", "good"]) is some


def test_sets_of_labels_take_the_models_numbers_too(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "one", "label": ["x", "z"]}\n{"text": "two", "label": []}\n')
    found = load_task("some", train_file=file, validation_file=file).with_labels(["x", "y", "z"])
    assert found.labels == ["x", "y", "z"]
    assert list(found.validation["label"]) == [[0, 2], []]


def test_lists_written_out_in_a_csv_are_lists(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text,label\none,\"['joy', 'fear']\"\ntwo,\"['fear']\"\nthree,[]\n")
    found = load_task("some", train_file=file, validation_file=file)
    assert (found.labels, list(found.train["label"])) == (["fear", "joy"], [[1, 0], [0], []])


@pytest.mark.parametrize("cell", ["[joy, fear]", "['joy' 'fear']", "['joy'\n 'fear']", "[0 2]"])
def test_a_cell_that_is_no_list_of_labels_is_refused(cell: str, tmp_path: Path) -> None:
    """NumPy's way to write one has no commas; Python would read one label, joyfear."""
    file = tmp_path / "some.csv"
    file.write_text(f'text,label\none,"{cell}"\ntwo,[]\n')
    with pytest.raises(UserError, match="is no list of labels"):
        load_task("some", train_file=file, validation_file=file)


def test_a_label_named_twice_is_one_and_blanks_around_it_are_none(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text('text,label\none,"joy,joy"\ntwo,"fear,joy"\n')
    kind = {"problem_type": labels.MULTI_LABEL}
    found = load_task("some", train_file=file, validation_file=file, **kind)
    assert list(found.train["label"]) == [[1], [0, 1]]
    file.write_text("text,label\none, pos\ntwo,pos \nthree,neg\n")
    assert load_task("some", train_file=file, validation_file=file).labels == ["neg", "pos"]


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": ["so", "bad"], "label": 0}\n{"text": ["fine"], "label": 1}\n')
    with pytest.raises(UserError, match=r"Row 1 has \['so', 'bad'\] as 'text'. Expected one text"):
        load_task("some", train_file=file, validation_file=file)
    file = write(tmp_path / "data.csv", ROWS)
    with pytest.raises(UserError, match="'label' cannot be both text and label"):
        load_task("some", train_file=file, validation_file=file, text_column="label")


def test_a_file_of_one_label_can_be_measured_but_not_trained_on(tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text("text,label\none,good\ntwo,good\n")
    task = load_task("some", train_file=file, validation_file=file)
    assert list(task.with_labels(["bad", "good"]).validation["label"]) == [1, 1]
    with pytest.raises(UserError, match=r"holds 1 labels \(good\): nothing to learn. Expected 2"):
        fine_tune(task, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_hidden_label_in_train_is_refused() -> None:
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"text": ["x", "y"], "label": [0, -1]}, features=kinds)
    with pytest.raises(UserError, match="1 train rows have none of the labels of 'label'"):
        labels.read_labels(rows, rows, "label", labels.SINGLE_LABEL)


def test_a_yes_or_no_for_each_label_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "one", "label": [1, 0]}\n{"text": "two", "label": [0, 0]}\n')
    with pytest.raises(UserError, match=r"train row 2 has \[0, 0\].*\[0, 2\] in place of"):
        load_task("some", train_file=file, validation_file=file)


def test_tags_take_the_models_numbers_too(tmp_path: Path) -> None:
    file = tmp_path / "some.txt"
    file.write_text("New B-LOC\nYork I-LOC\nis O\n\nOslo B-LOC\n")
    some = load_token_classification("some", train_file=file, validation_file=file)
    found = some.with_labels(["B-LOC", "B-PER", "I-LOC", "O"])
    assert list(found.validation["tags"]) == [[0, 2, 3], [0]]
