"""Portable int8: the same numbers in a form that other engines run in int8."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_graphs import logits

from helpers import engines, environment, export, models, portable, sparsity
from helpers.errors import UserError
from helpers.onnx_weights import values
from helpers.stops import Checkpoint


@pytest.fixture(scope="module")
def qdq(integer: Path) -> Path:
    """Return the same in QDQ form."""
    file = integer.with_name("qdq.onnx")
    onnx.save(portable.to_qdq(onnx.load(str(integer))), str(file))
    return file


def test_the_logits_are_the_same_but_for_the_rounding_left_out(
    integer: Path, qdq: Path, tmp_path: Path
) -> None:
    model = onnx.load(str(integer))
    portable.rounded_once(model.graph)
    onnx.save(model, str(tmp_path / "once.onnx"))
    expected = logits(tmp_path / "once.onnx")
    assert np.abs(expected).max() > 0.01
    # Without VNNI, ONNX Runtime adds two products of a QDQ graph in 16 bits, which may overflow.
    tolerance = 1e-4 if environment.machine()["vnni"] else 5e-3
    assert np.abs(logits(qdq) - expected).max() < tolerance
    assert 0 < np.abs(logits(qdq) - logits(integer)).mean() < 0.1 * np.abs(expected).mean()


def test_products_and_zeros_are_kept(integer: Path, qdq: Path) -> None:
    before, after = (onnx.load(str(file)).graph for file in (integer, qdq))
    assert sparsity.int8_products(after) == sparsity.int8_products(before) == 18
    assert not any(node.op_type == "MatMulInteger" for node in after.node)
    zeros = [sparsity.onnx_sparsity(file) for file in (integer, qdq)]
    assert list(zeros[0].sparsity) == list(zeros[1].sparsity)
    assert zeros[1].sparsity.max() > 0.79
    assert set(zeros[1].dtype) == {"int8"}


def test_weights_are_stored_around_zero(qdq: Path) -> None:
    graph = onnx.load(str(qdq)).graph
    stored = {tensor.name: values(tensor) for tensor in graph.initializer}
    points = [stored[name] for name in stored if name.endswith("_zero_point")]
    assert len(points) == 14
    assert not any(point.any() for point in points)


@pytest.mark.parametrize(("form", "engine", "products"), [
    ("qdq", "openvino", 16), ("qdq", "onnxruntime", 16), ("integer", "openvino", 0)
])  # fmt: skip
def test_how_many_products_an_engine_really_runs_in_int8(
    form: str, engine: str, products: int, request: pytest.FixtureRequest
) -> None:
    """Of 18: the last two see one token a row, and the engines leave them in float."""
    with engines.open_engine(request.getfixturevalue(form), engine) as process:
        process.prepare(1, 16, 1)
        assert process.ask("int8_run") == products


def test_a_float_model_stays_as_it_is(dense: Checkpoint, tmp_path: Path) -> None:
    export.write_graph(models.load_model(dense), tmp_path / "m.onnx", quantized=False)
    model = onnx.load(str(tmp_path / "m.onnx"))
    assert [n.op_type for n in portable.to_qdq(model).graph.node] == [
        n.op_type for n in model.graph.node
    ]


def product_graph(
    weights: np.ndarray, zero: int | list[int], last: str, worth: float | list[float] = 0.125
) -> onnx.ModelProto:
    """Return a model of one int8 product, followed by Cast and one more operator."""
    kind, made = TensorProto.FLOAT, "made"
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero", "w_zero"], ["steps"], name="p"),
        helper.make_node("Cast", ["steps"], ["cast"], to=kind),
        helper.make_node(last, ["cast", "worth"], [made]),
    ]
    stored = {
        "scale": np.float32(0.5), "zero": np.uint8(3), "w": weights,
        "w_zero": np.array(zero, np.uint8), "worth": np.array(worth, np.float32),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "one product",
        [helper.make_tensor_value_info("x", kind, [1, len(weights)])],
        [helper.make_tensor_value_info(made, kind, [1, weights.shape[1]])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)])


def test_the_scale_of_the_weights_is_what_the_activation_leaves() -> None:
    weights = np.array([[128, 130], [126, 128]], np.uint8)
    made = portable.to_qdq(product_graph(weights, 128, "Mul"))
    stored = {tensor.name: values(tensor) for tensor in made.graph.initializer}
    assert stored["w_scale"] == 0.25
    assert stored["w_int8"].tolist() == [[0, 2], [-2, 0]]
    assert [n.op_type for n in made.graph.node][1:] == ["DequantizeLinear"] * 2 + ["MatMul"]


def test_scales_of_their_own_go_along_the_outputs() -> None:
    weights = np.array([[128, 130], [126, 128], [129, 0]], np.uint8)
    before = product_graph(weights, [128, 128], "Mul", [0.125, 0.5])
    after = portable.to_qdq(before)
    stored = {tensor.name: values(tensor) for tensor in after.graph.initializer}
    assert stored["w_scale"].tolist() == [0.25, 1.0]
    assert stored["w_zero_point"].tolist() == [0, 0]
    (made,) = [n for n in after.graph.node if n.input[0] == "w_int8"]
    assert [(a.name, a.i) for a in made.attribute] == [("axis", 1)]
    answers = [run(model, np.array([[1.0, -1.5, 7.0]], np.float32)) for model in (before, after)]
    assert answers[0].tolist() == answers[1].tolist()


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return ONNX Runtime's answer."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x})[0]


def test_another_chain_is_refused() -> None:
    with pytest.raises(UserError, match="p is followed by Cast, Div; expected"):
        portable.to_qdq(product_graph(np.full((2, 2), 128, np.uint8), 128, "Div"))


def test_weights_that_int8_cannot_hold_are_refused() -> None:
    with pytest.raises(UserError, match="w holds steps from 0 to 255 around its zero"):
        portable.to_qdq(product_graph(np.array([[0, 255]] * 2, np.uint8), 0, "Mul"))
