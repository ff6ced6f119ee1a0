"""The weight matrices of an ONNX graph, wherever they are stored and whatever stands before them.

A matrix may be an initializer or a constant, lie in a file of its own, and reach its product
through DequantizeLinear, Transpose and the like. Its zeros are counted around its own zero point.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers import model_files
from helpers.errors import UserError

if TYPE_CHECKING:
    import onnx

INT8_PRODUCTS = ("MatMulInteger", "QLinearMatMul", "ConvInteger", "QGemm")
FLOAT_PRODUCTS = ("MatMul", "Gemm")
# Operator to the inputs that may be its weight. The zero point always stands two inputs later.
WEIGHTS = {
    "MatMul": (0, 1), "Gemm": (1,), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3),
    "QGemm": (3,), "Gather": (0,),
}  # fmt: skip
# Operators between a stored weight and its product that move or rescale it.
BETWEEN = {"DequantizeLinear", "QuantizeLinear", "Transpose", "Identity", "Cast"}
LONGEST_CHAIN = 8
STORED_AS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "UINT8")


@dataclass(frozen=True)
class Matrix:
    """A stored weight: zero is [outputs, inputs], or [rows, width] of a table; true at a zero."""

    name: str
    zero: np.ndarray
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Wiring:
    """What is stored in a graph, and which node makes and which nodes use a value."""

    stored: dict[str, "onnx.TensorProto"]
    made: dict[str, "onnx.NodeProto"]
    users: dict[str, list["onnx.NodeProto"]]

    @classmethod
    def of(cls, graph: "onnx.GraphProto") -> "Wiring":
        """Read the wiring of a graph."""
        stored, users = {tensor.name: tensor for tensor in graph.initializer}, {}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                stored[node.output[0]] = node.attribute[0].t
            for name in node.input:
                users.setdefault(name, []).append(node)
        return cls(stored, {name: node for node in graph.node for name in node.output}, users)

    def origin(self, name: str, between: set[str] = BETWEEN) -> tuple[str, list["onnx.NodeProto"]]:
        """Follow a value back; return the name it starts as and the nodes it came through."""
        passed = []
        while name in self.made and self.made[name].op_type in between:
            # The limit is for broken graphs that go round in circles.
            if not self.made[name].input or len(passed) == LONGEST_CHAIN:
                break
            passed.append(self.made[name])
            name = self.made[name].input[0]
        return name, passed


def read_graph(file: Path) -> tuple["onnx.GraphProto", list[Path]]:
    """Read an ONNX file with its external data.

    Returns:
        The graph, and all files it is stored in.

    Raises:
        UserError: the file or its data is damaged or missing, or points out of its folder.
    """
    from onnx.external_data_helper import load_external_data_for_model

    model = model_files.parse(file)
    data = model_files.external_files(file, model.graph)
    try:
        load_external_data_for_model(model, str(file.parent))
    except Exception as error:  # noqa: BLE001 - onnx and the disk share no base class
        reason = model_files.in_short(error)
        raise UserError(
            f"The data of {file} cannot be read ({reason}). Export it again."
        ) from error
    return model.graph, [file, *data]


def values(tensor: "onnx.TensorProto") -> np.ndarray:
    """Return a stored tensor as an array.

    Raises:
        UserError: it holds fewer or more bytes than its shape says.
    """
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # noqa: BLE001 - numpy and onnx raise several kinds
        reason = str(error).splitlines()[0][:120]
        raise UserError(
            f"The tensor {tensor.name} is damaged ({reason}). Export it again."
        ) from error


def type_name(tensor: "onnx.TensorProto") -> str:
    """Return the data type of a stored tensor, such as FLOAT or INT8."""
    import onnx

    return onnx.TensorProto.DataType.Name(tensor.data_type)


def parameters(graph: "onnx.GraphProto") -> Iterator["onnx.TensorProto"]:
    """Yield the stored tensors that were learnt: no scalars, and no numbers of shapes."""
    for tensor in Wiring.of(graph).stored.values():
        if tensor.dims and type_name(tensor) in (*STORED_AS, "INT32"):
            yield tensor


def matrices(graph: "onnx.GraphProto") -> list[Matrix]:
    """Return every stored weight matrix of a graph once, in the order of use."""
    wires, found = Wiring.of(graph), {}
    for node in graph.node:
        for index in WEIGHTS.get(node.op_type, ()):
            name, passed = wires.origin(node.input[index]) if index < len(node.input) else ("", [])
            tensor = wires.stored.get(name)
            if tensor is None or len(tensor.dims) != 2 or type_name(tensor) not in STORED_AS:
                continue
            if name not in found:
                found[name] = matrix(wires, name, node, index, passed)
    return list(found.values())


def matrix(
    wires: Wiring, name: str, node: "onnx.NodeProto", index: int, passed: list["onnx.NodeProto"]
) -> Matrix:
    """Describe one stored weight."""
    tensor = wires.stored[name]
    array, kind = values(tensor), type_name(tensor)
    size = array.size * (2 if kind == "BFLOAT16" else array.itemsize)
    zero = array == (zero_point(wires, node, index, passed) if "INT8" in kind else 0)
    turns = sum(step.op_type == "Transpose" for step in passed)
    kept = any(a.name == "transB" and a.i for a in node.attribute)
    # Stored [inputs, outputs], unless the graph turns it; tables and left factors are as in Torch.
    if (turns + (node.op_type != "Gather" and index % 2 == 1 and not kept)) % 2:
        zero = zero.T
    rounded = any(step.op_type == "QuantizeLinear" for step in passed)
    # Exporters number the weights they have folded; the node still has the layer's name.
    readable = node.name if "::" in name and node.name else name
    return Matrix(readable, zero, f"{kind} rounded" if rounded else kind, size)


def zero_point(
    wires: Wiring, node: "onnx.NodeProto", index: int, passed: list["onnx.NodeProto"]
) -> np.ndarray | int:
    """Return the stored number that means zero, to be compared with an int8 weight."""
    scaled = [step for step in passed if step.op_type == "DequantizeLinear"]
    if node.op_type == "Gather":
        scaled += [
            n for n in wires.users.get(node.output[0], []) if n.op_type == "DequantizeLinear"
        ]
    holder, place = (scaled[0], 2) if scaled else (node, index + 2)
    if not scaled and node.op_type not in INT8_PRODUCTS:
        return 0
    name = holder.input[place] if place < len(holder.input) else ""
    if name not in wires.stored:
        return 0
    zero = values(wires.stored[name])
    turned = {"axis": 0, "transB": 1}  # the second where a Gemm holds its weight by outputs
    down = any(turned.get(a.name) == a.i for a in holder.attribute)
    return zero.reshape(-1, 1) if down and zero.ndim == 1 else zero


def integer_products(graph: "onnx.GraphProto") -> int:
    """Count the products written with integer operators, as DeepSparse needs them."""
    return sum(node.op_type in INT8_PRODUCTS for node in graph.node)


def products(graph: "onnx.GraphProto") -> tuple[int, int]:
    """Return how many matrix products run in int8, and how many of two activations do not.

    Int8 are the integer operators, and float ones between two dequantized inputs, which the
    engines run as integer ones.
    """
    wires, int8, floating = Wiring.of(graph), integer_products(graph), 0
    for node in graph.node:
        if node.op_type not in FLOAT_PRODUCTS:
            continue
        ways = [wires.origin(name) for name in node.input[:2]]
        if all(any(n.op_type == "DequantizeLinear" for n in passed) for _, passed in ways):
            int8 += 1
        elif not any(name in wires.stored for name, _ in ways):
            floating += 1
    return int8, floating
