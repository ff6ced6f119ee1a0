"""Scores and sets of labels: what a model is given, how it is scored, and that it learns."""

import math
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from learning import losses
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerBase

from helpers import load_task, models, starts, tiers
from helpers.errors import UserError
from helpers.models import load_tokenizer
from helpers.tasks import Task
from helpers.text_tasks import MultiLabel, Regression

WORDS = ["wave", "boat", "fish", "salt", "cloud", "bird", "star", "wind"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_model)


def alike() -> Regression:
    """Two words a row; the score is 5 if the second repeats the first, 1 if not."""
    pairs = [(a, b) for i, a in enumerate(WORDS) for b in (a, WORDS[i - 1])]
    columns = {
        "text": [f"the {a}" for a, _ in pairs],
        "text_pair": [f"a {b}" for _, b in pairs],
        "label": [5.0 if a == b else 1.0 for a, b in pairs],
    }
    rows = Dataset.from_dict(columns)
    return Regression("alike", rows, rows, ["score"], 16)


def places() -> MultiLabel:
    """A row names things of the sea, of the sky, of both or of neither."""
    texts = ["wave and boat", "cloud and bird", "fish under star", "a chair", "salt wind", "boat"]
    labels = [[0], [1], [0, 1], [], [1, 0], [0]]
    rows = Dataset.from_dict({"text": texts, "label": labels})
    return MultiLabel("places", rows, rows, ["sea", "sky"], 16)


def test_a_new_multi_label_head_starts_at_the_labels_shares(
    tiny_model: Path, tmp_path: Path
) -> None:
    network = models.new_model(tiny_model, places())
    # Four and three of six rows, half a row added on either side.
    assert network.classifier.bias.tolist() == pytest.approx(np.log([4.5 / 2.5, 1.0]).tolist())
    with torch.no_grad():
        network.classifier.bias.fill_(7.0)
    network.save_pretrained(tmp_path)
    again = models.new_model(tmp_path, places())
    assert again.classifier.bias.tolist() == [7.0, 7.0], "a head that was trained keeps its own"


@pytest.mark.parametrize("task", [alike(), places()], ids=["regression", "multi-label"])
def test_a_model_learns_it(
    task: Task, tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(str(tiny_model), **task.config)
    rows = task.encode(tokenizer, task.train).remove_columns("length")
    found = losses(network, task.collator(tokenizer)(list(rows)), steps=25)
    assert found[-1] < 0.7 * found[0]


def test_the_config_selects_the_loss() -> None:
    assert alike().config["problem_type"] == "regression"
    assert alike().config["num_labels"] == 1
    assert places().config["problem_type"] == "multi_label_classification"
    assert places().config["id2label"] == {0: "sea", 1: "sky"}


def test_regression_rows_are_pairs_with_a_float(tokenizer: PreTrainedTokenizerBase) -> None:
    task = alike()
    rows = task.encode(tokenizer, task.train)
    assert rows["labels"] == task.train["label"]
    assert tokenizer.decode(rows[1]["input_ids"]) == "[CLS] the wave [SEP] a wind [SEP]"
    assert rows[1]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert task.collator(tokenizer)(list(rows))["labels"].dtype == torch.float32
    assert task.references(rows).tolist() == task.train["label"]


def test_multi_label_rows_hold_a_float_for_each_label(tokenizer: PreTrainedTokenizerBase) -> None:
    task = places()
    rows = task.encode(tokenizer, task.train)
    assert rows["labels"] == [[1, 0], [0, 1], [1, 1], [0, 0], [1, 1], [1, 0]]
    labels = task.collator(tokenizer)(list(rows))["labels"]
    assert (labels.dtype, labels.shape) == (torch.float32, (6, 2))
    assert task.encode_validation(tokenizer, task.validation)["labels"] == rows["labels"]


def test_many_rows_without_a_label_may_come_first(tokenizer: PreTrainedTokenizerBase) -> None:
    """Encoded a thousand at a time, of which none says what a label looks like."""
    rows = Dataset.from_dict({"text": ["a wave"] * 1001, "label": [[]] * 1000 + [[0, 1]]})
    task = replace(places(), train=rows)
    assert task.encode(tokenizer, rows)["labels"][999:] == [[0.0, 0.0], [1.0, 1.0]]


def test_a_model_of_another_kind_of_labels_learns_by_the_tasks_loss(
    tiny_model: Path, tiny_task: Task, tmp_path: Path
) -> None:
    other = BertConfig.from_pretrained(tiny_model, problem_type="multi_label_classification")
    start = shutil.copytree(tiny_model, tmp_path / "start")
    other.save_pretrained(start)
    network = starts.build(start, tiny_task)
    assert network.config.problem_type == "single_label_classification"


def test_regression_metrics_by_hand() -> None:
    found = alike().metrics(np.array([[1.0], [2.0], [4.0]]), np.array([1.0, 3.0, 2.0]))
    assert list(found) == ["pearson", "spearmanr", "mse"]
    assert list(found)[0] == Regression.main_metric
    # Means 7/3 and 2: sum of products 1, sums of squares 42/9 and 2.
    assert found["pearson"] == pytest.approx(1 / math.sqrt(42 / 9 * 2))
    # Ranks 1 2 3 against 1 3 2.
    assert found["spearmanr"] == pytest.approx(0.5)
    assert found["mse"] == pytest.approx(5 / 3)


def test_regression_metrics_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    answers = generator.normal(size=(80, 1)).astype(np.float32)
    expected = answers[:, 0] + generator.normal(size=80)
    found = alike().metrics(answers, expected)
    ranks = [np.argsort(np.argsort(values)) for values in (answers[:, 0], expected)]
    assert found["pearson"] == pytest.approx(np.corrcoef(answers[:, 0], expected)[0, 1])
    assert found["spearmanr"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found["mse"] == pytest.approx(np.mean((answers[:, 0] - expected) ** 2))


@pytest.mark.parametrize(
    ("answers", "expected", "what"),
    [([2.5, 2.5, 2.5], [1, 2, 3], "answers"), ([1, 2, 3], [4, 4, 4], "references"), ([1], [1], "")],
)
def test_without_a_correlation_it_counts_as_nothing_and_says_so(
    answers: list[float], expected: list[float], what: str
) -> None:
    with pytest.warns(UserWarning, match=f"{what} are .*no correlation is defined"):
        found = alike().metrics(np.array(answers)[:, None], np.array(expected))
    assert (found["pearson"], found["spearmanr"]) == (0.0, 0.0)
    assert found["mse"] == pytest.approx(np.mean((np.array(answers) - expected) ** 2))


def test_answers_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="1 of 2 answers are no numbers.*--learning_rate"):
        alike().metrics(np.array([[np.nan], [1.0]]), np.array([1.0, 2.0]))


def test_multi_label_metrics_by_hand() -> None:
    logits = np.array([[3.0, -1.0], [0.1, 2.0], [-2.0, -0.1]])
    expected = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = places().metrics(logits, expected)
    assert next(iter(found)) == MultiLabel.main_metric
    # sea: 1 right, 1 wrong, 1 missed; sky: 1 right.
    assert found == {
        "f1_micro": pytest.approx(2 * 2 / (2 * 2 + 1 + 1)),
        "f1_macro": pytest.approx((2 / (2 + 1 + 1) + 1) / 2),
        "accuracy": pytest.approx(1 / 3),
    }


def test_a_label_never_answered_nor_wanted_counts_as_nothing_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = places().metrics(np.array([[1.0, -1.0]]), np.array([[1.0, 0.0]]))
    assert found == {"f1_micro": 1.0, "f1_macro": 0.5, "accuracy": 1.0}


def test_samples_show_scores_and_names() -> None:
    assert set(alike().sample(16)["label"]) == {1.0, 5.0}
    shown = places().sample(6)
    assert dict(zip(shown["text"], shown["label"], strict=True)) == {
        "wave and boat": "sea",
        "cloud and bird": "sky",
        "fish under star": "sea, sky",
        "a chair": "",
        "salt wind": "sky, sea",
        "boat": "sea",
    }


def test_shortening_and_fingerprints_know_these_labels() -> None:
    task = places()
    assert type(task.shortened(2, 2)) is MultiLabel
    assert len(task.shortened(2, 3).validation) == 3
    other = Dataset.from_dict({"text": task.train["text"], "label": [[0]] * 6})
    changed = MultiLabel(task.name, other, task.validation, task.labels, 16)
    assert task.fingerprint == places().fingerprint != changed.fingerprint


@pytest.mark.skipif("TUTORIAL_DATA_DIR" not in os.environ, reason="TUTORIAL_DATA_DIR is not set")
def test_well_known_sets_of_both_kinds_are_read_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    stsb = load_task("stsb", tier=tiers.TIERS["full"], max_seq_length=64)
    assert isinstance(stsb, Regression)
    assert (len(stsb.train), len(stsb.validation)) == (5749, 1500)
    assert (min(stsb.train["label"]), max(stsb.train["label"])) == (0.0, 5.0)
    emotions = load_task("go_emotions", tier=tiers.TIERS["full"], max_seq_length=64)
    assert isinstance(emotions, MultiLabel)
    assert (len(emotions.train), len(emotions.validation)) == (43410, 5426)
    assert (emotions.labels[0], emotions.labels[-1]) == ("admiration", "neutral")
    several = np.mean([len(numbers) > 1 for numbers in emotions.train["label"]])
    assert several == pytest.approx(0.162, abs=0.005), "about the share of all three splits"
    rows = emotions.encode(tokenizer, emotions.validation)
    assert emotions.references(rows).sum() == sum(map(len, emotions.validation["label"]))
