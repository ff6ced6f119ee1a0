"""What models are fed: exports of all kinds on real engines, and what no engine should be given."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_engines import needs_deepsparse
from tiny_graphs import INPUTS, encoder, texts

from helpers import engines, model_inputs
from helpers.benchmark import LAST_WORD_ID, measure, token_inputs
from helpers.engine_child import Setup
from helpers.errors import UserError

QUICK = {"batch_sizes": (2,), "sequence_length": 8, "num_cores": 1, "rounds": 1, "warmup": 0}
WITH_POSITIONS = (*INPUTS, "position_ids")
every_engine = pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino", pytest.param("deepsparse", marks=needs_deepsparse)]
)


@every_engine
def test_exports_of_others_are_fed_what_they_take(engine: str, tmp_path: Path) -> None:
    plain = encoder(tmp_path / "plain.onnx")
    models = {
        "int32": encoder(tmp_path / "int32.onnx", dtype=TensorProto.INT32),
        "floats": encoder(tmp_path / "no_types.onnx", INPUTS[:2]),
        "positions": encoder(tmp_path / "positions.onnx", WITH_POSITIONS),
        "weights among the inputs": as_in_old_files(plain, tmp_path / "old.onnx"),
    }
    rows = measure(models, [engine], **QUICK)
    assert {row.model: row.error for row in rows} == dict.fromkeys(models)


def as_in_old_files(file: Path, target: Path) -> Path:
    """List the weights among the inputs."""
    model = onnx.load(str(file))
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer
    )
    onnx.save(model, str(target))
    return target


def test_int32_gives_the_answers_of_int64(tmp_path: Path) -> None:
    files = [
        encoder(tmp_path / f"{kind}.onnx", dtype=kind)
        for kind in (TensorProto.INT64, TensorProto.INT32)
    ]
    first, second = (engines.predict(f, "onnxruntime", [texts()], num_threads=1) for f in files)
    np.testing.assert_array_equal(first, second)


def test_an_input_that_is_not_given_is_named(tmp_path: Path) -> None:
    file = encoder(tmp_path / "m.onnx", WITH_POSITIONS)
    with pytest.raises(UserError, match="takes position_ids, which is not among .*input_ids, att"):
        engines.predict(file, "onnxruntime", [texts()], num_threads=1)


def test_a_model_of_one_shape_fails_at_others_with_words_and_the_rest_runs(tmp_path: Path) -> None:
    models = {
        "fixed": encoder(tmp_path / "fixed.onnx", shape=(1, 8)),
        "half": encoder(tmp_path / "half.onnx", shape=("batch", 8)),
    }
    rows = measure(models, ["onnxruntime", "openvino"], **QUICK | {"batch_sizes": (1, 2)})
    failed = {(row.model, row.batch_size, row.error) for row in rows if row.error}
    ((model, batch_size, error),) = failed
    assert (model, batch_size) == ("fixed", 2)
    assert error.startswith("It takes input_ids as int64 [1, 8] only, not [2, 8].")
    assert sum(row.error is None for row in rows) == 6


@pytest.mark.parametrize("how", ["a list of its own", "an input"])
def test_more_tokens_than_positions_are_a_reason(how: str, tmp_path: Path) -> None:
    if how == "an input":
        file, most = encoder(tmp_path / "m.onnx", WITH_POSITIONS), 64
    else:
        file, most = encoder(tmp_path / "m.onnx", positions=16), 16
    assert model_inputs.misfit(file, Setup(1, most, 1)) is None
    (row,) = measure({"m": file}, ["onnxruntime"], **QUICK | {"sequence_length": most + 1})
    assert row.error == f"It knows {most} positions, and {most + 1} tokens were asked for."
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": most}))
    assert "positions" in model_inputs.misfit(tmp_path, Setup(1, most + 1, 1))


@pytest.mark.parametrize(
    "engine", ["onnxruntime", pytest.param("deepsparse", marks=needs_deepsparse)]
)
def test_words_are_taken_from_the_smallest_vocabulary(engine: str, tmp_path: Path) -> None:
    """Others are read from behind the table, or abort the engine."""
    small = encoder(tmp_path / "small.onnx", words=400)
    large = encoder(tmp_path / "large.onnx")
    assert model_inputs.vocabulary([small, large]) == 400
    assert token_inputs((16, 128), 400)["input_ids"].max() < 400 < LAST_WORD_ID
    (row,) = measure({"small": small}, [engine], **QUICK)
    assert row.error is None
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 300}))
    assert model_inputs.vocabulary([small, large, tmp_path]) == 300
    (tmp_path / "config.json").write_text("{")
    assert model_inputs.vocabulary([tmp_path]) is None


@pytest.mark.parametrize(
    ("inputs", "shape", "found"),
    [
        (("x",), (1, 16), r"takes x int64 \[1, 16\]\. Expected an encoder of texts: input_ids and"),
        (("pixel_values",), ("b", 3, 224, 224), r"takes pixel_values int64 \[\?, 3, 224, 224\]"),
        (("input_ids",), ("tokens",), r"takes input_ids int64 \[\?\]\."),
        (
            ("input_ids", *(f"past.{i}" for i in range(6))),
            ("b", "t"),
            r"takes past.0 .*past.3 int64 \[\?, \?\] and 3 more\. Expected",
        ),
    ],
    ids=["x", "pictures", "one axis", "a decoder"],
)
def test_what_is_no_encoder_of_texts_is_refused_with_its_inputs(
    inputs: tuple[str, ...],
    shape: tuple,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = encoder(tmp_path / "m.onnx", inputs, shape=shape)
    monkeypatch.setattr("helpers.benchmark.open_engine", started)
    good = encoder(tmp_path / "good.onnx")
    with pytest.raises(UserError, match=found):
        measure({"good": good, "m": file}, ["onnxruntime"], **QUICK)


def started(*_: object, **__: object) -> None:
    """Stand in for `open_engine` where no engine may be started."""
    raise AssertionError("an engine was started")


def test_inputs_of_an_openvino_model_are_read_too(tmp_path: Path) -> None:
    import openvino

    file = encoder(tmp_path / "m.onnx", WITH_POSITIONS, dtype=TensorProto.INT32, shape=("b", 8))
    openvino.save_model(openvino.Core().read_model(file), tmp_path / "model.xml")
    found = {name: str(one) for name, one in model_inputs.inputs_of(tmp_path).items()}
    assert found == dict.fromkeys(WITH_POSITIONS, "int32 [?, 8]")
    (row,) = measure({"m": tmp_path}, ["openvino"], **QUICK)
    assert row.error is None
    (row,) = measure({"m": tmp_path}, ["openvino"], **QUICK | {"sequence_length": 16})
    assert "takes input_ids as int32 [?, 8] only" in row.error
    (tmp_path / "model.xml").write_text("<net><layer type='Parameter' name='x'/></net>")
    with pytest.raises(UserError, match="not an OpenVINO model"):
        measure({"m": tmp_path}, ["openvino"], **QUICK)
