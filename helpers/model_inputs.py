"""What a model is fed: its inputs by name, type and shape, and what it can be fed at all.

Why: exports of others differ. Some have int32 inputs, some no `token_type_ids`, some want
`position_ids`, some take one shape only, and some are no transformers. An engine answers that with
a KeyError or an abort, and one of them with numbers read from behind the end of a table.

How: names, types and shapes stand in the file; so do the tables that words and positions are
looked up in. Nothing is run to find out.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from helpers.engine_child import OPENVINO_FILE, Setup
from helpers.errors import UserError
from helpers.model_files import kind_of, skeleton
from helpers.onnx_weights import BETWEEN, Wiring

if TYPE_CHECKING:
    import onnx

Inputs = dict[str, np.ndarray]
WORDS = "input_ids"
POSITIONS = "position_ids"
KNOWN = (WORDS, "attention_mask", "token_type_ids", POSITIONS)
# OpenVINO's names of types to numpy's; it casts what it is given, so others may pass for int64.
OPENVINO_TYPES = {"boolean": "bool", "i32": "int32", "f16": "float16", "f32": "float32"}
NAMED_AT_MOST = 4


@dataclass(frozen=True)
class Input:
    """One input: its type, and the size of each axis; None where it is free."""

    dtype: np.dtype
    shape: tuple[int | None, ...] = (None, None)

    def __str__(self) -> str:
        """Show type and shape, a free axis as a question mark."""
        return f"{self.dtype} [{', '.join(str(size or '?') for size in self.shape)}]"


def inputs_of(model: Path) -> dict[str, Input]:
    """Return the inputs of an ONNX file or an OpenVINO model by name; none for a checkpoint."""
    kind = kind_of(model)
    if kind == "ONNX file":
        return onnx_inputs(skeleton(model))
    return openvino_inputs(model / OPENVINO_FILE) if kind == "OpenVINO model" else {}


def onnx_inputs(graph: "onnx.GraphProto") -> dict[str, Input]:
    """Read the inputs of a graph; old files list their weights among them."""
    from onnx import helper

    stored = {tensor.name for tensor in graph.initializer}
    found = {}
    for value in graph.input:
        kind = value.type.tensor_type
        if value.name not in stored and kind.elem_type:
            sizes = tuple(size.dim_value or None for size in kind.shape.dim)
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[value.name] = Input(dtype, sizes) if kind.HasField("shape") else Input(dtype)
    return found


def openvino_inputs(file: Path) -> dict[str, Input]:
    """Read the inputs of an OpenVINO model.

    Raises:
        UserError: the file is none.
    """
    try:
        layers = [x for x in ElementTree.parse(file).iter("layer") if x.get("type") == "Parameter"]
        data = {layer.attrib["name"]: layer.find("data").attrib for layer in layers}
        found = {name: (about["element_type"], about["shape"]) for name, about in data.items()}
    except (ElementTree.ParseError, AttributeError, KeyError) as error:
        raise UserError(f"{file} is not an OpenVINO model, or damaged. Make it again.") from error
    return {
        name: Input(
            np.dtype(OPENVINO_TYPES.get(kind, "int64")),
            tuple(int(size) if size.isdecimal() else None for size in sizes.split(",")),
        )
        for name, (kind, sizes) in found.items()
    }


def check_inputs(model: Path) -> None:
    """Refuse a model that is not fed as a transformer's encoder is.

    Raises:
        UserError: naming the inputs found, the strange ones first, and those expected.
    """
    if kind_of(model) == "checkpoint":
        return
    found = inputs_of(model)
    strange = {n: i for n, i in found.items() if n not in KNOWN or len(i.shape) != 2}
    if WORDS in found and not strange:
        return
    all_of_them = [f"{name} {one}" for name, one in (strange | found).items()]
    more = len(all_of_them) - NAMED_AT_MOST
    named = ", ".join(all_of_them[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    raise UserError(
        f"{model} takes {named or 'no inputs'}. Expected an encoder of texts: {WORDS} and at most "
        f"{', '.join(KNOWN[1:])}, each [batch, tokens]."
    )


def misfit(model: Path, setup: Setup) -> str | None:
    """Say why a model cannot be run in a shape, before an engine fails over it in its own words."""
    for name, one in inputs_of(model).items():
        sizes = zip(one.shape, setup.shape, strict=False)
        if any(size not in (None, asked) for size, asked in sizes):
            return (
                f"It takes {name} as {one} only, not {setup.shape}. "
                "Export it with free axes, or time it in that shape."
            )
    positions = longest_text(model)
    if positions and setup.sequence_length > positions:
        return f"It knows {positions} positions, and {setup.sequence_length} tokens were asked for."
    return None


def tables(graph: "onnx.GraphProto") -> dict[str, int]:
    """Return how many rows the tables of a graph have, by the name of what looks them up.

    That is an input for words, and for positions mostly a stored list of all of them.
    """
    wires, found = Wiring.of(graph), {}
    for node in graph.node:
        if node.op_type != "Gather":
            continue
        table = wires.stored.get(wires.origin(node.input[0])[0])
        if table is not None and len(table.dims) == 2:
            found[wires.origin(node.input[1], BETWEEN | {"Slice"})[0]] = table.dims[0]
    return found


def longest_text(model: Path) -> int | None:
    """Return how many positions a model has; None where its files do not say so."""
    if kind_of(model) != "ONNX file":
        return configured(model, "max_position_embeddings")
    graph = skeleton(model)
    lists = {name: list(tensor.dims) for name, tensor in Wiring.of(graph).stored.items()}
    found = tables(graph)
    listed = [rows for name, rows in found.items() if lists.get(name, [])[-1:] == [rows]]
    return found.get(POSITIONS) or min(listed, default=None)


def vocabulary(models: Iterable[Path]) -> int | None:
    """Return how many words the model with the fewest has; None where no file says so."""
    return min((size for model in models if (size := words_of(model))), default=None)


def words_of(model: Path) -> int | None:
    """Return how many words a model's table has."""
    if kind_of(model) != "ONNX file":
        return configured(model, "vocab_size")
    return tables(skeleton(model)).get(WORDS)


def configured(folder: Path, name: str) -> int | None:
    """Return a size from the configuration in a folder; None where there is none to read."""
    try:
        return json.loads((folder / "config.json").read_text()).get(name)
    except (OSError, ValueError, AttributeError):
        return None


def fitted(inputs: Inputs, taken: dict[str, Input]) -> Inputs:
    """Return the inputs that a model takes, in the types it takes them.

    Args:
        inputs: arrays [batch, tokens] by name.
        taken: what `inputs_of` has returned; all are passed on where it knows of none.

    Raises:
        UserError: one is missing.
    """
    if missing := [name for name in taken if name not in inputs]:
        raise UserError(
            f"The model takes {missing[0]}, which is not among the inputs: {', '.join(inputs)}."
        )
    if not taken:
        return inputs
    return {name: inputs[name].astype(one.dtype, copy=False) for name, one in taken.items()}
