"""How much arithmetic a model asks for: the multiply-adds of its matrix products.

Why: a time says little until one knows how much was done in it. A zero that an engine does not
skip costs as much as any number, so both are counted: all products, and those that are needed.

How: the shapes of an ONNX graph are worked out for one shape of call; every product of a matrix
[rows, inner] with one of [inner, columns] takes rows * inner * columns multiply-adds.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helpers.engine_child import OPENVINO_FILE
from helpers.engine_kinds import multiply_adds
from helpers.engines import open_engine
from helpers.errors import UserError
from helpers.onnx_weights import WEIGHTS, Wiring, matrix, read_graph, type_name

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "QGemm")


@dataclass(frozen=True)
class Work:
    """The matrix products of one call.

    Attributes:
        all: multiply-adds of every product.
        needed: the same without those by a weight that is zero; products of two activations
            (attention) have no stored zeros and count in full.
        weight_bytes: bytes of the stored factors, as stored; of an OpenVINO model those of its
            whole file of weights, word table included.
    """

    all: int
    needed: int
    weight_bytes: int

    def __add__(self, other: "Work") -> "Work":
        """Return the work of both."""
        return Work(
            self.all + other.all,
            self.needed + other.needed,
            self.weight_bytes + other.weight_bytes,
        )


def count(model: Path, batch_size: int, sequence_length: int) -> Work:
    """Count the work of one call.

    Args:
        model: an ONNX file, or the folder of an OpenVINO model, whose zeros are not looked for.
        batch_size, sequence_length: the shape of the call.

    Raises:
        UserError: the file is no ONNX file.
    """
    if (model / OPENVINO_FILE).is_file():
        with open_engine(model, "openvino") as process:
            total = process.prepare(batch_size, sequence_length)["multiply_adds"]
        return Work(total, total, model.joinpath(OPENVINO_FILE).with_suffix(".bin").stat().st_size)
    graph, _ = read_graph(model)
    shapes = known_shapes(model, (batch_size, sequence_length))
    wires = Wiring.of(graph)
    return sum((product(node, wires, shapes) for node in products(graph)), Work(0, 0, 0))


def products(graph: "onnx.GraphProto") -> list["onnx.NodeProto"]:
    """Return the nodes that multiply matrices."""
    return [node for node in graph.node if node.op_type in PRODUCTS]


def known_shapes(file: Path, call: tuple[int, int]) -> dict[str, list[int]]:
    """Return the shape of every value of a graph that is called with inputs of one shape.

    ONNX's own inference gives up at the positions that BERT slices out of a table; ONNX Runtime
    ships a symbolic one, which does not.

    Raises:
        UserError: it cannot follow an operator of this graph.
    """
    import onnx
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    model = onnx.load(str(file))
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, call, strict=False):
            dimension.dim_value = size
    try:
        graph = SymbolicShapeInference.infer_shapes(model, auto_merge=True).graph
    except Exception as error:  # it raises no type of its own
        raise UserError(
            f"{file.name}: the shapes in this graph cannot be told ({error}), so its work cannot "
            "be counted. Leave it out of the comparison with the CPU's limits."
        ) from error
    values = [*graph.input, *graph.output, *graph.value_info]
    found = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    return found | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def product(node: "onnx.NodeProto", wires: Wiring, shapes: dict[str, list[int]]) -> Work:
    """Count one product; a factor that is stored tells its zeros and its bytes."""
    total = multiply_adds(shapes[node.input[0]], shapes[node.output[0]])
    for index in WEIGHTS[node.op_type]:
        name, passed = wires.origin(node.input[index])
        tensor = wires.stored.get(name)
        if tensor is not None and len(tensor.dims) == 2 and type_name(tensor) != "INT64":
            found = matrix(wires, name, node, index, passed)
            return Work(total, round(total * (1 - float(np.mean(found.zero)))), found.bytes)
    return Work(total, total, 0)
