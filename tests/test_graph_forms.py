"""The int8 graph in other forms: which keep the numbers, which only come near."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_graphs import logits

from helpers import graph_forms, sparsity
from helpers.graph_forms import BROKEN, FORMS, NEAR, SAME
from helpers.onnx_weights import Wiring, values

OPERATORS = {
    "rounded by the product": ("QLinearMatMul", 4),
    "attention in fp32": ("MatMul", 4),
    "one product for q, k, v": ("Split", 2),
    "GELU by sigmoid": ("Sigmoid", 2),
    "without GELU": ("Relu", 2),
    "without softmax": ("Relu", 2),
}


@pytest.fixture(scope="module")
def graph(integer: Path) -> onnx.ModelProto:
    """Return the tiny sparse int8 model of two layers."""
    return onnx.load(str(integer))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_keeps_of_the_numbers_what_it_says(
    form: str, graph: onnx.ModelProto, integer: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    changed = graph_forms.rewritten(graph, form)
    assert changed.graph != graph.graph
    onnx.save(changed, str(file))
    gap = np.abs(logits(file) - logits(integer)).max()
    size = np.abs(logits(integer)).max()
    if FORMS[form].numbers == SAME:
        assert gap < 1e-5 * size
    if FORMS[form].numbers == NEAR:
        # It may be none: what is rounded twice to nearly the same steps is seldom another number.
        assert gap < 0.2 * size
    if FORMS[form].numbers == BROKEN:
        assert gap > 1e-3 * size


@pytest.mark.parametrize("form", OPERATORS)
def test_a_form_is_there_in_every_layer(form: str, graph: onnx.ModelProto) -> None:
    kind, times = OPERATORS[form]
    assert kinds(graph).count(kind) == 0
    assert kinds(graph_forms.rewritten(graph, form)).count(kind) == times


def test_weights_around_zero_are_int8_with_the_zeros_they_had(
    graph: onnx.ModelProto, integer: Path, tmp_path: Path
) -> None:
    made = graph_forms.rewritten(graph, "weights around zero")
    wires = Wiring.of(made.graph)
    found = list(graph_forms.products(made.graph, wires, weights=True))
    assert len(found) == 14
    for node in found:
        assert values(wires.stored[node.input[1]]).dtype == np.int8
        assert values(wires.stored[node.input[3]]) == 0
    file = tmp_path / "model.onnx"
    onnx.save(made, str(file))
    before, after = (sparsity.onnx_sparsity(name) for name in (integer, file))
    assert sorted(before.sparsity) == sorted(after.sparsity)


def test_rounded_first_moves_bytes(graph: onnx.ModelProto) -> None:
    """Queries, keys and values are split into heads as bytes: three Reshapes a layer."""
    made = graph_forms.rewritten(graph, "rounded before moved")
    wires = Wiring.of(made.graph)
    sources = [wires.made[n.input[0]].op_type for n in made.graph.node if n.op_type == "Reshape"]
    assert sources.count("QuantizeLinear") == 2 * 3


def test_unrounded_leaves_no_float_rounded_only_to_be_a_float_again(
    graph: onnx.ModelProto,
) -> None:
    def pairs(model: onnx.ModelProto) -> int:
        wires = Wiring.of(model.graph)
        return sum(
            bool(graph_forms.after(wires, node, "DequantizeLinear"))
            for node in model.graph.node
            if node.op_type == "QuantizeLinear"
        )

    assert pairs(graph) == 4
    assert pairs(graph_forms.rewritten(graph, "not rounded between")) == 0


def test_the_model_itself_is_left_alone(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString()
    for form in FORMS:
        graph_forms.rewritten(graph, form)
    assert graph.SerializeToString() == before
