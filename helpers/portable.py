"""Int8 that other engines run: SparseML's integer graph rewritten in QDQ form.

Why: SparseML writes an int8 product as MatMulInteger, with bias and scale in operators of their
own. DeepSparse runs that in int8; OpenVINO and ONNX Runtime run it slower than the fp32 model. They
look for DequantizeLinear before both inputs of an ordinary MatMul.

How: each chain MatMulInteger, (Add), Cast, Mul becomes DequantizeLinear on both inputs, MatMul,
(Add). Weights stay int8 with the scales that QAT has learnt; what was zero is stored as 0. What QAT
rounds twice with nothing between but a move is rounded the second time only: engines
would compute both.
"""

import graphlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from helpers.errors import UserError
from helpers.onnx_weights import Wiring, values

if TYPE_CHECKING:
    import onnx

    Node, Tensor = onnx.NodeProto, onnx.TensorProto

QDQ_FILE = "model_qdq.onnx"  # where it lies beside SparseML's own form
OUTPUTS = 1  # the side of a stored matrix, [inputs, outputs]
# What SparseML writes behind a product; an Add where there is a bias.
BEHIND = (["Add", "Cast", "Mul"], ["Cast", "Mul"])


def to_qdq(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a copy of a model in which every MatMulInteger is a product in QDQ form.

    Raises:
        UserError: a product is not written as SparseML writes it.
    """
    return rewritten(model, as_qdq)


def rewritten(
    model: "onnx.ModelProto", rewrite: Callable[["onnx.GraphProto"], None]
) -> "onnx.ModelProto":
    """Return a copy of a model with its graph rewritten, and checked."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    rewrite(made.graph)
    onnx.checker.check_model(made)
    return made


def as_qdq(graph: "onnx.GraphProto") -> None:
    """Do what `to_qdq` says to a graph itself."""
    rounded_once(graph)
    wires = Wiring.of(graph)
    # By output: several products read one activation, and it is dequantized once.
    nodes: dict[str, Node] = {}
    stored, replaced = {tensor.name: tensor for tensor in graph.initializer}, set()
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            rest = behind(wires, node)
            new, tensors = qdq_product(wires, node, rest)
            replaced |= {old.output[0] for old in rest}
            nodes |= {n.output[0]: n for n in new if n.output[0] not in nodes}
            stored |= {tensor.name: tensor for tensor in tensors}
        elif node.output[0] not in replaced:
            nodes[node.output[0]] = node
    put(graph, list(nodes.values()), stored)


def rounded_once(graph: "onnx.GraphProto") -> None:
    """Leave out the first rounding of what is rounded, moved, and rounded again."""
    leave_unrounded(graph, "DequantizeLinear", "Transpose", "Reshape", "QuantizeLinear")


def leave_unrounded(graph: "onnx.GraphProto", back: str, *then: str) -> None:
    """Leave out every rounding that is followed by its way back to float, and then by these."""
    wires, gone = Wiring.of(graph), []
    for node in graph.node:
        rest = after(wires, node, back, *then) if node.op_type == "QuantizeLinear" else []
        if rest:
            gone += [node, rest[0]]
            for user in wires.users[rest[0].output[0]]:
                user.input[list(user.input).index(rest[0].output[0])] = node.input[0]
    if gone:
        finish(graph, [], gone)


def after(wires: Wiring, node: "Node", *kinds: str) -> list["Node"]:
    """Return the operators that follow one, each the only one of its kind; empty if they do not."""
    found = [node]
    for kind in kinds:
        users = [user for user in wires.users.get(found[-1].output[0], []) if user.op_type == kind]
        if len(users) != 1:
            return []
        found += users
    return found[1:]


def finish(
    graph: "onnx.GraphProto", new: list["Node"], gone: list["Node"], **stored: np.ndarray
) -> None:
    """Put new operators and tensors into a graph, take others out, and order what is left."""
    from onnx import numpy_helper

    leaves = {id(node) for node in gone}
    nodes = [node for node in graph.node if id(node) not in leaves] + new
    made = {name: place for place, node in enumerate(nodes) for name in node.output}
    needs = {
        place: [made[name] for name in node.input if name in made]
        for place, node in enumerate(nodes)
    }
    order = graphlib.TopologicalSorter(needs).static_order()
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {name: numpy_helper.from_array(array, name) for name, array in stored.items()}
    put(graph, [nodes[place] for place in order], tensors)


def put(graph: "onnx.GraphProto", nodes: list["Node"], stored: dict[str, "Tensor"]) -> None:
    """Give a graph these operators, and of the stored tensors those that they read."""
    used = {name for node in nodes for name in node.input}
    tensors = [tensor for name, tensor in stored.items() if name in used]
    # A copy first: the old ones live in the lists that are emptied.
    nodes, tensors = [_copy(node) for node in nodes], [_copy(tensor) for tensor in tensors]
    for held, wanted in ((graph.node, nodes), (graph.initializer, tensors)):
        del held[:]
        held.extend(wanted)


def _copy(message: "Node | Tensor") -> "Node | Tensor":
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def behind(wires: Wiring, product: "Node") -> list["Node"]:
    """Return the operators that follow an integer product, down to the one that makes it a float.

    Raises:
        UserError: they are others than SparseML writes.
    """
    found = []
    while not found or found[-1].op_type != "Mul":
        users = wires.users.get((found or [product])[-1].output[0], [])
        found += users[:1]
        kinds = [node.op_type for node in found]
        if len(users) != 1 or not any(kinds == known[: len(kinds)] for known in BEHIND):
            raise UserError(
                f"{product.name or product.output[0]} is followed by {', '.join(kinds)}; expected "
                "(Add), Cast, Mul, as SparseML exports an int8 product. Export the model again."
            )
    return found


def qdq_product(
    wires: Wiring, product: "Node", rest: list["Node"]
) -> tuple[list["Node"], list["Tensor"]]:
    """Return the operators and tensors that take the place of a product and of its `rest`."""
    from onnx import helper, numpy_helper

    # What one step of the integer result is worth: the scale of one input times the other's.
    step = beside(wires, rest[-1])
    inputs = [dequantized(wires, product, index, step) for index in (0, 1)]
    nodes, tensors = [node for node, _ in inputs], [t for _, new in inputs for t in new]
    target, floats = rest[-1].output[0], [node.output[0] for node in nodes]
    if rest[0].op_type != "Add":
        return [*nodes, helper.make_node("MatMul", floats, [target], product.name)], tensors
    bias = (beside(wires, rest[0]) * step.astype(np.float64)).astype(np.float32)
    tensors.append(numpy_helper.from_array(bias, f"{target}_bias"))
    between = f"{target}_without_bias"
    nodes.append(helper.make_node("MatMul", floats, [between], product.name))
    return [*nodes, helper.make_node("Add", [between, f"{target}_bias"], [target])], tensors


def beside(wires: Wiring, node: "Node") -> np.ndarray:
    """Return the stored one of an operator's two inputs: a bias, or a scale."""
    return values(next(wires.stored[name] for name in node.input if name in wires.stored))


def dequantized(
    wires: Wiring, product: "Node", index: int, step: np.ndarray
) -> tuple["Node", list["Tensor"]]:
    """Return the operator that makes one input of a product a float, and what it needs stored."""
    from onnx import helper

    name, zero = product.input[index], product.input[index + 2]
    tensors = []
    if name in wires.stored:
        other = wires.made[product.input[1 - index]]
        scale = step / values(wires.stored[other.input[1]])
        tensors = signed(name, values(wires.stored[name]), values(wires.stored[zero]), scale)
        name, scale_name, zero = (tensor.name for tensor in tensors)
    else:
        scale_name = wires.made[name].input[1]
    # The side that several scales go along; engines look at it only where there are several.
    side = {"axis": OUTPUTS} if tensors else {}
    inputs, output = [name, scale_name, zero], f"{name}_as_float"
    return helper.make_node("DequantizeLinear", inputs, [output], **side), tensors


def signed(name: str, weights: np.ndarray, zero: np.ndarray, scale: np.ndarray) -> list["Tensor"]:
    """Return weights as int8 around 0, their scale and their zero point, as stored tensors."""
    from onnx import numpy_helper

    arrays = {
        "int8": around_zero(name, weights, zero),
        "scale": scale.astype(np.float32),
        "zero_point": np.zeros_like(scale, np.int8),
    }
    return [numpy_helper.from_array(array, f"{name}_{kind}") for kind, array in arrays.items()]


def around_zero(name: str, weights: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Return weights as int8 steps around their zero point.

    Raises:
        UserError: they are more than int8 has.
    """
    steps = weights.astype(np.int16) - zero.astype(np.int16)
    low, high = np.iinfo(np.int8).min, np.iinfo(np.int8).max
    if steps.min() < low or steps.max() > high:
        raise UserError(
            f"{name} holds steps from {steps.min()} to {steps.max()} around its zero "
            f"point; int8 has {low} to {high}. Train it with symmetric weights."
        )
    return steps.astype(np.int8)
