"""Counting: zeros and int8 are found where they are, and a broken promise is an error."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from helpers import models, sparsity
from helpers.errors import ProofError
from helpers.recipe_modifier import PruningTarget
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.training_proof import check_kept

QUERY = "bert.encoder.layer.0.attention.self.query.weight"


def half_zero(rows: int, columns: int) -> np.ndarray:
    """Return a matrix [rows, columns] of ones whose first half of the rows is zero."""
    matrix = np.ones((rows, columns), dtype=np.float32)
    matrix[: rows // 2] = 0
    return matrix


def test_only_exact_zeros_count() -> None:
    assert sparsity.zeros(np.array([0.0, -0.0, 1e-30, 1.0])) == 0.5


def test_layers_are_listed_without_embeddings(tiny_model: Path, tiny_task: Task) -> None:
    model = models.new_model(tiny_model, tiny_task)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[:16] = 0
    table = sparsity.layer_sparsity(model)
    assert len(table) == 2 * 6 + 2, "six matrices a layer, pooler and classifier"
    assert table.layer.value_counts().to_dict() == {0: 6, 1: 6, -1: 2}
    found = table[(table.layer == 1) & (table.matrix == "output.dense")].iloc[0]
    assert (found["rows"], found["columns"], found["sparsity"]) == (32, 64, 0.5)
    assert table.sparsity.sum() == 0.5, "and no other matrix has a zero"


def test_qat_wrappers_are_looked_through(sparse_int8: Checkpoint) -> None:
    model = models.load_model(sparse_int8)
    found = sparsity.parameter_sparsity(model, [QUERY])
    assert found[QUERY] == pytest.approx(0.8, abs=0.01)
    table = sparsity.layer_sparsity(model)
    assert len(table) == 14
    assert not table.matrix.str.contains("module").any()


def test_tied_weights_are_found_by_each_name() -> None:
    network = BertForMaskedLM(
        BertConfig(
            vocab_size=30,
            hidden_size=4,
            num_attention_heads=1,
            num_hidden_layers=1,
            intermediate_size=8,
        )
    )
    names = ["cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"]
    with torch.no_grad():
        network.bert.embeddings.word_embeddings.weight[:15] = 0
    found = sparsity.parameter_sparsity(network, names)
    assert list(found.values()) == pytest.approx([0.5, 0.5], abs=0.04)
    assert sparsity.sparse_parameters(network) == {}, "the head has no zeros of its own"


def test_blocks_of_four_are_told_from_single_zeros() -> None:
    blocks = np.repeat(np.random.default_rng(0).integers(0, 2, (64, 16)), 4, axis=1)
    assert sparsity.whole_blocks(blocks)
    assert not sparsity.whole_blocks(np.random.default_rng(0).permuted(blocks, axis=1))
    assert not sparsity.whole_blocks(np.roll(blocks, 1, axis=1)), "aligned, not just adjacent"


def test_a_promise_is_kept_within_half_a_percent() -> None:
    sparsity.check_sparsity({}, {})
    sparsity.check_sparsity({"a": 0.804, "b": 0.0}, {"a": 0.8})
    with pytest.raises(ProofError, match="expected 80.0% zeros in b, found 70.0%") as caught:
        sparsity.check_sparsity({"a": 0.79, "b": 0.7}, {"a": 0.8, "b": 0.8})
    assert caught.value.check == "sparsity"
    with pytest.raises(ProofError, match="found 90.0%"):
        sparsity.check_sparsity({"a": 0.9}, {"a": 0.8})


def test_zeros_may_become_more_but_not_fewer() -> None:
    model = nn.Linear(10, 10)
    nn.init.ones_(model.weight)
    sparsity.check_zeros_kept(sparsity.zero_places(model), model)
    with torch.no_grad():
        model.weight[:, :8] = 0
        before = sparsity.zero_places(model)
        model.weight[0] = 0
        sparsity.check_zeros_kept(before, model)
        model.weight[1, 0] = 1e-9
    with pytest.raises(ProofError, match="80 zeros of weight, found 1 of them.*ConstantPruning"):
        sparsity.check_zeros_kept(before, model)


def test_zeros_that_are_chosen_anew_may_move() -> None:
    model = nn.Linear(10, 10)
    target = PruningTarget(0.8, "unstructured", per_matrix=True)
    with torch.no_grad():
        model.weight[:, :8] = 0
        before = sparsity.zero_places(model)
        model.weight.copy_(model.weight.roll(1, dims=1))
    check_kept(before, {target: ["weight"]}, model)
    with pytest.raises(ProofError, match="10 of them came back to life"):
        check_kept(before, {target: ["another"]}, model)


def test_quantized_modules_are_listed_by_kind(dense: Checkpoint, sparse_int8: Checkpoint) -> None:
    assert sparsity.quantized_modules(models.load_model(dense)).empty
    kinds = sparsity.quantized_modules(models.load_model(sparse_int8))["kind"].value_counts()
    # Two layers of six matrices and two attention products, pooler, classifier; three tables.
    assert kinds.to_dict() == {"Linear": 14, "MatMul": 4, "Embedding": 3}


def graph_of(operator: str, weights: np.ndarray, zero_point: int = 0) -> onnx.ModelProto:
    """Return an ONNX model of one product with stored weights."""
    names = ["x", "w"] + (["x0", "w0"] if operator == "MatMulInteger" else [])
    stored = [numpy_helper.from_array(weights, "w")]
    if operator == "MatMulInteger":
        stored += [
            numpy_helper.from_array(np.zeros((), np.uint8), "x0"),
            numpy_helper.from_array(np.array(zero_point, weights.dtype), "w0"),
        ]
    kind = TensorProto.UINT8 if operator == "MatMulInteger" else TensorProto.FLOAT
    made = TensorProto.INT32 if operator == "MatMulInteger" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"]), helper.make_node("Identity", ["y"], ["z"])],
        "one product",
        [helper.make_tensor_value_info("x", kind, [1, weights.shape[0]])],
        [helper.make_tensor_value_info("z", made, None)],
        stored,
    )
    return helper.make_model(graph)


def test_products_and_zeros_of_a_float_graph(tmp_path: Path) -> None:
    model = graph_of("MatMul", half_zero(8, 4))
    onnx.save(model, tmp_path / "m.onnx")
    assert sparsity.int8_products(model.graph) == 0
    (row,) = sparsity.onnx_sparsity(tmp_path / "m.onnx").to_dict("records")
    assert row["weight"] == "w"
    assert (row["dtype"], row["shape"], row["sparsity"]) == ("float32", (8, 4), 0.5)


def test_zeros_of_a_turned_matrix_with_a_scale_for_each_output(tmp_path: Path) -> None:
    """As ONNX Runtime rounds a Gemm with transB: its weight is stored [outputs, inputs]."""
    zeros, weights = np.array([3, 5], np.uint8), np.full((2, 8), 9, np.uint8)
    weights[0, :4], weights[1, :6] = 3, 5
    stored = {"w": weights, "w0": zeros, "s": np.float32(1), "x0": np.uint8(0)}
    names = ["x", "s", "x0", "w", "s", "w0"]
    graph = helper.make_graph(
        [helper.make_node("QGemm", names, ["y"], domain="com.microsoft", transB=1)],
        "one product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    (row,) = sparsity.onnx_sparsity(tmp_path / "m.onnx").to_dict("records")
    assert (row["operator"], row["sparsity"]) == ("QGemm", 10 / 16)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_zeros_of_an_int8_graph(kind: type, tmp_path: Path) -> None:
    """DeepSparse's form keeps unsigned weights, whose zero is stored as 128."""
    zero = 128 if kind is np.uint8 else 0
    model = graph_of("MatMulInteger", (half_zero(8, 4) + zero).astype(kind), zero)
    onnx.save(model, tmp_path / "m.onnx")
    assert sparsity.int8_products(model.graph) == 1
    (row,) = sparsity.onnx_sparsity(tmp_path / "m.onnx").to_dict("records")
    assert (row["operator"], row["sparsity"]) == ("MatMulInteger", 0.5)
