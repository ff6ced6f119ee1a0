"""Real texts through real engines: lengths counted, two ways of padding, proofs that must fail."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_engines import needs_deepsparse
from tiny_graphs import encoder

from helpers import engines, load_task, text_measurements
from helpers.benchmark import Row
from helpers.engine_process import EngineProcess
from helpers.errors import ProofError, UserError
from helpers.export import write_graph
from helpers.models import load_model
from helpers.real_texts import measure_texts
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.text_lengths import TextLengths, count_lengths, smallest, tokenizer_of
from helpers.text_measurements import TextMeasurement, faster_pass, faster_text, verdict
from helpers.text_proof import agreement, changes
from helpers.text_runs import Work, batched, logits, padded
from helpers.text_tasks import MultiLabel, Regression

FAULTS = "padding_engines"
QUICK = {"batch_size": 4, "num_cores": 1, "timed_texts": 6, "passes": 2}
WORDS = ("wave", "boat", "cloud", "bird")


@pytest.fixture(scope="module")
def export(dense: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny dense model as ONNX, and its tokenizer and config."""
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    shutil.copytree(
        dense.folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "run.json")
    )
    write_graph(load_model(dense), folder / "model.onnx", ("logits",), quantized=False)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Return a task whose texts have 3 to 22 tokens, of which 16 are kept."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = [
        f"{' '.join([WORDS[i % 4]] * count)},{('sea', 'sky')[i // 2 % 2]}"
        for i, count in enumerate([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20])
    ]
    for name in ("train", "validation"):
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    files = {f"{name}_file": folder / f"{name}.csv" for name in ("train", "validation")}
    return load_task("mixed", **files, max_seq_length=16)


def timed(padding: str, mean: float, rate: float, **more: object) -> TextMeasurement:
    """Return a row with the given milliseconds a text and texts a second."""
    basic = TextMeasurement("m", "onnxruntime", padding, [16], 4, 1, "0" * 64)
    times = {"mean_ms": mean, "saved_ms": 0.0, "saved_error_ms": 0.1, "labels_changed": 0}
    times |= {"texts_per_second": rate, "slowest_pass": rate - 1, "fastest_pass": rate + 1}
    shares = {"tokenize_share": 0.1, "engine_share": 0.8, "processes": 2, "memory_mb": 200.0}
    shares |= {"tokenize_ms": 0.25, "median_ms": mean}
    return replace(basic, **{**times, **shares, "texts": 12, **more})


def test_lengths_are_those_of_the_tokenizer(mixed: Task, tiny_model: Path) -> None:
    lengths = count_lengths(mixed, tokenizer_of(tiny_model), [4, 8, 12])
    # [CLS] and [SEP] come to the words; the longest is cut off, as in training.
    assert lengths.each.tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16]
    assert lengths.cut == 1
    assert lengths.buckets == [4, 8, 12, 16], "the last one is added, so that no text is cut more"
    assert (lengths.quantile(0), lengths.quantile(50), lengths.quantile(100)) == (3, 8, 16)
    assert lengths.padding([16]) == pytest.approx(1 - 104 / 192)
    assert lengths.padding(lengths.buckets) == pytest.approx(
        1 - 104 / (2 * 4 + 4 * 8 + 4 * 12 + 32)
    )
    described = lengths.describe()
    assert described["texts"] == 12
    assert described["padding"]["one length"] > described["padding"]["buckets"]


def test_pairs_are_as_long_as_both_texts(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("train", "validation"):
        rows = ["sentence1,sentence2,label", "wave wave,boat,0", "wave,boat boat boat boat,1"]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    files = {f"{name}_file": tmp_path / f"{name}.csv" for name in ("train", "validation")}
    pairs = load_task("pairs", **files, max_seq_length=7)
    lengths = count_lengths(pairs, tokenizer_of(tiny_model))
    assert lengths.each.tolist() == [6, 7]
    assert lengths.cut == 1
    work = Work(pairs, tokenizer_of(tiny_model), lengths, 2, 2, 1, 1, 9.0)
    assert [len(ids) for ids in work.tokens()["input_ids"]] == [6, 7]
    assert work.tokens(1)["input_ids"] == work.tokens()["input_ids"][1:]


def test_a_model_that_classifies_no_texts_is_refused(tmp_path: Path) -> None:
    with EngineProcess("test_engines:Fake", encoder(tmp_path / "m.onnx")) as process:
        for outputs in ([np.zeros((1, 8, 3))], [np.zeros((1, 8)), np.zeros((1, 8))]):
            with pytest.raises(UserError, match="Expected a classifier of texts"):
                logits(process, outputs)


def test_buckets_that_no_text_needs_are_left_out(tiny_task: Task, tiny_model: Path) -> None:
    lengths = count_lengths(tiny_task, tokenizer_of(tiny_model), [2, 8, 12, 14, 32])
    assert lengths.buckets == [12]
    assert count_lengths(tiny_task, tokenizer_of(tiny_model)).buckets == [16]


def test_a_text_goes_into_the_smallest_length_that_holds_it() -> None:
    assert smallest([4, 8, 16], np.array([1, 4, 5, 8, 16])).tolist() == [4, 4, 8, 8, 16]


def test_batches_hold_every_row_once_and_copies_of_a_last_one() -> None:
    ids = [[0] * n for n in (3, 9, 2, 4, 8, 1)]
    found = [(length, rows.tolist()) for length, rows in batched(ids, [4, 16], 3)]
    assert found == [(4, [0, 2, 3]), (4, [5, 5, 5]), (16, [1, 4, 4])]


def test_padding_is_masked_and_has_the_pad_id() -> None:
    tokens = {"input_ids": [[5, 6, 7], [8]], "attention_mask": [[1, 1, 1], [1]]}
    found = padded(tokens, [1, 0], 4, pad_id=9)
    assert found["input_ids"].tolist() == [[8, 9, 9, 9], [5, 6, 7, 9]]
    assert found["attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert not found["token_type_ids"].any()


@pytest.mark.parametrize(
    "engine",
    ["onnxruntime", "openvino", pytest.param("deepsparse", marks=needs_deepsparse)],
)
def test_both_ways_of_padding_are_timed_and_answer_alike(
    engine: str, export: Path, mixed: Task
) -> None:
    lengths, (one, buckets) = measure_texts({"tiny": export}, mixed, [engine], [8, 16], **QUICK)
    assert (one.error, buckets.error) == (None, None)
    assert (one.lengths, buckets.lengths) == ([16], lengths.buckets) == ([16], [8, 16])
    assert (one.labels_changed, buckets.labels_changed) == (None, 0)
    assert buckets.logits_gap < 1e-3
    assert (one.score, one.metric) == (buckets.score, "accuracy")
    assert one.saved_ms == 0
    for row in (one, buckets):
        assert 0 < row.p10_ms <= row.median_ms <= row.p90_ms
        assert 0 < row.slowest_pass <= row.texts_per_second <= row.fastest_pass
        assert 0 < row.tokenize_share < 1 and 0 < row.engine_share < 1
        assert row.tokenize_share + row.engine_share < 1
        assert (row.texts, row.timed_texts, row.passes, row.precision) == (12, 6, 2, "fp32")
        assert row.memory_mb > 5
    assert one.processes == 1
    assert buckets.processes == (1 if engine == "onnxruntime" else 2)


def test_the_score_is_that_of_the_model(export: Path, dense: Checkpoint, tiny_task: Task) -> None:
    _, (_, row) = measure_texts({"tiny": export}, tiny_task, ["onnxruntime"], [12], **QUICK)
    assert row.score == pytest.approx(dense.metrics["accuracy"], abs=1e-4)


def test_a_score_is_by_the_names_of_the_labels(
    export: Path, dense: Checkpoint, tiny_task: Task
) -> None:
    turned = replace(
        tiny_task,
        labels=tiny_task.labels[::-1],
        validation=tiny_task.validation.map(lambda row: {"label": 1 - row["label"]}),
    )
    _, (_, row) = measure_texts({"tiny": export}, turned, ["onnxruntime"], [12], **QUICK)
    assert row.score == pytest.approx(dense.metrics["accuracy"], abs=1e-4)
    others = replace(tiny_task, labels=["yes", "no"])
    _, (_, row) = measure_texts({"tiny": export}, others, ["onnxruntime"], [12], **QUICK)
    assert row.score is None


def test_int8_answers_alike_too(
    sparse_int8: Checkpoint, export: Path, mixed: Task, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    write_graph(load_model(sparse_int8), file, ("logits",), quantized=True)
    named = {"tokenizer_name": str(export)}
    _, (one, buckets) = measure_texts({"int8": file}, mixed, ["onnxruntime"], [8], **QUICK, **named)
    assert (one.precision, buckets.precision) == ("int8", "int8")
    assert one.sparsity > 0.5
    assert buckets.labels_changed == 0


def test_an_engine_that_takes_padding_for_words_is_caught(export: Path, mixed: Task) -> None:
    engine = f"{FAULTS}:BlindToMasks"
    with pytest.raises(ProofError, match="lets padding change what tiny answers"):
        measure_texts({"tiny": export}, mixed, [engine], [8], **QUICK)


def test_more_changed_answers_than_undecided_texts_are_counted(tiny_task: Task) -> None:
    expected = np.array([[2.0, 0.0], [0.0, 0.01], [3.0, 0.0]])
    assert changes(expected, expected + 0.001, tiny_task, 0.02) == (0, 1)
    assert changes(expected, expected[:, ::-1], tiny_task, 0.02) == (3, 1)
    many = MultiLabel("m", tiny_task.train, tiny_task.validation, ["a", "b"], 16)
    assert changes(expected - 0.5, expected - 0.6, many, 0.6) == (0, 3)
    assert changes(np.array([[1.0, 2.0]]), np.array([[1.0, -2.0]]), many, 0.6) == (1, 0)
    scores = Regression("r", tiny_task.train, tiny_task.validation, ["score"], 16)
    # Of a model of scores beside texts with classes, as of one that is measured on scores.
    for task in (scores, tiny_task):
        assert changes(expected[:, :1], expected[:, 1:], task, 0.02) == (0, 0)


def test_one_text_with_another_answer_is_caught_though_the_mean_is_small(tiny_task: Task) -> None:
    row = Row("int8", "openvino", Path("model.onnx"), {})
    expected = np.tile([5.0, 0.0], (200, 1))
    found = expected.copy()
    found[7] = [0.0, 5.0]
    with pytest.raises(ProofError, match="at most 0 other answers, found 1"):
        agreement(row, expected, found, tiny_task, fp32=False)
    with pytest.raises(ProofError, match="largest difference of logits at most 0.001, found 5.0"):
        agreement(row, expected, found, tiny_task, fp32=True)
    with pytest.raises(ProofError, match="found nan"):
        agreement(row, expected, expected * np.nan, tiny_task, fp32=False)
    same = agreement(row, expected, expected + 0.04, tiny_task, fp32=False)
    assert same == {"logits_gap": 0.04, "labels_changed": 0}


def test_an_engine_that_fails_is_two_rows_with_the_reason(export: Path, mixed: Task) -> None:
    broken = f"{FAULTS}:RefusesLongTexts"
    lengths, rows = measure_texts({"tiny": export}, mixed, [broken, "onnxruntime"], [8], **QUICK)
    assert "no kernel for so many tokens (batch 1, 16 tokens)" in rows[0].error
    assert rows[0].error == rows[1].error
    assert rows[0].mean_ms is None
    assert [row.error for row in rows[2:]] == [None, None]
    text = verdict(lengths, rows)
    assert "could not be timed" in text
    assert "tiny on onnxruntime: buckets take" in text


def test_what_cannot_be_timed_is_refused(
    export: Path, mixed: Task, tiny_model: Path, tmp_path: Path
) -> None:
    def refused(reason: str, models: dict[str, Path], task: Task = mixed, **more: object) -> None:
        with pytest.raises(UserError, match=reason):
            measure_texts(models, task, ["onnxruntime"], **QUICK | more)

    tiny = {"tiny": export}
    refused("No length to pad to", tiny, buckets=[])
    refused("9 buckets would be", tiny, buckets=list(range(8, 17)))
    refused("A bucket of 65 tokens is longer than the model takes, which is 64", tiny, buckets=[65])
    refused("at most 64 tokens", tiny, task=replace(mixed, max_seq_length=65))
    refused("at least one model", {})
    refused("2 texts or more", tiny, timed_texts=1)
    bare = Path(shutil.copy(export / "model.onnx", tmp_path / "model.onnx"))
    refused("No tokenizer lies in .* --tokenizer_name", {"bare": bare})
    (tmp_path / "tokenizer.json").write_text("{}")
    refused("tokenizer in .* cannot be read", {"bare": bare})


def test_a_model_without_a_tokenizer_may_take_another_ones(
    export: Path, mixed: Task, tmp_path: Path
) -> None:
    bare = Path(shutil.copy(export / "model.onnx", tmp_path / "model.onnx"))
    named = {"tokenizer_name": str(export)}
    _, rows = measure_texts({"bare": bare}, mixed, ["onnxruntime"], [8], **QUICK, **named)
    assert rows[1].error is None


def test_models_that_read_other_tokens_do_not_compare(
    export: Path, mixed: Task, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(export, tmp_path / "other"))
    file = other / "tokenizer.json"
    found = json.loads(file.read_text())
    found["model"]["vocab"] = {
        word: number for word, number in found["model"]["vocab"].items() if word != "wave"
    }
    file.write_text(json.dumps(found))
    with pytest.raises(UserError, match="other cuts texts into other tokens than tiny"):
        measure_texts({"tiny": export, "other": other}, mixed, ["onnxruntime"], **QUICK)


def test_verdict_says_what_buckets_gain_and_when_it_is_noise() -> None:
    lengths = TextLengths("data", 16, [0, 0, 0, 0, 3, 0, 0, 0, 5] + [0] * 7 + [4], 2, [8, 16])
    one = timed("one length", 4.0, 100.0, processes=1, memory_mb=100.0)
    fast = timed("buckets", 2.0, 250.0, saved_ms=2.0)
    text = verdict(lengths, [one, fast])
    assert "2 had more than 16 and lost the rest" in text
    assert "half of them have 8 tokens or fewer" in text
    assert "buckets take 2.0 ms a text in the mean, one length 4.0 (2.0 times as fast)" in text
    assert "250 texts a second, one length 100 (2.5 times as fast)" in text
    assert "200 MB in 2 processes instead of one with 100" in text
    assert "m on onnxruntime, buckets, 250 in batches of 4. Making tokens takes 10%" in text
    assert "One text alone takes 0.25 ms to become tokens and 2.0 ms in the engine" in text
    noisy = timed("buckets", 3.9, 101.0, saved_ms=0.1)
    assert str(faster_text(one, noisy)) == str(faster_pass(one, noisy)) == "no difference"
    slow = timed("buckets", 8.0, 50.0, saved_ms=-4.0)
    assert str(faster_text(one, slow)) == str(faster_pass(one, slow)) == "2.0 times as slow"


def test_only_files_of_timings_are_read(tmp_path: Path) -> None:
    for content in ("", "[]", '{"measurements": []}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(UserError, match="holds no timings of texts"):
            text_measurements.load(tmp_path / "x.json")


def test_engines_of_any_shape_are_engines() -> None:
    assert set(engines.ANY_SHAPE) <= set(engines.ENGINES)
