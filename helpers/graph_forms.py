"""Other ways to write the int8 graph that SparseML exports: does DeepSparse run one of them faster?

Why: who finds the sparse model not fast enough looks at the graph first: weights around 128,
rounding between two products, activations moved in fp32. Each can be written another way.

How: every form is a function that rewrites one thing. Some compute the same number by number; some
round elsewhere, or compute GELU more cheaply; two leave a part out, to say what that part costs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from helpers import portable
from helpers.onnx_weights import Wiring, values
from helpers.portable import after, finish

if TYPE_CHECKING:
    import onnx

    Node, Graph = onnx.NodeProto, onnx.GraphProto

# What a form leaves of the numbers.
SAME, NEAR, BROKEN = "the same numbers", "nearly the same", "another model: shows a cost"
FIRST = "as SparseML writes it"
QUICK = 1.702  # GELU(x) is about x * sigmoid(1.702 x) (Hendrycks and Gimpel, arXiv 1606.08415)


@dataclass(frozen=True)
class Form:
    """One rewriting, and what it leaves of the numbers: `SAME`, `NEAR` or `BROKEN`."""

    rewrite: Callable[["Graph"], None]
    numbers: str


def rewritten(model: "onnx.ModelProto", form: str) -> "onnx.ModelProto":
    """Return a copy of SparseML's int8 graph in a form of `FORMS`.

    Raises:
        KeyError: for a form there is none of.
    """
    return portable.rewritten(model, FORMS[form].rewrite)


def products(graph: "Graph", wires: Wiring, *, weights: bool) -> Iterator["Node"]:
    """Yield the int8 products with a stored weight, or those of attention, which have none."""
    for node in graph.node:
        if node.op_type == "MatMulInteger" and (node.input[1] in wires.stored) == weights:
            yield node


def around_zero(graph: "Graph") -> None:
    """Store weights as int8 around 0 instead of uint8 around 128."""
    wires, arrays = Wiring.of(graph), {"zero_of_weights": np.zeros((), np.int8)}
    for node in products(graph, wires, weights=True):
        weight, zero = (values(wires.stored[node.input[place]]) for place in (1, 3))
        name = f"{node.input[1]}_around_zero"
        arrays[name] = portable.around_zero(name, weight, zero)
        node.input[1], node.input[3] = name, "zero_of_weights"
    finish(graph, [], [], **arrays)


def rounded_first(graph: "Graph") -> None:
    """Round queries, keys and values before they are moved, so that bytes are moved."""
    wires = Wiring.of(graph)
    for node in graph.node:
        move = wires.made.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        reshape = wires.made.get(move.input[0]) if move and move.op_type == "Transpose" else None
        if not reshape or reshape.op_type != "Reshape":
            continue
        last = node.output[0]
        node.input[0], node.output[0] = reshape.input[0], f"{last}_first"
        reshape.input[0], reshape.output[0] = node.output[0], f"{last}_split"
        move.input[0], move.output[0] = reshape.output[0], last
    finish(graph, [], [])


def quantized_results(graph: "Graph") -> None:
    """Let attention's products give rounded results themselves, as QLinearMatMul."""
    from onnx import helper

    wires, new, gone = Wiring.of(graph), [], []
    for node in products(graph, wires, weights=False):
        rest = after(wires, node, "Cast", "Mul", "QuantizeLinear")
        if not rest:
            continue
        left, right = (wires.made[node.input[place]].input[1] for place in (0, 1))
        inputs = [node.input[0], left, node.input[2], node.input[1], right, node.input[3]]
        result = rest[-1]
        inputs += result.input[1:3]
        new.append(helper.make_node("QLinearMatMul", inputs, result.output, node.name))
        gone += [node, *rest]
    finish(graph, new, gone)


def float_attention(graph: "Graph") -> None:
    """Compute attention's two products in fp32."""
    from onnx import helper

    wires, new, gone = Wiring.of(graph), [], []
    for node in products(graph, wires, weights=False):
        floats = [wires.made[name].input[0] for name in node.input[:2]]
        rest = after(wires, node, "Cast", "Mul")
        new.append(helper.make_node("MatMul", floats, rest[-1].output, node.name))
        gone += [node, *rest]
    finish(graph, new, gone)


def unrounded(graph: "Graph") -> None:
    """Leave out the rounding of attention's results, which are floats again right behind it."""
    portable.leave_unrounded(graph, "DequantizeLinear")


def one_product(graph: "Graph") -> None:
    """Compute queries, keys and values in one product with three times the columns."""
    wires, new, gone, arrays = Wiring.of(graph), [], [], {}
    beside: dict[str, list[Node]] = {}
    for node in products(graph, wires, weights=True):
        beside.setdefault(node.input[0], []).append(node)
    for nodes in beside.values():
        if len(nodes) == 3:
            rests = [after(wires, node, "Add", "Cast", "Mul") for node in nodes]
            arrays |= side_by_side(wires, nodes, rests)
            new += joined(nodes[0], [rest[-1].output[0] for rest in rests])
            gone += [*nodes, *(node for rest in rests for node in rest)]
    finish(graph, new, gone, **arrays)


def side_by_side(
    wires: Wiring, nodes: list["Node"], rests: list[list["Node"]]
) -> dict[str, np.ndarray]:
    """Return the weights, biases, scales and widths of products as those of one, by name."""
    weights = [values(wires.stored[node.input[1]]) for node in nodes]
    biases, scales = ([portable.beside(wires, rest[place]) for rest in rests] for place in (0, 2))
    scales = [np.broadcast_to(s, b.shape) for s, b in zip(scales, biases, strict=True)]
    return {
        f"{nodes[0].name}_weights": np.hstack(weights),
        f"{nodes[0].name}_bias": np.concatenate(biases),
        f"{nodes[0].name}_scale": np.concatenate(scales),
        f"{nodes[0].name}_widths": np.array([len(bias) for bias in biases], np.int64),
    }


def joined(node: "Node", outputs: list[str]) -> list["Node"]:
    """Return the operators of one wide product in the place of several, which it is split into."""
    from onnx import TensorProto, helper

    name, floats = node.name, TensorProto.FLOAT
    first = [node.input[0], f"{name}_weights", *node.input[2:4]]
    return [
        helper.make_node("MatMulInteger", first, [f"{name}_wide"], name),
        helper.make_node("Add", [f"{name}_wide", f"{name}_bias"], [f"{name}_sum"]),
        helper.make_node("Cast", [f"{name}_sum"], [f"{name}_cast"], to=floats),
        helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [f"{name}_float"]),
        helper.make_node("Split", [f"{name}_float", f"{name}_widths"], outputs, axis=-1),
    ]


def activation(graph: "Graph", write: Callable[[str, str], list["Node"]], **arrays: float) -> None:
    """Replace every GELU, which is (x / sqrt 2, Erf, + 1, * x, / 2), by what `write` makes."""
    wires, new, gone = Wiring.of(graph), [], []
    for node in graph.node:
        if node.op_type == "Erf":
            root = wires.made[node.input[0]]
            rest = after(wires, node, "Add", "Mul", "Mul")
            new += write(root.input[0], rest[-1].output[0])
            gone += [root, node, *rest]
    stored = {name: np.array(value, np.float32) for name, value in arrays.items()}
    finish(graph, new, gone, **stored)


def sigmoid_gelu(graph: "Graph") -> None:
    """Write GELU as x * sigmoid(1.702 x); `hidden_act="quick_gelu"` in Transformers."""
    from onnx import helper

    def write(x: str, result: str) -> list["Node"]:
        scaled, gate = f"{result}_scaled", f"{result}_gate"
        return [
            helper.make_node("Mul", [x, "quick"], [scaled]),
            helper.make_node("Sigmoid", [scaled], [gate]),
            helper.make_node("Mul", [x, gate], [result]),
        ]

    activation(graph, write, quick=QUICK)


def without_gelu(graph: "Graph") -> None:
    """Put ReLU in the place of GELU, which costs nearly nothing."""
    from onnx import helper

    activation(graph, lambda x, result: [helper.make_node("Relu", [x], [result])])


def without_softmax(graph: "Graph") -> None:
    """Put ReLU in the place of softmax, which costs nearly nothing."""
    for node in graph.node:
        if node.op_type == "Softmax":
            node.op_type = "Relu"
            del node.attribute[:]


FORMS = {
    "QDQ": Form(portable.as_qdq, NEAR),
    "weights around zero": Form(around_zero, SAME),
    "rounded before moved": Form(rounded_first, SAME),
    "rounded by the product": Form(quantized_results, SAME),
    "one product for q, k, v": Form(one_product, SAME),
    "rounded once": Form(portable.rounded_once, NEAR),
    "not rounded between": Form(unrounded, NEAR),
    "attention in fp32": Form(float_attention, NEAR),
    "GELU by sigmoid": Form(sigmoid_gelu, NEAR),
    "without GELU": Form(without_gelu, BROKEN),
    "without softmax": Form(without_softmax, BROKEN),
}
