"""Tags for words: how sentences are read, what a model is given, and what seqeval makes of it."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Sequence, Value
from learning import losses
from seqeval.metrics import f1_score, precision_score, recall_score
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from helpers import tiers
from helpers.errors import UserError
from helpers.models import load_tokenizer
from helpers.tagged_sentences import broken_words, named_tags, read_conll
from helpers.token_tasks import (
    Sentence,
    TokenClassification,
    first_positions,
    load_token_classification,
    token_labels,
)

CONLL = """-DOCSTART- -X- -X- O

Ann NNP B-PER
Lee NNP I-PER
sails VB O

to TO O
Oslo NNP B-LOC

"""
LABELS = ["B-LOC", "B-PER", "I-PER", "O"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def write(file: Path, content: str | bytes = CONLL) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def load(file: Path, validation: Path | None = None, **options: object) -> TokenClassification:
    return load_token_classification(
        "mine", train_file=file, validation_file=validation or file, **options
    )


def as_json(file: Path, rows: list[tuple[list, list]], tags: str = "tags") -> Path:
    content = [{"tokens": words, tags: marks} for words, marks in rows]
    return write(file, json.dumps(content))


def logits_of(rows: list[list[int]]) -> np.ndarray:
    """Return logits that answer these labels; shorter rows are filled up as the Trainer does."""
    longest = max(map(len, rows))
    filled = np.full((len(rows), longest, len(LABELS)), -100.0)
    for row, labels in enumerate(rows):
        filled[row, : len(labels)] = np.eye(len(LABELS))[labels]
    return filled


# Reading


@pytest.mark.parametrize("change", [("", ""), (" ", "\t"), ("\n", "\r\n"), ("-DOC", "\ufeff-DOC")])
def test_columns_are_read_whatever_separates_them(change: tuple[str, str], tmp_path: Path) -> None:
    content = CONLL.replace(*change) if change[0] else CONLL
    rows = read_conll(write(tmp_path / "train.txt", content))
    assert rows["tokens"] == [["Ann", "Lee", "sails"], ["to", "Oslo"]]
    assert rows["tags"] == [["B-PER", "I-PER", "O"], ["O", "B-LOC"]]


def test_a_document_line_ends_a_sentence(tmp_path: Path) -> None:
    rows = read_conll(write(tmp_path / "a.conll", "one O\n-DOCSTART- O\ntwo O"))
    assert rows["tokens"] == [["one"], ["two"]]


def test_json_rows_give_the_same_task_as_columns(tmp_path: Path) -> None:
    columns = load(write(tmp_path / "a.txt"))
    rows = [(["Ann", "Lee", "sails"], ["B-PER", "I-PER", "O"]), (["to", "Oslo"], ["O", "B-LOC"])]
    assert columns.labels == LABELS
    assert columns.train["tags"] == [[1, 2, 3], [3, 0]]
    for name in ("tags", "ner_tags"):
        task = load(as_json(tmp_path / f"{name}.json", rows, name))
        assert task.fingerprint == columns.fingerprint
    odd = as_json(tmp_path / "odd.json", rows, "marks")
    assert load(odd, tag_column="marks").fingerprint == columns.fingerprint
    with pytest.raises(UserError, match="No column tags / ner_tags.*--label_column_name"):
        load(odd)


def test_columns_are_asked_for_by_flags_that_there_are(tmp_path: Path) -> None:
    from helpers.commands.run_ner import TokenArguments

    for number, row in enumerate(({"words": ["a"], "x": ["O"]}, {"x": ["a"], "tags": ["O"]})):
        file = write(tmp_path / f"{number}.json", json.dumps([row]))
        with pytest.raises(UserError, match="No column .*Name the right one with --") as caught:
            load(file)
        flag = str(caught.value).rpartition("--")[2].rstrip(".")
        assert flag in TokenArguments.__dataclass_fields__


def test_names_of_a_hub_set_come_from_its_column() -> None:
    kinds = Features(
        {
            "tokens": Sequence(Value("string")),
            "ner_tags": Sequence(ClassLabel(names=["O", "B-PER"])),
        }
    )
    split = Dataset.from_dict({"tokens": [["I", "Ann"]], "ner_tags": [[0, 1]]}, features=kinds)
    assert named_tags(split, "train", None, None)["tags"] == [["O", "B-PER"]]


def test_the_well_known_set_is_looked_up_in_the_folder_of_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    (tmp_path / "conll2003").mkdir()
    for name in ("train", "valid"):
        write(tmp_path / "conll2003" / f"{name}.txt")
    assert load_token_classification("conll2003").labels == LABELS


@pytest.mark.skipif("TUTORIAL_DATA_DIR" not in os.environ, reason="TUTORIAL_DATA_DIR is not set")
def test_conll_2003_has_its_official_size() -> None:
    task = load_token_classification("conll2003", tier=tiers.TIERS["full"])
    assert (len(task.train), len(task.validation), len(task.labels)) == (14041, 3250, 9)
    assert sum(map(len, task.train["tags"])) == 203_621
    begun = [task.labels[tag].startswith("B-") for row in task.validation["tags"] for tag in row]
    assert sum(begun) == 5942


# Bad input


def damaged(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write one file for each kind of damage; return it with what the error has to say."""
    contents = {
        "empty.txt": ("", "holds no sentences"),
        "blank.txt": ("\n \n-DOCSTART- O\n", "holds no sentences"),
        "alone.txt": ("Ann B-PER\nLee\n", "line 2: 'Lee' has no tag"),
        "latin.txt": ("Gör B-PER".encode("latin-1"), r"not UTF-8 \(byte 1\)"),
        "table.csv": ("tokens,tags\na,O\n", "a csv cannot hold"),
        "pos.txt": ("Ann NNP\nsails VB\n", "NNP, VB: not BIO tags.*B-PER"),
        "numbers.json": ('[{"tokens": ["a", "b"], "tags": [0, 1]}]', "0, 1: not BIO tags"),
        "short.json": ('[{"tokens": ["a", "b"], "tags": ["O"]}]', "train row 1: 2 words.*have 1"),
        "null.json": ('[{"tokens": ["a", "b"], "tags": ["O", null]}]', "row 1: 2 words.*have 1"),
        "void.json": ('[{"tokens": [], "tags": []}]', "row 1: expected a list of words"),
        "words.json": ('[{"tokens": "a b", "tags": "O O"}]', "row 1: expected a list of words"),
    }
    for name, (content, _) in contents.items():
        write(folder / name, content)
    return {name: (folder / name, message) for name, (_, message) in contents.items()}


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    for name, (file, message) in damaged(tmp_path).items():
        with pytest.raises(UserError, match=message) as caught:
            load(file)
        assert len(str(caught.value)) < 300 and "\n" not in str(caught.value), name


def test_files_come_in_pairs(tmp_path: Path) -> None:
    there = write(tmp_path / "a.txt")
    with pytest.raises(UserError, match="validation_file is missing"):
        load_token_classification("mine", train_file=there)
    with pytest.raises(UserError, match="train_file is missing"):
        load_token_classification("mine", validation_file=there)
    with pytest.raises(UserError, match="There is no data file"):
        load(there, tmp_path / "absent.txt")


def test_validation_may_not_hold_tags_that_train_lacks(tmp_path: Path) -> None:
    other = write(tmp_path / "b.txt", "Acme B-ORG\nOslo B-LOC\n")
    with pytest.raises(UserError, match="tags that train does not: B-ORG"):
        load(write(tmp_path / "a.txt"), other)


def test_the_inside_of_a_known_type_may_be_new_to_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train = write(tmp_path / "a.txt", "Ada B-PER\nin O\nOslo B-LOC\n")
    task = load(train, write(tmp_path / "b.txt", "New B-LOC\nYork I-LOC\n"))
    assert task.labels == ["B-LOC", "B-PER", "I-LOC", "O"]
    assert "No train row has I-LOC" in capsys.readouterr().out


def test_only_an_entity_without_a_beginning_is_broken() -> None:
    def broken(tags: str) -> list[int]:
        return list(broken_words(tags.split()))

    assert broken("B-PER I-PER I-PER O B-LOC B-LOC") == []
    assert broken("B-PER I-PER E-PER S-LOC O") == []
    assert broken("I-PER I-PER O I-LOC") == [0, 3]
    assert broken("B-PER I-LOC I-LOC") == [1]
    assert broken("O E-LOC I-LOC") == [1, 2]


def test_broken_tags_stop_unless_they_are_to_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = [(["a", f"Oslo{i}"], ["B-PER", "I-LOC"]) for i in range(4)]
    good = (["Oslo", "Ann", "Lee"], ["B-LOC", "B-PER", "I-PER"])
    file = as_json(tmp_path / "a.json", [good, *bad])
    said = "4 of 5 train sentences have broken BIO tags .sentence 2: 'Oslo0' I-LOC after B-PER; "
    with pytest.raises(UserError, match=said) as caught:
        load(file, as_json(tmp_path / "b.json", [good, *bad]))
    assert "'Oslo2'" in str(caught.value) and "'Oslo3'" not in str(caught.value)
    assert "--on_broken_tags keep" in str(caught.value)
    task = load(file, on_broken_tags="keep")
    shown = capsys.readouterr().out
    assert "4 of 5 validation sentences" in shown
    assert "train sentences" not in shown, "one file stands for both where nothing is trained"
    assert len(task.train) == 5 and "I-LOC" in task.labels
    with pytest.raises(UserError, match="expected stop or keep"):
        load(file, on_broken_tags="mend")


# Encoding


def sea() -> TokenClassification:
    """Two sentences, of which 'unbelievably' and 'Hammerfest' are several sub-tokens each."""
    tokens = [["Ann", "Lee", "unbelievably", "sails"], ["to", "Hammerfest", ""]]
    rows = Dataset.from_dict({"tokens": tokens, "tags": [[1, 2, 3, 3], [3, 0, 3]]})
    return TokenClassification("sea", rows, rows, LABELS, 16)


def test_the_first_sub_token_carries_the_label(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = sea().encode(tokenizer, sea().train)
    pieces = [tokenizer.convert_ids_to_tokens(ids) for ids in rows["input_ids"]]
    assert rows["length"] == [len(piece) for piece in pieces] == [len(x) for x in rows["labels"]]
    assert pieces[1] == ["[CLS]", "to", "hammer", "##fest", "[SEP]"]
    assert rows["labels"][1] == [-100, 3, 0, -100, -100]
    labelled = [p for p, label in zip(pieces[0], rows["labels"][0], strict=True) if label >= 0]
    assert len(labelled) == 4 and not any(piece.startswith("##") for piece in labelled)
    assert set(rows.column_names) == {
        "input_ids",
        "token_type_ids",
        "attention_mask",
        "labels",
        "length",
    }


def test_all_sub_tokens_are_labelled_on_request_but_never_measured(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = TokenClassification("sea", sea().train, sea().validation, LABELS, 16, True)
    assert task.encode(tokenizer, task.train)[1]["labels"] == [-100, 3, 0, 0, -100]
    measured = task.encode_validation(tokenizer, task.validation)
    assert measured[1]["labels"] == [-100, 3, 0, -100, -100]
    assert task.fingerprint != sea().fingerprint


def test_labels_and_positions_by_hand() -> None:
    words = [None, 0, 1, 1, 3, None]
    assert token_labels(words, [5, 6, 7, 8], label_all=False) == [-100, 5, 6, -100, 8, -100]
    assert token_labels(words, [5, 6, 7, 8], label_all=True) == [-100, 5, 6, 6, 8, -100]
    assert first_positions(words, 5) == [1, 2, -1, 4, -1]


def test_words_that_are_cut_off_are_counted(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture
) -> None:
    rows = Dataset.from_dict({"tokens": [["a"] * 9, ["a"] * 3], "tags": [[3] * 9, [3] * 3]})
    task = TokenClassification("cut", rows, rows, LABELS, 6)
    measured = task.encode_validation(tokenizer, rows)
    assert measured["length"] == [6, 5]
    said = capsys.readouterr().out
    assert "5 of 12 words, in 1 of 2 sentences, have no token within max_seq_length 6" in said
    whole = TokenClassification("whole", rows, rows, LABELS, 16)
    whole.encode(tokenizer, rows)
    assert capsys.readouterr().out == ""


def test_sequences_longer_than_the_model_takes_are_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = TokenClassification("long", sea().train, sea().validation, LABELS, 65)
    with pytest.raises(UserError, match="max_seq_length is 65"):
        task.encode(tokenizer, task.train)


# Scoring


def test_metrics_are_those_of_seqeval() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 12, 60)
    wanted = [generator.integers(0, 4, n).tolist() for n in lengths]
    given = [generator.integers(0, 4, n).tolist() for n in lengths]
    found = sea().metrics(logits_of(given), [Sentence(t, list(range(len(t)))) for t in wanted])
    names = [[[LABELS[i] for i in row] for row in rows] for rows in (wanted, given)]
    assert next(iter(found)) == TokenClassification.main_metric
    assert found["f1"] == pytest.approx(f1_score(*names))
    assert found["precision"] == pytest.approx(precision_score(*names))
    assert found["recall"] == pytest.approx(recall_score(*names))
    right = [a == b for rows in zip(*names, strict=True) for a, b in zip(*rows, strict=True)]
    assert found["accuracy"] == pytest.approx(np.mean(right))
    by_type = pytest.approx(f1_score(*names, average=None))
    assert [found["f1_LOC"], found["f1_PER"]] == by_type


def test_metrics_by_hand_over_borders_sub_tokens_and_words_cut_off() -> None:
    references = [
        Sentence([1, 2, 3, 0], [1, 2, 4, -1]),  # Ann Lee | sails | Oslo, which was cut off
        Sentence([0, 1, 2], [1, 3, 4]),  # Oslo | Ann Lee
    ]
    # At other positions stands what would be wrong. The second Ann Lee is found by half.
    logits = logits_of([[0, 1, 2, 0, 3, 0], [1, 0, 1, 1, 3]])
    found = sea().metrics(logits, references)
    assert found == {
        "f1": pytest.approx(2 * 2 / (3 + 4)),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 4),
        "accuracy": pytest.approx(5 / 7),
        "f1_LOC": pytest.approx(2 * 1 / (1 + 2)),
        "f1_PER": pytest.approx(2 * 1 / (2 + 2)),
    }


def test_the_lenient_reading_takes_an_inside_tag_for_a_beginning() -> None:
    found = sea().metrics(logits_of([[3, 2, 2]]), [Sentence([3, 1, 2], [0, 1, 2])])
    assert (found["f1"], found["accuracy"]) == (1.0, pytest.approx(2 / 3))


def test_no_entities_at_all_count_as_nothing_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sea().metrics(logits_of([[3, 3]]), [Sentence([3, 3], [0, 1])])
    assert found == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 1.0}


# Learning


def test_a_model_learns_it_and_is_scored_over_its_own_batches(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    task = sea()
    torch.manual_seed(0)
    network = AutoModelForTokenClassification.from_pretrained(str(tiny_model), **task.config)
    rows = task.encode(tokenizer, task.train).remove_columns("length")
    batch = task.collator(tokenizer)(list(rows))
    found = losses(network, batch, steps=40)
    assert found[-1] < 0.5 * found[0]
    measured = task.encode_validation(tokenizer, task.validation)
    with torch.no_grad():
        logits = network.eval()(**batch).logits.numpy()
    assert task.metrics(logits, task.references(measured))["f1"] == 1.0


def test_a_sample_shows_words_in_entities() -> None:
    shown = sea().sample()
    assert dict(zip(shown["text"], shown["tags"], strict=True)) == {
        "Ann Lee unbelievably sails": "Ann B-PER, Lee I-PER",
        "to Hammerfest ": "Hammerfest B-LOC",
    }
