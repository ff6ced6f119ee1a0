"""Are the int8 weights of an ONNX file in the steps that QAT has learnt, and do biases fit?

Why: a matrix has one scale, or one for each output. Both faults looked for here move the logits by
less than rounding to int8 may, so a comparison of logits passes them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.errors import ProofError
from helpers.onnx_weights import WEIGHTS, Wiring, type_name, values, zero_point

if TYPE_CHECKING:
    import onnx
    import torch

# Half of int32; the other half takes products of more than 30,000 inputs.
MOST_STEPS = 2**30


def check_scales(graph: "onnx.GraphProto", model: "torch.nn.Module") -> dict[str, Any]:
    """Hold the scales of int8 matrices to those in the model: one, or one for each output.

    Most matrices are square, so scales that go along the wrong side fit as well.

    Returns:
        The row of the proof: check, expected, found.

    Raises:
        ProofError: if they are others.
    """
    learnt = [m.weight_fake_quant.scale.numel() for m in model.modules() if is_int8_matrix(m)]
    each = sum(number > 1 for number in learnt)
    expected = counted({"one": len(learnt) - each, "one an output": each})
    row = {"check": "scales", "expected": expected, "found": counted(scales(graph))}
    if row["found"] == expected:
        return row
    mend = "The file rounds weights in other steps than training did; export again."
    raise ProofError(row["check"], expected, row["found"], mend)


def is_int8_matrix(module: "torch.nn.Module") -> bool:
    """Tell a quantized matrix from a quantized table."""
    return hasattr(module, "weight_fake_quant") and type(module).__name__ == "Linear"


def counted(kinds: dict[str, int]) -> str:
    """Return '2 matrices have one, 12 have one an output', without what there is none of."""
    found = [f"{count} have {kind}" for kind, count in kinds.items() if count]
    return ", ".join(found).replace(" have", " matrices have", 1)


def scales(graph: "onnx.GraphProto") -> dict[str, int]:
    """Count the int8 matrices that have one scale, one an output, or one along the other side.

    A zero point has the shape of its scale, and stands in the same place in either int8 form.
    """
    wires, found = Wiring.of(graph), dict.fromkeys(("one", "one an output", "one an input"), 0)
    for node in graph.node:
        for index in WEIGHTS.get(node.op_type, ()) if node.op_type != "Gather" else ():
            name, passed = wires.origin(node.input[index])
            tensor = wires.stored.get(name)
            if tensor is None or len(tensor.dims) != 2 or "INT8" not in type_name(tensor):
                continue
            points = np.asarray(zero_point(wires, node, index, passed))
            side = "one an output" if points.ndim == 1 else "one an input"
            found["one" if points.size == 1 else side] += 1
    return found


def check_biases(file: Path) -> None:
    """Refuse biases that SparseML has cut off to make them int32.

    It stores a bias in steps of input scale times weight scale, and adds it to the product: both
    have to fit. They do not where weights are so small that their steps are next to nothing.

    Raises:
        ProofError: naming the largest.
    """
    import onnx

    largest, name = max(biases(onnx.load(str(file)).graph), default=(0, ""))
    if largest > MOST_STEPS:
        mend = f"The weights that go with {name} are next to zero: train with one scale a matrix."
        raise ProofError("biases", f"at most {MOST_STEPS:,} steps", f"{largest:,}", mend)


def biases(graph: "onnx.GraphProto") -> list[tuple[int, str]]:
    """Return most steps and name of each bias that is added to an integer product."""
    wires, found = Wiring.of(graph), []
    for node in graph.node:
        made = [wires.made[name].op_type for name in node.input if name in wires.made]
        stored = [name for name in node.input if name in wires.stored]
        if node.op_type == "Add" and "MatMulInteger" in made and stored:
            steps = values(wires.stored[stored[0]]).astype(np.int64)
            found.append((int(np.abs(steps).max()), stored[0]))
    return found
