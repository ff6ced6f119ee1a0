"""Count zeros and int8 in modules and in ONNX graphs, and hold them to what was promised.

Nothing here trusts a log line: the zeros are counted in the tensors, the int8 products in the
graph that will be run.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import onnx_weights
from helpers.errors import ProofError

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

# A matrix of n weights cannot be split finer than 1/n; half a percent is far below what matters.
TOLERANCE = 0.005
# A trained dense matrix has next to no exact zeros; a dense int8 one has about a tenth.
SPARSE_FROM = 0.3


def zeros(weights: np.ndarray) -> float:
    """Return the share of exact zeros, 0 to 1."""
    return float((weights == 0).mean())


def layer_sparsity(model: "nn.Module") -> pd.DataFrame:
    """Return one row a weight matrix: layer, matrix, rows, columns, sparsity (0 to 1).

    Only the encoder's matrices and the head are listed: these do the arithmetic. Embeddings are
    look-ups, and no recipe here prunes them.
    """
    rows = []
    for name, parameter in model.named_parameters():
        if parameter.dim() != 2 or "embeddings" in name:
            continue
        short = name.removesuffix(".weight").removesuffix(".module")
        layer = next((int(part) for part in short.split(".") if part.isdigit()), -1)
        matrix = short.split(f".{layer}.")[-1] if layer >= 0 else short
        rows.append((layer, matrix, *parameter.shape, zeros(parameter.detach().cpu().numpy())))
    return pd.DataFrame(rows, columns=["layer", "matrix", "rows", "columns", "sparsity"])


def parameters(model: "nn.Module", *, by_any_name: bool = False) -> "dict[str, nn.Parameter]":
    """Return name to parameter, named as before QAT put a wrapper around some modules.

    Tied weights have one name, or `by_any_name` each of theirs: a recipe may match any of them.
    """
    named = model.named_parameters(remove_duplicate=not by_any_name)
    return {name.replace(".module.", "."): value for name, value in named}


def parameter_sparsity(model: "nn.Module", names: list[str]) -> dict[str, float]:
    """Return the sparsity of the named parameters; QAT wrappers in between are looked through."""
    found = parameters(model, by_any_name=True)
    return {name: zeros(found[name].detach().cpu().numpy()) for name in names}


def total_sparsity(model: "nn.Module", names: list[str]) -> float:
    """Return the share of exact zeros (0 to 1) in the named parameters together."""
    found = parameters(model, by_any_name=True)
    left = sum(int(found[name].count_nonzero()) for name in names)
    return 1.0 - left / sum(found[name].numel() for name in names)


def sparse_parameters(model: "nn.Module") -> dict[str, float]:
    """Return the weight matrices that are sparse already, with their sparsity (0 to 1).

    A recipe has to keep or add to their zeros. Embeddings are left out, as in `layer_sparsity`.
    """
    names = [
        name
        for name, parameter in parameters(model).items()
        if parameter.dim() == 2 and "embeddings" not in name
    ]
    found = parameter_sparsity(model, names)
    return {name: share for name, share in found.items() if share > SPARSE_FROM}


def whole_blocks(weights: np.ndarray, size: int = 4) -> bool:
    """Tell whether the zeros come in aligned runs of `size` along the input dimension."""
    blocks = (weights == 0).reshape(-1, size)
    return bool((blocks.all(axis=1) | ~blocks.any(axis=1)).mean() > 0.999)


def check_sparsity(found: dict[str, float], promised: dict[str, float]) -> None:
    """Hold counted zeros to the recipe.

    Args:
        found: parameter name to counted sparsity.
        promised: parameter name to the sparsity the recipe ends at.

    Raises:
        ProofError: naming the parameter that is furthest from its promise.
    """
    gaps = {name: abs(found[name] - goal) for name, goal in promised.items()}
    worst = max(gaps, key=gaps.__getitem__, default=None)
    if worst is None or gaps[worst] <= TOLERANCE:
        return
    raise ProofError(
        "sparsity",
        f"{promised[worst]:.1%} zeros in {worst}",
        f"{found[worst]:.1%}",
        "The recipe did not do what it says: look at its schedule and its patterns.",
    )


def check_blocks(model: "nn.Module", names: list[str]) -> None:
    """Hold matrices that were pruned in blocks of four to having whole blocks of zeros.

    Raises:
        ProofError: naming the first matrix that has not.
    """
    found = parameters(model, by_any_name=True)
    for name in names:
        if not whole_blocks(found[name].detach().cpu().numpy()):
            raise ProofError(
                "blocks",
                f"zeros in {name} in whole blocks of four",
                "single ones",
                "Something wrote into the blocks after they were pruned.",
            )


def zero_places(model: "nn.Module") -> "dict[str, torch.Tensor]":
    """Return where the zeros of each matrix are that is sparse already (bool, on the CPU)."""
    found = parameters(model)
    return {name: found[name].detach().cpu() == 0 for name in sparse_parameters(model)}


def check_zeros_kept(before: "dict[str, torch.Tensor]", model: "nn.Module") -> None:
    """Hold a model that started sparse to its zeros, each in its place.

    Args:
        before: `zero_places` of the start; a matrix of a layer that was dropped is passed over.
        model: what became of it.

    Raises:
        ProofError: naming the first matrix with zeros that came back to life.
    """
    found = parameters(model)
    for name in [name for name in before if name in found]:
        zero = before[name]
        alive = int(found[name].detach().cpu()[zero].count_nonzero())
        if alive:
            raise ProofError(
                "zeros kept",
                f"the {int(zero.sum()):,} zeros of {name}",
                f"{alive:,} of them came back to life",
                "Add a ConstantPruningModifier for every pruned matrix to the recipe.",
            )


def quantized_modules(model: "nn.Module") -> pd.DataFrame:
    """Return one row a module that computes with simulated int8: module, kind.

    Kinds: Linear (weights and inputs are int8), Embedding (the table is), MatMul (a product of two
    activations, as inside attention).
    """
    rows = []
    for name, module in model.named_modules():
        if hasattr(module, "weight_fake_quant"):
            rows.append((name.removesuffix(".module"), type(module).__name__))
        elif type(module).__name__ == "QATWrapper":
            rows.append((name, "MatMul"))
    return pd.DataFrame(rows, columns=["module", "kind"])


def int8_products(graph: "onnx.GraphProto") -> int:
    """Count the matrix products that run in int8, or that engines run so (QDQ)."""
    return onnx_weights.products(graph)[0]


def onnx_sparsity(file: Path) -> pd.DataFrame:
    """Return one row a weight matrix of an ONNX file: weight, operator, dtype, shape, sparsity."""
    return graph_sparsity(onnx_weights.read_graph(file)[0])


def graph_sparsity(graph: "onnx.GraphProto") -> pd.DataFrame:
    """Return what `onnx_sparsity` does, of a graph that has been read with its weights."""
    wires, rows = onnx_weights.Wiring.of(graph), []
    for node in graph.node:
        if node.op_type not in (*onnx_weights.FLOAT_PRODUCTS, *onnx_weights.INT8_PRODUCTS):
            continue
        for index in onnx_weights.WEIGHTS.get(node.op_type, ()):
            name, passed = wires.origin(node.input[index])
            tensor = wires.stored.get(name)
            if tensor is None or len(tensor.dims) != 2:
                continue
            share = onnx_weights.matrix(wires, name, node, index, passed).zero.mean()
            kind = str(onnx_weights.values(tensor).dtype)
            rows.append((name, node.op_type, kind, tuple(tensor.dims), float(share)))
    return pd.DataFrame(rows, columns=["weight", "operator", "dtype", "shape", "sparsity"])
