"""Question answering: windows hold their answers, and SQuAD's scores are SQuAD's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    BertTokenizer,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from helpers import answers, asking, models, question_answering, squad, stops, tiers
from helpers.answers import Window
from helpers.errors import UserError
from helpers.question_answering import QuestionAnswering, load_question_answering

SHORT = "The tide rises twice a day."
# About 270 tokens: at 64 tokens a window it takes six.
LONG = " ".join(f"In year {n} the tide rose {n + 3} metres and fell again." for n in range(20))
ODD = "  Zürich 🌊 naïve\u2028 the e\u0301cole’s “tide”,\tdon't: 3,000 m²!  "


def row(name: str, question: str, context: str, *texts: str) -> squad.Row:
    """Return a question whose answers stand where each text occurs first."""
    found = {"text": list(texts), "answer_start": [context.index(text) for text in texts]}
    return {"id": name, "title": "", "context": context, "question": question, "answers": found}


ANSWERED = [
    row("first word", "what rises?", SHORT, "The tide"),
    row("last word", "how often?", SHORT, "twice a day."),
    row("long, begin", "which year?", LONG, "year 0"),
    row("long, middle", "how high in year 11?", LONG, "14 metres", "14"),
    row("long, end", "and in the end?", LONG, "22 metres and fell again"),
    row("odd", "wo?", ODD, "naïve"),
    row("accent", "quoi?", ODD, "e\u0301cole"),
    row("spaces around", "how many?", ODD, " 3,000 m² "[:-1]),
    row("a piece of a word", "what is no longer whole?", SHORT, "wice"),
]
SILENT = [row("none, short", "who?", SHORT), row("none, long", "why?", LONG)]


def dataset(rows: list[squad.Row]) -> Dataset:
    """Return rows as a data set with SQuAD's columns."""
    return Dataset.from_list(rows, features=squad.columns())


def task_of(rows: list[squad.Row], **fields: Any) -> QuestionAnswering:
    """Return a task of windows of 64 tokens that share 16."""
    data = dataset(rows)
    return QuestionAnswering("tides", data, data, [], 64, **{"doc_stride": 16, **fields})


def gold_outputs(features: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a perfect model, padded as the Trainer pads them."""
    width = max(features["length"])
    logits = np.full((2, len(features), width), -100.0)
    for i, window in enumerate(features):
        logits[:, i, : window["length"]] = 0
        logits[0, i, window["start_positions"]] = 10
        logits[1, i, window["end_positions"]] = 10
    return logits[0], logits[1]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(str(tiny_model))


def test_windows_cover_a_long_context_and_overlap(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(ANSWERED[3:4])
    windows = task.references(task.encode_validation(tokenizer, task.validation))
    places = [window.offsets[window.context] for window in windows]
    assert len(places) >= 5
    assert places[0][0, 0] == 0 and places[-1][-1, 1] == len(LONG)
    for this, following in zip(places, places[1:], strict=False):
        assert (this[-16:] == following[:16]).all()
    for window, offsets in zip(windows, places, strict=True):
        assert window.passage == LONG[offsets[0, 0] : offsets[-1, 1]]
        start, end = offsets[3]
        assert window.text(start, end) == LONG[start:end]


def test_contexts_that_take_long_are_said(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture
) -> None:
    short, long = task_of(ANSWERED[:1]), task_of(ANSWERED[3:4])
    short.encode_validation(tokenizer, short.validation)
    assert capsys.readouterr().out == ""
    made = long.encode_validation(tokenizer, long.validation)
    assert f"1 question makes {len(made)} windows of" in capsys.readouterr().out


def test_training_and_validation_have_the_same_windows(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(ANSWERED)
    train, checked = (
        task.encode(tokenizer, task.train),
        task.encode_validation(tokenizer, task.validation),
    )
    inputs = {"input_ids", "token_type_ids", "attention_mask"}
    assert set(train.column_names) == inputs | {"length", "start_positions", "end_positions"}
    assert train.to_list() == checked.select_columns(train.column_names).to_list()
    assert train["length"] == [len(ids) for ids in train["input_ids"]]
    assert max(train["length"]) == 64 and min(train["length"]) < 20


def test_labels_are_the_answer_where_it_is_whole_and_cls_elsewhere(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = task_of(ANSWERED[3:4])
    held = 0
    for window in task.encode(tokenizer, task.train):
        ids = window["input_ids"][window["start_positions"] : window["end_positions"] + 1]
        if window["start_positions"]:
            held += 1
            assert tokenizer.decode(ids) == "14 metres"
        else:
            assert ids == [tokenizer.cls_token_id]
            assert "14 metres" not in tokenizer.decode(window["input_ids"])
    assert 1 <= held <= 2


def test_many_questions_without_an_answer_may_come_first(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Encoded a hundred at a time, of which none says what an answer looks like."""
    silent = [{**SILENT[0], "id": str(n)} for n in range(100)]
    task = task_of([*silent, ANSWERED[0]], version_2_with_negative=True)
    features = task.encode_validation(tokenizer, task.validation)
    assert [window.answers for window in task.references(features)][-2:] == [(), ("The tide",)]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("order", ["as they are", "by length", "shuffled"])
def test_gold_logits_give_full_marks(
    order: str, negative: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = ANSWERED[:-1] + (SILENT if negative else [])
    task = task_of(whole, version_2_with_negative=negative)
    features = task.encode_validation(tokenizer, task.validation)
    if order == "by length":
        features = features.sort("length")
    elif order == "shuffled":
        features = features.shuffle(seed=1)
    found = task.metrics(gold_outputs(features), task.references(features))
    assert next(iter(found)) == task.main_metric
    assert len(found) == (6 if negative else 2)
    assert found == dict.fromkeys(found, 1.0)


def test_a_piece_of_a_word_is_answered_by_the_token_it_is_in(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = task_of(ANSWERED[-1:])
    features = task.encode_validation(tokenizer, task.validation)
    found = task.predictions(gold_outputs(features), task.references(features))
    assert found.texts == {"a piece of a word": "twice"}


def test_a_wrong_answer_costs_its_share(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of(ANSWERED[:2])
    features = task.encode_validation(tokenizer, task.validation)
    starts, ends = gold_outputs(features)
    starts[1], ends[1] = starts[0], ends[0]  # "The tide" to "how often?"
    # Nothing in common with "twice a day."
    assert task.metrics((starts, ends), task.references(features))["f1"] == pytest.approx(0.5)


def test_a_question_that_fills_the_window_is_cut_to_half_of_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    question = " \n" * 500 + "why " * 200
    task = task_of([ANSWERED[3] | {"question": question}])
    features = task.encode_validation(tokenizer, task.validation)
    assert all(ids.count(tokenizer.vocab["why"]) == 32 for ids in features["input_ids"])
    assert task.metrics(gold_outputs(features), task.references(features))["f1"] == 1


def test_a_stride_that_leaves_no_room_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    # 64 tokens less 3 special ones and "and in the end?" leave 56.
    windows = [
        len(task.encode(tokenizer, task.train))
        for task in (task_of(ANSWERED[4:5], doc_stride=stride) for stride in (0, 55))
    ]
    assert windows[0] < 6 and windows[1] > 150
    task = task_of(ANSWERED[4:5], doc_stride=56)
    with pytest.raises(UserError, match="question of 5 tokens .* room for 56 .*--doc_stride 28"):
        task.encode(tokenizer, task.train)
    task = replace(task, max_seq_length=8, doc_stride=2)
    with pytest.raises(UserError, match="room for 1 tokens of context. Use a larger --max_seq"):
        task.encode(tokenizer, task.train)


def test_questions_that_are_cut_are_counted(
    tokenizer: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture
) -> None:
    asked = [row(f"{words} words", "why " * words, SHORT, "twice") for words in (32, 33, 90)]
    task = task_of(asked)
    task.encode(tokenizer, task.train)
    found = capsys.readouterr().out
    assert "2 of 3 questions have more than 32 tokens (first: 33 words)" in found
    task = task_of(asked[:1])
    task.encode(tokenizer, task.train)
    assert "questions" not in capsys.readouterr().out


def test_windows_longer_than_the_model_reads_are_refused(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    task = replace(task_of(ANSWERED), max_seq_length=65)
    with pytest.raises(UserError, match="max_seq_length is 65"):
        task.encode(tokenizer, task.train)


def test_tokenizers_without_characters_or_padding_at_the_left_are_refused(
    tiny_model: Path,
) -> None:
    task = task_of(ANSWERED)
    with pytest.raises(UserError, match="fast tokenizer"):
        task.encode(BertTokenizer.from_pretrained(str(tiny_model)), task.train)
    left = AutoTokenizer.from_pretrained(str(tiny_model), padding_side="left")
    with pytest.raises(UserError, match="pads at the left"):
        task.encode_validation(left, task.train)


@pytest.mark.parametrize("field", ["doc_stride", "max_answer_length", "n_best_size"])
def test_sizes_that_mean_nothing_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=f"--{field}"):
        task_of(ANSWERED, **{field: -1})


def test_a_context_without_a_token_has_no_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    task = task_of([row("blank", "what?", "\u200b\u0000", "\u200b")])
    features = task.encode_validation(tokenizer, task.validation)
    found = task.predictions(gold_outputs(features), task.references(features))
    assert found.texts == {"blank": ""}


def test_an_answer_that_is_not_where_it_says_is_not_learnt(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    moved = row("moved", "how often?", SHORT, "twice")
    moved["answers"]["answer_start"] = [3]
    task = task_of([moved])
    assert task.encode(tokenizer, task.train)["start_positions"] == [0]


def test_config_sample_and_fingerprint(tiny_model: Path) -> None:
    task = task_of(ANSWERED)
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_model, **task.config)
    assert model.qa_outputs.out_features == 2
    sample = task.sample(3)
    assert list(sample) == ["question", "context", "answer"] and len(sample) == 3
    assert all(a in c for a, c in zip(sample["answer"], sample["context"], strict=True))
    assert task.fingerprint == task_of(ANSWERED).fingerprint
    others = [task_of(ANSWERED, doc_stride=8), task_of(ANSWERED[1:]), task.shortened(2, None)]
    assert len({task.fingerprint, *(other.fingerprint for other in others)}) == 4


# What SQuAD's own scripts say, worked out by hand: both texts in lower case, without ASCII
# punctuation, without the words a, an, the; F1 over the words that are left.
# given, right answers, exact match, F1
SQUAD_CASES = [
    ("twice a day", ["twice a day"], 1, 1),
    ("The Eiffel Tower!", ["eiffel tower"], 1, 1),
    ("an apple a  day", ["apple day"], 1, 1),
    ("US", ["U.S."], 1, 1),
    ("3,000", ["3000"], 1, 1),
    ("ZÜRICH", ["Zürich"], 1, 1),
    ("naive", ["naïve"], 0, 0),  # accents stay
    ("“tide”", ["tide"], 0, 0),  # so does punctuation outside of ASCII
    ("well-known", ["well known"], 0, 0),  # "wellknown" is one word
    ("the-end", ["end"], 0, 0),  # punctuation goes first: "theend" has no article
    ("theory", ["ory"], 0, 0),
    ("New York", ["New York City"], 0, 4 / 5),  # precision 2/2, recall 2/3
    ("in New York", ["New York City"], 0, 2 / 3),  # 2/3 and 2/3
    ("cat cat dog", ["cat dog dog"], 0, 2 / 3),  # a word counts as often as both have it
    ("1969", ["July 1969", "in 1969", "1969"], 1, 1),
    ("July 20", ["1969", "July 1969"], 0, 1 / 2),  # the best of several
    ("the tide", ["a tide", "nothing"], 1, 1),
    ("", ["tide"], 0, 0),
]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize(("given", "golds", "exact", "f1"), SQUAD_CASES)
def test_scores_are_those_of_squad(
    given: str, golds: list[str], exact: int, f1: float, negative: bool
) -> None:
    found = answers.answer_scores(given, golds, negative)
    assert found == (pytest.approx(f1), exact)


@pytest.mark.parametrize(
    ("given", "golds", "negative", "exact", "f1"),
    [
        ("the", ["a"], False, 1, 0),  # v1.1: nothing in common is no F1
        ("the", ["a"], True, 1, 1),  # v2: both are "no answer"
        ("", ["a", "tide"], True, 0, 0),  # v2: "a" is no right answer beside another
        ("", ["a", "tide"], False, 1, 0),
        ("", [], True, 1, 1),
        ("tide", [], True, 0, 0),
    ],
)
def test_nothing_left_of_an_answer(
    given: str, golds: list[str], negative: bool, exact: int, f1: int
) -> None:
    assert answers.answer_scores(given, golds, negative) == (f1, exact)


def test_scores_are_means_from_0_to_1() -> None:
    texts = {str(i): given for i, (given, *_) in enumerate(SQUAD_CASES)}
    golds = {str(i): case[1] for i, case in enumerate(SQUAD_CASES)}
    expected = {
        "f1": sum(case[3] for case in SQUAD_CASES) / len(SQUAD_CASES),
        "exact_match": sum(case[2] for case in SQUAD_CASES) / len(SQUAD_CASES),
    }
    assert answers.score(texts, golds) == pytest.approx(expected)
    both = answers.score(
        {"a": "New York", "b": "", "c": "tide"},
        {"a": ["New York City"], "b": [], "c": []},
        version_2_with_negative=True,
    )
    assert both == pytest.approx(
        {
            "f1": 1.8 / 3,
            "exact_match": 1 / 3,
            "HasAns_f1": 0.8,
            "HasAns_exact": 0,
            "NoAns_f1": 0.5,
            "NoAns_exact": 0.5,
        }
    )


# Tokens: [CLS] what [SEP] aa bb cc dd [SEP], in the context "-- aa bb cc dd", from character 3.
WORDS = Window(
    "q",
    np.array([[-1, -1]] * 3 + [[3, 5], [6, 8], [9, 11], [12, 14]] + [[-1, -1]]),
    "aa bb cc dd",
    ("bb",),
)


def logits_at(**scores: float) -> np.ndarray:
    """Return 8 logits of -9 and two of padding, set at c(ls) or the words a to d."""
    found = np.full(10, -9.0)
    found[8:] = 99  # must be ignored
    for name, value in scores.items():
        found[{"c": 0, "q": 1, "aa": 3, "bb": 4, "cc": 5, "dd": 6}[name]] = value
    return found


def test_spans_are_paired_in_order_within_length_and_context() -> None:
    starts, ends = logits_at(q=50, dd=7, bb=5, aa=4), logits_at(q=50, bb=6, cc=5, dd=1)
    spans = answers.best_spans(WORDS, starts, ends, n_best=4, longest=2)
    assert [(span.text, span.score) for span in spans] == [
        ("bb", 11),
        ("bb cc", 10),
        ("aa bb", 10),
        ("dd", 8),
    ]
    assert (spans[0].start, spans[0].end) == (6, 8)
    longer = answers.best_spans(WORDS, starts, ends, n_best=2, longest=3)
    assert [span.text for span in longer] == ["bb", "bb cc"]  # only "dd" and "bb" are starts


def test_the_windows_of_a_question_compete_and_no_span_is_listed_twice() -> None:
    weak, strong = logits_at(bb=1, aa=0.5), logits_at(bb=3)
    found = answers.predict(([weak, strong], [weak, strong]), [WORDS, WORDS], n_best=3, longest=30)
    assert found.texts == {"q": "bb"} and found.null_odds is None
    listed = found.n_best["q"]
    assert [entry["text"] for entry in listed] == ["bb", "aa bb", "aa"]
    assert [entry["start_logit"] for entry in listed] == [3, 0.5, 0.5]
    odds = np.exp([6, 1.5, 1.0])
    assert [entry["probability"] for entry in listed] == pytest.approx(list(odds / odds.sum()))


def test_no_answer_is_the_least_of_its_windows_and_the_threshold_decides() -> None:
    starts = [logits_at(c=4, bb=2), logits_at(c=2)]
    ends = [logits_at(c=4, bb=2), logits_at(c=3)]
    texts = {}
    for threshold in (0.0, 1.0, 1.5):
        found = answers.predict(
            (starts, ends), [WORDS, WORDS], n_best=5, longest=30, null_threshold=threshold
        )
        assert found.null_odds == {"q": 1.0}  # 2 + 3 against 2 + 2
        assert [entry["text"] for entry in found.n_best["q"]][:2] == ["", "bb"]
        texts[threshold] = found.texts["q"]
    assert texts == {0.0: "", 1.0: "bb", 1.5: "bb"}


def test_no_answer_is_listed_even_if_it_is_the_worst() -> None:
    logits = logits_at(c=-50, bb=2)
    found = answers.predict(([logits], [logits]), [WORDS], n_best=2, longest=30, null_threshold=0)
    assert [entry["text"] for entry in found.n_best["q"]][-1] == "" and found.texts["q"] == "bb"


def test_outputs_of_other_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        answers.predict(([logits_at()], [logits_at()]), [WORDS] * 2, n_best=1, longest=1)


@pytest.mark.parametrize("negative", [False, True])
def test_files_are_those_of_run_qa(
    negative: bool, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    task = task_of(ANSWERED[5:7], version_2_with_negative=negative)
    features = task.encode_validation(tokenizer, task.validation)
    found = task.predictions(gold_outputs(features), task.references(features))
    files = answers.write_predictions(tmp_path / "new", found, "eval_")
    names = ["eval_predictions.json", "eval_nbest_predictions.json"]
    assert [file.name for file in files] == names + ["eval_null_odds.json"] * negative
    stored = [json.loads(file.read_text("utf-8")) for file in files]
    assert stored[0] == {"odd": "naïve", "accent": "e\u0301cole"}
    for listed in stored[1].values():
        # "No answer" is added to the best, as run_qa does.
        assert len(listed) <= task.n_best_size + task.version_2_with_negative
        assert set(listed[0]) == {"text", "probability", "start_logit", "end_logit"}
        assert sum(entry["probability"] for entry in listed) == pytest.approx(1)
    if negative:
        assert stored[2] == {"odd": -20.0, "accent": -20.0}
    task.write_answers(tmp_path, gold_outputs(features), task.references(features))
    for file in files:
        assert (tmp_path / file.name).read_text("utf-8") == file.read_text("utf-8")


def test_the_trainer_learns_it_and_scores_it(tiny_model: Path, tmp_path: Path) -> None:
    """The real Trainer drops the columns for scoring, pads with -100, and gets both outputs."""
    task = task_of(ANSWERED)
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    torch.manual_seed(0)
    network = AutoModelForQuestionAnswering.from_pretrained(tiny_model, **task.config)
    features = task.encode_validation(tokenizer, task.validation).sort("length")
    windows = task.references(features)
    args = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=8,
        per_device_eval_batch_size=4,
        learning_rate=5e-3,
        num_train_epochs=12,
        group_by_length=True,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        network,
        args,
        train_dataset=task.encode(tokenizer, task.train),
        eval_dataset=features,
        data_collator=task.collator(tokenizer),
        compute_metrics=lambda found: task.metrics(found.predictions, windows),
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.7 * before["eval_loss"]
    assert after["eval_f1"] > before["eval_f1"] + 0.15
    starts, ends = asking.logits(network.eval(), tokenizer, features)
    again = task.metrics((starts, ends), windows)
    assert after["eval_f1"] == pytest.approx(again["f1"])
    assert after["eval_exact_match"] == pytest.approx(again["exact_match"])


@pytest.mark.parametrize("negative", [False, True])
def test_a_huge_context_is_answered_in_its_own_characters(
    negative: bool, tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    context = LONG * 30  # about 8,000 tokens
    asked = [row(asking.ASKED, "how high?", context)]
    task = task_of(asked, version_2_with_negative=negative)
    torch.manual_seed(0)
    network = AutoModelForQuestionAnswering.from_pretrained(tiny_model).eval()
    table = asking.best_answers(task, network, tokenizer)
    assert list(table) == ["answer", "score", "start", "end"]
    assert task.n_best_size <= len(table) <= task.n_best_size + negative
    assert ("" in set(table["answer"])) == negative
    for text, start, end in zip(table["answer"], table["start"], table["end"], strict=True):
        assert text == context[start:end]
    assert table["score"].between(0, 1).all()


@pytest.mark.parametrize("threshold", [-1e9, 1e9])
def test_the_threshold_decides_what_is_answered_first(
    threshold: float, tiny_model: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    asked = [row(asking.ASKED, "how often?", SHORT)]
    task = task_of(asked, version_2_with_negative=True, null_score_diff_threshold=threshold)
    network = AutoModelForQuestionAnswering.from_pretrained(tiny_model).eval()
    found = list(asking.best_answers(task, network, tokenizer)["answer"])
    assert found.count("") == 1
    assert (found[0] == "") == (threshold < 0)


def test_a_checkpoint_is_asked_with_the_settings_it_keeps(
    tiny_model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    asked = [row(asking.ASKED, "how high?", LONG)]
    task = task_of(asked, doc_stride=20, max_answer_length=2, version_2_with_negative=True)
    network = models.new_model(tiny_model, task).eval()
    models.save_model(network, tmp_path, quantized=False)
    tokenizer.save_pretrained(tmp_path)
    stops.write_note(tmp_path, "run.json", task.settings)
    checkpoint = stops.Checkpoint.load(tmp_path)
    table = asking.answer(checkpoint, "how high?", LONG, top=3)
    expected = asking.best_answers(task, network, tokenizer).head(3)
    pd.testing.assert_frame_equal(table, expected)
    assert len(table) == 3


def write(file: Path, rows: list[squad.Row]) -> Path:
    """Write flat rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows), "utf-8")
    return file


def test_loading_from_files(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.json", [found]) for i, found in enumerate(ANSWERED[:2])]
    held_out = write(tmp_path / "dev.json", SILENT)
    options = {"validation_file": held_out, "version_2_with_negative": True, "doc_stride": 32}
    task = load_question_answering("mine", train_files=files, **options)
    assert task.train["id"] == ["first word", "last word"]
    assert task.validation["id"] == [found["id"] for found in SILENT]
    assert (task.name, task.max_seq_length, task.doc_stride) == ("mine", 384, 32)
    assert task.version_2_with_negative and task.labels == []
    one = load_question_answering("mine", train_files=files[0], **options)
    assert one.train["id"] == ["first word"]
    with pytest.raises(UserError, match="--version_2_with_negative"):
        load_question_answering("mine", train_files=files, validation_file=held_out)


@pytest.mark.parametrize("given", ["train_files", "validation_file"])
def test_one_part_alone_is_refused(given: str, tmp_path: Path) -> None:
    file = write(tmp_path / "q.json", ANSWERED)
    with pytest.raises(UserError, match="is missing"):
        load_question_answering("mine", **{given: file})


def test_sizes_are_those_asked_for_or_the_tiers(tmp_path: Path) -> None:
    rows = [found | {"id": f"{found['id']} {i}"} for i in range(40) for found in ANSWERED]
    file = write(tmp_path / "q.json", rows)
    files = {"train_files": file, "validation_file": file}
    smoke = load_question_answering("mine", **files, tier=tiers.TIERS["smoke"])
    assert (len(smoke.train), len(smoke.validation)) == (160, 200)
    few = load_question_answering("mine", **files, max_train_samples=7, max_eval_samples=5)
    assert (len(few.train), len(few.validation)) == (7, 5)
    full = load_question_answering("mine", **files, tier=tiers.TIERS["full"])
    assert (len(full.train), len(full.validation)) == (360, 360)


def test_squad_comes_from_the_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no data file .*train-part-v1.1.json"):
        load_question_answering("squad")
    for file, found in zip(question_answering.SQUAD_TRAIN, ANSWERED, strict=False):
        write(tmp_path / file, [found])
    write(tmp_path / question_answering.SQUAD_VALIDATION, ANSWERED[3:5])
    task = load_question_answering("squad")
    assert task.train["id"] == [found["id"] for found in ANSWERED[:3]]
    assert len(task.validation) == 2


def test_a_hub_name_without_a_hub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTORIAL_DATA_DIR", raising=False)
    with pytest.raises(UserError, match="rajpurkar/squad"):
        load_question_answering("squad")


@pytest.mark.parametrize("question, context", [("", SHORT), ("what?", " \n")])
def test_an_empty_box_is_refused(question: str, context: str) -> None:
    with pytest.raises(UserError, match="are needed"):
        asking.answer(stops.Checkpoint(Path("none"), {}), question, context)
