"""Timing on real engines, rows that fail, and sentences that must fit their numbers."""

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import numpy_helper
from test_engines import HERE as ENGINE_TESTS
from test_engines import checkpoint, needs_deepsparse, onnx_file  # noqa: F401 - fixtures
from tiny_graphs import encoder

from helpers import benchmark
from helpers.benchmark import (
    Measurement,
    as_table,
    cpu_features,
    load,
    measure,
    save,
    speed_up,
    token_inputs,
    verdict,
)
from helpers.engine_child import CALLS_A_STREAM, Setup, run_many
from helpers.engine_process import check_threads
from helpers.errors import UserError

GOOD_CPU = {"cpu": "x", "cores": 2, "vnni": True, "amx": False, "avx512": True, "bf16": True}
OLD_CPU = GOOD_CPU | {"vnni": False, "avx512": False}
QUICK = {"batch_sizes": (1,), "sequence_length": 8, "num_cores": 1, "rounds": 3, "warmup": 1}


def row(model: str, engine: str, median: float, noise: float = 0.1, **more: object) -> Measurement:
    """Return a measurement with the given median (ms) and relative noise."""
    times = {"median_ms": median, "p10_ms": median * (1 - noise), "p90_ms": median * (1 + noise)}
    basic = Measurement(model, engine, 1, 128, 2, "0" * 64, rounds=9, precision="fp32")
    return dataclasses.replace(basic, **{"sparsity": 0.0, **times, **more})


DENSE = row("dense", "onnxruntime", 10.0)
INT8 = {"precision": "int8", "supported_fraction": 1.0}
DENSE_INT8 = row("dense_int8", "deepsparse", 4.0, **INT8)
SPARSE = row("sparse", "deepsparse", 2.0, sparsity=0.9, **INT8)
SPARSE_ORT = row("sparse", "onnxruntime", 9.0, sparsity=0.9, precision="int8")


@needs_deepsparse
def test_real_engines_are_timed_round_by_round(onnx_file: Path, tmp_path: Path) -> None:  # noqa: F811
    found = measure({"tiny": onnx_file}, ("deepsparse", "onnxruntime"), **QUICK)
    assert [(m.model, m.engine, m.error) for m in found] == [
        ("tiny", "deepsparse", None),
        ("tiny", "onnxruntime", None),
    ]
    for one in found:
        assert 0 < one.p10_ms <= one.median_ms <= one.p90_ms
        assert (one.rounds, one.threads, one.precision, one.sparsity) == (3, 1, "fp32", 0.0)
    assert found[0].sha256 == found[1].sha256
    save(found, tmp_path / "results" / "speed.json", {"python": "3.11"})
    assert load(tmp_path / "results" / "speed.json") == found
    assert list(as_table(found)["median_ms"]) == sorted(m.median_ms for m in found)


def test_rows_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    def take_turn(row: benchmark.Row, _: object, *, counts: bool) -> None:
        turns.append((row.model, counts))

    monkeypatch.setattr(benchmark, "take_turn", take_turn)
    rows = [benchmark.Row(name, "x", Path(), {}) for name in "ab"]
    benchmark.time_rows(rows, token_inputs((1, 8)), rounds=2, warmup=1)
    assert turns == [(name, counts) for counts in (False, True, True) for name in "ab"]


def test_of_calls_at_once_the_time_is_divided_by_their_number() -> None:
    calls = []

    def run(_: object) -> None:
        calls.append(time.sleep(0.05))

    # Two at a time: half of what one takes.
    assert 0.02 < run_many(run, {}, Setup(1, 8, 2, streams=2)) < 0.045
    assert len(calls) == 2 * CALLS_A_STREAM


def test_rounds_end_early_at_the_time_limit_but_not_too_early(onnx_file: Path) -> None:  # noqa: F811
    slow = {**QUICK, "rounds": 500, "max_seconds": 0.0}
    (found,) = measure({"tiny": onnx_file}, ("onnxruntime",), **slow)
    assert found.rounds == benchmark.LEAST_ROUNDS


def test_a_failing_engine_is_a_row_with_its_reason(onnx_file: Path) -> None:  # noqa: F811
    broken = [f"{ENGINE_TESTS}:{name}" for name in ("Aborts", "Refuses")]
    found = measure({"tiny": onnx_file}, [*broken, "onnxruntime"], **QUICK)
    assert "SIGABRT" in found[0].error
    assert "operator Foo" in found[1].error
    assert found[0].median_ms is None
    assert found[2].error is None and found[2].rounds == 3
    assert "could not be timed" in verdict(found, GOOD_CPU)


def test_an_engine_not_for_this_platform_is_a_row_and_the_others_run(
    onnx_file: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"deepsparse": "DeepSparse runs on Linux only"}
    monkeypatch.setattr(benchmark, "missing_engines", lambda: absent)
    engines = ("deepsparse", "onnxruntime")
    rows = measure({"tiny": onnx_file}, engines, batch_sizes=(1,), sequence_length=16, rounds=3)
    errors = {row.engine: row.error for row in rows}
    assert errors == {"deepsparse": "DeepSparse runs on Linux only", "onnxruntime": None}


@pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino", pytest.param("deepsparse", marks=needs_deepsparse)]
)
def test_calls_that_come_at_once_are_counted_together(engine: str, onnx_file: Path) -> None:  # noqa: F811
    quick = QUICK | {"num_cores": None}
    (found,) = measure({"tiny": onnx_file}, [engine], scenario="async", **quick)
    assert found.error is None
    assert found.streams == found.threads == check_threads(None)
    with pytest.raises(UserError, match="Expected sync or async"):
        measure({"tiny": onnx_file}, [engine], scenario="offline", **QUICK)


def test_int8_that_an_engine_computes_in_float_is_said() -> None:
    slow = row("sparse", "openvino", 30.0, sparsity=0.9, precision="int8", int8_run=0)
    assert "openvino runs none of the int8 products of sparse" in verdict([DENSE, slow], GOOD_CPU)
    fine = dataclasses.replace(slow, int8_run=50)
    assert "runs none" not in verdict([DENSE, fine], GOOD_CPU)


def test_a_row_that_hangs_drops_out_and_the_others_go_on(onnx_file: Path) -> None:  # noqa: F811
    engines = [f"{ENGINE_TESTS}:Hangs", "onnxruntime"]
    found = measure({"tiny": onnx_file}, engines, timeout=15, **QUICK)
    assert "no answer" in found[0].error
    assert found[1].rounds == 3


def test_a_model_no_engine_takes_says_why(checkpoint: Path) -> None:  # noqa: F811
    found = measure({"folder": checkpoint}, ["onnxruntime"], **QUICK)
    assert "onnxruntime runs: ONNX file." in found[0].error
    assert found[0].error.endswith("is: checkpoint. Export it first.")


def test_answers_that_are_no_numbers_are_a_reason(onnx_file: Path) -> None:  # noqa: F811
    found = measure({"tiny": onnx_file}, [f"{ENGINE_TESTS}:AnswersNan", "onnxruntime"], **QUICK)
    assert "answers NaN to ordinary words" in found[0].error
    assert found[1].error is None and found[1].rounds == 3


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    file = encoder(tmp_path / "m.onnx", broken=True)
    with pytest.raises(UserError, match="holds NaN in w: its training went wrong"):
        measure({"m": file}, ["onnxruntime"], **QUICK)


def test_half_precision_is_called_by_its_name(tmp_path: Path) -> None:
    import onnx

    file = encoder(tmp_path / "m.onnx")
    model = onnx.load(str(file))
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                attribute.i = onnx.TensorProto.FLOAT16
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, str(file))
    rows = measure({"m": file}, ["onnxruntime", "openvino"], **QUICK)
    assert [(row.precision, row.error) for row in rows] == [("fp16", None)] * 2


def test_a_row_that_fails_is_stopped_like_the_others(onnx_file: Path) -> None:  # noqa: F811
    row = benchmark.Row("tiny", f"{ENGINE_TESTS}:AnswersNan", onnx_file, {})
    with ExitStack() as stack:
        benchmark.start(row, stack, Setup(1, 8, 1), 60)
        benchmark.take_turn(row, token_inputs((1, 8)), counts=True)
        child = psutil.Process(row.process.process.pid)
        patience = time.monotonic() + 10
        while child.status() != psutil.STATUS_STOPPED and time.monotonic() < patience:
            time.sleep(0.01)
        assert row.error
        assert child.status() == psutil.STATUS_STOPPED


def test_a_float_model_with_a_mask_of_truths_runs_nothing_in_int8(tmp_path: Path) -> None:
    """OpenVINO shows such a mask as u8, and with it the attention that is fused with it."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    names = ["input_ids", "attention_mask"]
    torch.onnx.export(
        DistilBertForSequenceClassification(config).eval(),
        (torch.ones(1, 8, dtype=torch.int64),) * 2,
        str(tmp_path / "m.onnx"),
        input_names=names,
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
        dynamo=False,
    )
    rows = measure({"m": tmp_path / "m.onnx"}, ["onnxruntime", "openvino"], **QUICK)
    assert [(row.int8_run, row.error) for row in rows] == [(0, None)] * 2


def test_reasons_of_all_batch_sizes_are_said_once() -> None:
    failed = [row("fixed", "openvino", 0, error="one shape only", batch_size=n) for n in (2, 4)]
    text = verdict([DENSE, *failed], GOOD_CPU)
    assert text.count("fixed on openvino could not be timed: one shape only") == 1


def test_bad_input_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("this is not a model")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    for file in (text, empty):
        with pytest.raises(UserError, match="not an ONNX file"):
            measure({"x": file}, ["onnxruntime"], **QUICK)
    with pytest.raises(UserError, match="There is no model"):
        measure({"x": tmp_path / "nowhere"}, ["onnxruntime"], **QUICK)
    with pytest.raises(UserError, match="neither model.onnx nor a checkpoint"):
        measure({"x": tmp_path}, ["onnxruntime"], **QUICK)
    encoder(tmp_path / "a" / "encoder.onnx")
    with pytest.raises(UserError, match="It holds encoder.onnx: name the file"):
        measure({"x": tmp_path / "a"}, ["onnxruntime"], **QUICK)
    with pytest.raises(UserError, match="cores were asked for"):
        measure({"x": text}, ["onnxruntime"], **QUICK | {"num_cores": 4096})
    with pytest.raises(UserError, match="holds no measurements"):
        load(text)


def test_inputs_are_the_same_for_all_and_without_padding() -> None:
    first, second = token_inputs((2, 8)), token_inputs((2, 8))
    assert (first["input_ids"] == second["input_ids"]).all()
    assert first["attention_mask"].all()


def test_speed_up_in_words() -> None:
    measured = [DENSE, SPARSE, DENSE_INT8]
    found = speed_up(measured, ("sparse", "deepsparse"), ("dense", "onnxruntime"), 1)
    assert (found.factor, str(found)) == (5.0, "5.0 times as fast")
    back = speed_up(measured, ("dense", "onnxruntime"), ("sparse", "deepsparse"), 1)
    assert str(back) == "5.0 times as slow"
    noisy = [DENSE, dataclasses.replace(SPARSE, p90_ms=9.5)]
    same = speed_up(noisy, ("sparse", "deepsparse"), ("dense", "onnxruntime"), 1)
    assert str(same) == "no difference"
    with pytest.raises(UserError, match="not timed at batch 7"):
        speed_up(measured, ("sparse", "deepsparse"), ("dense", "onnxruntime"), 7)
    apart = [DENSE, dataclasses.replace(SPARSE, sequence_length=32)]
    with pytest.raises(UserError, match="sparse was timed at 32 tokens, dense at 128"):
        speed_up(apart, ("sparse", "deepsparse"), ("dense", "onnxruntime"), 1)


def test_verdict_where_the_sparse_model_wins() -> None:
    text = verdict([DENSE, DENSE_INT8, SPARSE, SPARSE_ORT], GOOD_CPU)
    assert "dense_int8 (0% zeros, int8) on deepsparse, 4.0 ms" in text
    assert "Against it the best sparse one is: 2.0 times as fast." in text
    assert "5.0 times as fast" in text
    assert "2.0 ms against dense_int8 4.0 ms, 2.0 times as fast" in text
    assert "onnxruntime, zeros and int8" in text and "multiplies zeros" in text
    assert "has VNNI" in text


def test_verdict_compares_texts_of_one_length() -> None:
    short = dataclasses.replace(SPARSE, sequence_length=32, median_ms=0.5)
    text = verdict([short, DENSE, SPARSE], GOOD_CPU)
    assert "2.0 ms at batch 1. Dense: dense (0% zeros, fp32) on onnxruntime, 10.0 ms" in text
    assert text.splitlines()[-1] == "All of this is for texts of 128 tokens."
    apart = verdict([short, DENSE], GOOD_CPU)
    assert "Nothing to compare: a dense fp32 one was not among the timed models at this" in apart
    found = speed_up([short, DENSE, SPARSE], ("sparse", "deepsparse"), ("dense", "onnxruntime"))
    assert found.factor == 5.0


def test_verdict_where_it_loses() -> None:
    slow = row("sparse", "deepsparse", 30.0, sparsity=0.9, precision="int8", supported_fraction=0.0)
    text = verdict([DENSE, slow], OLD_CPU)
    assert "3.0 times as slow" in text
    assert "only 0% of the operators" in text
    assert "no VNNI" in text


def test_verdict_without_an_engine_that_skips_zeros() -> None:
    text = verdict([DENSE, SPARSE_ORT], GOOD_CPU)
    assert "no difference" in text
    assert "only DeepSparse skips them" in text


def test_verdict_with_nothing_to_compare() -> None:
    assert "Nothing to compare: a sparse one" in verdict([DENSE], GOOD_CPU)
    assert "Nothing to compare: a dense fp32 one" in verdict([SPARSE], GOOD_CPU)


def test_cpu_features_are_plain_facts() -> None:
    found = cpu_features()
    assert found["cores"] >= 1
    assert all(isinstance(found[name], bool) for name in ("vnni", "amx", "avx512", "bf16"))
