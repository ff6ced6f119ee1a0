"""Hidden words: how texts are read, what is masked and when, and what the figures mean."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from helpers import tiers
from helpers.callbacks import MasksOfEpoch
from helpers.errors import UserError
from helpers.masked_language import MaskedLanguageModel, blocks, load_masked_language
from helpers.models import load_tokenizer
from helpers.plain_texts import hold_out, read_file

LINES = [f"the boat number {i} sails on the salt sea and the wind is {i}" for i in range(30)]
INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def sea(length: int = 16, **options: object) -> MaskedLanguageModel:
    train = Dataset.from_dict({"text": LINES})
    validation = Dataset.from_dict({"text": [line.upper() for line in LINES[:12]]})
    return MaskedLanguageModel("sea", train, validation, [], length, **options)


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def load(file: Path, **options: object) -> MaskedLanguageModel:
    return load_masked_language("mine", train_file=file, validation_file=file, **options)


# Reading


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_text_file_are_rows(start: str, end: str, tmp_path: Path) -> None:
    lines = [" = A title = ", "", "One line with a \u2028 in it .", "  ", "Grüße"]
    file = write(tmp_path / "wiki.txt", start + end.join(lines))
    task = load(file)
    assert task.train["text"] == ["= A title =", "One line with a \u2028 in it .", "Grüße"]
    assert (task.labels, task.config) == ([], {})


def test_tables_and_text_files_give_the_same_task(tmp_path: Path) -> None:
    plain = load(write(tmp_path / "a.txt", "one\ntwo\n"))
    rows = [{"text": "one", "label": 1}, {"text": None, "label": 2}, {"text": "two", "label": 3}]
    table = load(write(tmp_path / "a.json", json.dumps(rows)))
    named = load(write(tmp_path / "a.csv", "id,words\n1,one\n2,two\n"), text_column="words")
    assert plain.fingerprint == table.fingerprint == named.fingerprint
    with pytest.raises(UserError, match="No column text / .*has id, words"):
        load(tmp_path / "a.csv")
    with pytest.raises(UserError, match="a data file ends in .csv"):
        load(write(tmp_path / "a.CSV", "text,label\none,1\n"))


def test_the_first_lines_are_held_out_of_a_single_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "\n".join(LINES))
    task = load_masked_language("mine", train_file=file, validation_split_percentage=10)
    assert task.validation["text"] == LINES[:3]
    assert task.train["text"] == LINES[3:]
    with pytest.raises(UserError, match="5 % of 9 lines are 0.*--validation_file"):
        hold_out(Dataset.from_dict({"text": LINES[:9]}), 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "train data holds no text"),
        ("blank.txt", b" \n\t\n\r\n", "train data holds no text"),
        ("latin.txt", "schön".encode("latin-1"), r"latin.txt is not UTF-8 text \(byte 3\)"),
        ("wide.txt", "text".encode("utf-16"), "is not UTF-8 text"),
        ("none.json", b'[{"text": ""}, {"text": null}]', "train data holds no text"),
        ("header.csv", b"text\n", "holds no rows"),
    ],
)
def test_files_without_text_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_missing_files_and_impossible_shares_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "one\ntwo")
    with pytest.raises(UserError, match="There is no text file"):
        load(tmp_path / "absent.txt")
    with pytest.raises(UserError, match="train_file is missing"):
        load_masked_language("mine", validation_file=file)
    for share in (0.0, 1.0, 15.0):
        with pytest.raises(UserError, match=f"mlm_probability is {share}"):
            load(file, mlm_probability=share)


@pytest.mark.skipif("TUTORIAL_DATA_DIR" not in os.environ, reason="TUTORIAL_DATA_DIR is not set")
def test_wikitext_is_read_whole() -> None:
    home = Path(os.environ["TUTORIAL_DATA_DIR"]) / "wikitext2"
    raw = read_file(home / "wiki.test.raw.txt")
    assert sum(len(line.split()) for line in raw["text"]) == 241_211
    task = load_masked_language(
        "wikitext2", train_file=home / "wiki.test.raw.txt", tier=tiers.TIERS["full"]
    )
    assert all(text == text.strip() != "" for text in task.train["text"])
    assert task.validation["text"][0] == "= Robert Boulter ="


# Rows


def test_blocks_by_hand() -> None:
    tokens = {"input_ids": [[1, 2, 3], [4], [5, 6, 7]], "attention_mask": [[1] * 3, [1], [1] * 3]}
    assert blocks(tokens, 3) == {
        "input_ids": [[1, 2, 3], [4, 5, 6]],
        "attention_mask": [[1, 1, 1], [1, 1, 1]],
    }
    assert blocks(tokens, 7)["input_ids"] == [[1, 2, 3, 4, 5, 6, 7]]
    assert blocks(tokens, 8)["input_ids"] == []


def test_texts_are_joined_into_blocks_without_a_gap(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = sea().encode(tokenizer, sea().train)
    assert set(rows["length"]) == {16} == {len(ids) for ids in rows["input_ids"]}
    joined = [i for ids in tokenizer(LINES)["input_ids"] for i in ids]
    found = [i for ids in rows["input_ids"] for i in ids]
    assert found == joined[: len(found)] and len(joined) - len(found) < 16
    assert set(rows.column_names) == {*INPUTS, "length"}


def test_line_by_line_keeps_lines_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    task = sea(12, line_by_line=True)
    rows = task.encode(tokenizer, task.train)
    assert len(rows) == len(LINES)
    assert {(ids[0], ids[-1]) for ids in rows["input_ids"]} == {(101, 102)}
    assert max(rows["length"]) == 12
    other = sea(12, line_by_line=True, mlm_probability=0.3)
    assert len({task.fingerprint, other.fingerprint, sea(12).fingerprint}) == 3


def test_too_little_text_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    one = Dataset.from_dict({"text": ["a boat"]})
    task = MaskedLanguageModel("short", one, one, [], 16)
    with pytest.raises(UserError, match="1 texts are shorter than one block of 16.*line_by_line"):
        task.encode(tokenizer, one)
    rare = MaskedLanguageModel("rare", one, one, [], 16, True, 1e-9)
    with pytest.raises(UserError, match="No token of the 1 validation rows is masked"):
        rare.encode_validation(tokenizer, one)
    with pytest.raises(UserError, match="max_seq_length is 65"):
        sea(65).encode(tokenizer, sea().train)


# Masks


def test_another_batch_is_masked_anew(tokenizer: PreTrainedTokenizerBase) -> None:
    task = sea(mlm_probability=0.3)
    rows = list(task.encode(tokenizer, task.train).remove_columns("length"))
    collator = task.collator(tokenizer)
    first, second = collator(rows), collator(rows[::-1])
    assert not torch.equal(first["labels"], second["labels"].flip(0))
    hidden = first["labels"] != -100
    original = torch.tensor([row["input_ids"] for row in rows])
    assert torch.equal(first["labels"][hidden], original[hidden])
    assert torch.equal(first["input_ids"][~hidden], original[~hidden])
    special = torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    assert not (hidden & special).any()
    share = hidden.sum() / (~special).sum()
    assert share == pytest.approx(0.3, abs=0.08)


def test_the_masks_of_a_batch_depend_on_nothing_but_the_batch(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Collators read ahead: a run that goes on has drawn fewer numbers than one in a go."""
    task = sea(mlm_probability=0.3)
    rows = list(task.encode(tokenizer, task.train).remove_columns("length"))
    first = task.collator(tokenizer)(rows)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert torch.equal(task.collator(tokenizer)(rows)["labels"], first["labels"])
    assert torch.equal(torch.get_rng_state(), before)


def test_each_epoch_masks_other_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """A batch of one row is the same in every epoch."""
    task = sea(mlm_probability=0.3)
    rows = list(task.encode(tokenizer, task.train).remove_columns("length"))[:1]
    collator, args = task.collator(tokenizer), TrainingArguments("unused", use_cpu=True)
    found = []
    for epoch in (0.0, 1.0, 1.5):
        MasksOfEpoch(collator).on_epoch_begin(args, TrainerState(epoch=epoch), TrainerControl())
        found.append(collator(rows)["labels"])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2]), "a run that goes on in the middle of an epoch"


def test_validation_is_masked_once_and_always_alike(tokenizer: PreTrainedTokenizerBase) -> None:
    task = sea(mlm_probability=0.3)
    torch.manual_seed(1)
    rows = task.encode_validation(tokenizer, task.validation)
    drawn_after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn_after, torch.rand(3)), "whoever draws afterwards sees no difference"
    torch.manual_seed(2)
    again = task.encode_validation(tokenizer, task.validation)
    assert rows["input_ids"] == again["input_ids"] and rows["labels"] == again["labels"]
    assert len({str(ids) for ids in rows["labels"]}) > 1, "each row has masks of its own"
    plain = task.encode(tokenizer, task.validation)["input_ids"]
    for ids, labels, before in zip(rows["input_ids"], rows["labels"], plain, strict=True):
        restored = [i if label == -100 else label for i, label in zip(ids, labels, strict=True)]
        assert restored == before
    assert task.references(rows) == rows["labels"]


def test_equal_validation_rows_hide_different_words(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = Dataset.from_dict({"text": ["the sea is deep and salt"] * 20})
    task = replace(sea(mlm_probability=0.3), validation=texts, line_by_line=True)
    rows = task.encode_validation(tokenizer, texts)
    assert len({tuple(labels) for labels in rows["labels"]}) > 1


def test_masked_rows_are_padded_and_not_masked_again(tokenizer: PreTrainedTokenizerBase) -> None:
    task = sea(32, line_by_line=True, mlm_probability=0.5)
    texts = Dataset.from_dict({"text": [LINES[0], "salt and wind"]})
    rows = list(task.encode_validation(tokenizer, texts).remove_columns("length"))
    size = len(rows[1]["input_ids"])
    assert len(rows[0]["input_ids"]) > size
    batch = task.collator(tokenizer)(rows)
    for name, filler in (("input_ids", tokenizer.pad_token_id), ("labels", -100)):
        assert batch[name][0].tolist() == rows[0][name]
        assert batch[name][1].tolist()[:size] == rows[1][name]
        assert set(batch[name][1].tolist()[size:]) == {filler}


# Figures


def test_reduced_outputs_by_hand() -> None:
    even = [0.0, 0.0, 0.0, 0.0]
    sure = [math.log(7), 0.0, 0.0, 0.0]  # probability 0.7 for the first of four
    logits = torch.tensor([[sure, even, sure], [even, even, even], [sure, sure, even]])
    labels = torch.tensor([[0, -100, 1], [-100, -100, -100], [0, -100, -100]])
    found = MaskedLanguageModel.reduce_outputs(logits, labels)
    expected = [[-math.log(0.7) - math.log(0.1), 2, 1], [0, 0, 0], [-math.log(0.7), 1, 1]]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    half = MaskedLanguageModel.reduce_outputs(logits.bfloat16(), labels)
    np.testing.assert_allclose(half.numpy(), expected, rtol=1e-2)
    scores = sea().metrics(found.numpy())
    assert list(scores) == ["accuracy", "perplexity"]
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["perplexity"] == pytest.approx((1 / (0.7 * 0.7 * 0.1)) ** (1 / 3))


def test_a_loss_beyond_all_numbers_is_an_infinite_perplexity() -> None:
    assert sea().metrics(np.array([[1e6, 1, 0]]))["perplexity"] == math.inf


def arguments(folder: Path, batch: int) -> TrainingArguments:
    return TrainingArguments(
        str(folder),
        per_device_eval_batch_size=batch,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )


def test_the_trainer_measures_the_same_whatever_the_batch_and_its_own_loss(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    task = sea(32, line_by_line=True)
    torch.manual_seed(0)
    network = AutoModelForMaskedLM.from_pretrained(str(tiny_model), **task.config)
    measured = task.encode_validation(tokenizer, task.validation).sort("length")
    references = task.references(measured)
    found = []
    for batch in (len(measured), 5):
        trainer = Trainer(
            network,
            arguments(tmp_path, batch),
            data_collator=task.collator(tokenizer),
            eval_dataset=measured,
            compute_metrics=lambda answer: task.metrics(answer.predictions, references),
            preprocess_logits_for_metrics=task.reduce_outputs,
        )
        found.append(trainer.predict(measured))
    assert found[0].predictions.shape == (len(measured), 3)
    whole, parts = (answer.metrics for answer in found)
    assert whole["test_perplexity"] == pytest.approx(math.exp(whole["test_loss"]), rel=1e-4)
    assert parts["test_perplexity"] == pytest.approx(whole["test_perplexity"], rel=1e-4)
    assert parts["test_accuracy"] == pytest.approx(whole["test_accuracy"])
    hidden = sum(label != -100 for labels in references for label in labels)
    assert found[0].predictions[:, 1].sum() == hidden


def test_a_model_learns_it(tiny_model: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    task = sea()
    torch.manual_seed(0)
    network = AutoModelForMaskedLM.from_pretrained(str(tiny_model))
    rows = list(task.encode(tokenizer, task.train).remove_columns("length"))
    measured = task.encode_validation(tokenizer, task.validation).remove_columns("length")
    collator = task.collator(tokenizer)
    batch = collator(list(measured))

    def measure() -> dict[str, float]:
        with torch.no_grad():
            logits = network.eval()(**batch).logits
        return task.metrics(task.reduce_outputs(logits, batch["labels"]).numpy())

    before = measure()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(25):
        loss = network.train()(**collator(rows)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = measure()
    assert after["perplexity"] < before["perplexity"] / 100
    assert after["accuracy"] > before["accuracy"]
