"""What is inside a checkpoint folder or an ONNX file: zeros, precision and bytes of each matrix.

Only stored tensors are read and no model is built, so a folder that no longer loads, or that
somebody else made, can be looked into as well. Pickled code is never run.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from helpers import inspection_findings as findings
from helpers import onnx_weights
from helpers.errors import UserError, unreachable
from helpers.exercises import zipped_size
from helpers.stops import Checkpoint, OnnxModel

if TYPE_CHECKING:
    import onnx
    import torch

COLUMNS = ["weight", "part", "shape", "zeros", "blocks", "precision", "bytes"]
# What wrappers, Torch's exporter and the int8 folding add to the name of a layer.
_ADDED = {"module", "weight", "weight_quantized", "MatMul", "Gemm"}
_PRECISIONS = {
    "float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16",  # Torch
    "DOUBLE": "fp64", "FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16",  # ONNX
    "INT8": "int8", "UINT8": "int8", "FLOAT rounded": "int8 at load",
}  # fmt: skip


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        kind: "checkpoint" or "onnx".
        weights: one row a matrix: weight, part (embeddings, encoder, head), shape, zeros (share,
            0 to 1), blocks (share of all weights that are zeros in aligned 1x4 blocks along the
            input dimension), precision, bytes.
        totals: parameters, encoder_zeros (share; None without an encoder), int8_products,
            file_bytes, zipped_bytes.
        warnings: what looks wrong, a sentence each.
    """

    kind: str
    weights: pd.DataFrame = field(repr=False)
    totals: dict[str, float | None]
    warnings: list[str]


def inspect(path: str | Path) -> Inspection:
    """Look into a checkpoint folder, an export folder or an ONNX file.

    Raises:
        UserError: there is no such thing, or it cannot be read.
    """
    path = Path(path)
    if path.is_file() and path.suffix.lower() == ".onnx":
        return inspect_onnx(path)
    if not path.is_dir():
        there = "is neither a folder nor an .onnx file" if path.exists() else "does not exist"
        raise UserError(f"{path} {there}. Expected a checkpoint's folder or an .onnx file.")
    if files := weight_files(path):
        return inspect_checkpoint(path, files)
    graphs = sorted(path.glob("*.onnx"))
    if len(graphs) == 1 or (path / "model.onnx") in graphs:
        return inspect_onnx(graphs[0] if len(graphs) == 1 else path / "model.onnx")
    found = f"{len(graphs)} .onnx files; name one" if graphs else "no weights and no .onnx file"
    raise UserError(f"{path} holds {found}. Expected *.safetensors, pytorch_model*.bin or .onnx.")


def weight_files(folder: Path) -> list[Path]:
    """Return the files with a folder's weights, all parts; safetensors win, as when loading."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def inspect_checkpoint(folder: Path, files: list[Path]) -> Inspection:
    """Look into a folder of weights, ours or anybody's."""
    state = read_tensors(folder, files)
    table = checkpoint_weights(state)
    learnt = {k: v for k, v in state.items() if v.is_floating_point() and "_process." not in k}
    learnt = {k: v for k, v in learnt.items() if "fake_quant" not in k}
    matmuls = {key.split(".input_quant_stubs.")[0] for key in state if ".input_quant_stubs." in key}
    linear = int(((table.precision == "int8 by QAT") & (table.part != "embeddings")).sum())
    attention = 2 * encoder_layers(table) - len(matmuls) if linear else 0
    warnings = [
        *findings.seal(folder, "run.json", Checkpoint),
        *findings.recipe(folder, table),
        *findings.weight(table, [k for k, v in learnt.items() if not v.isfinite().all()]),
        *findings.attention(attention),
    ]
    size = sum(tensor.numel() for tensor in untied(learnt.values()))
    return Inspection(
        "checkpoint", table, totals(table, size, linear + len(matmuls), files), warnings
    )


def untied(tensors: "Iterable[torch.Tensor]") -> "list[torch.Tensor]":
    """Return each matrix once: a head tied to the word table is stored beside it as a copy."""
    found: dict[tuple, list[torch.Tensor]] = {}
    for number, tensor in enumerate(tensors):
        # Vectors may well be equal by chance, such as those that are still all zeros.
        key = (*tensor.shape, float(tensor.sum())) if tensor.dim() > 1 else (number,)
        if not any(tensor.equal(other) for other in found.get(key, ())):
            found.setdefault(key, []).append(tensor)
    return [tensor for alike in found.values() for tensor in alike]


def inspect_onnx(file: Path) -> Inspection:
    """Look into an ONNX file, and the files of data that belong to it."""
    graph, files = onnx_weights.read_graph(file)
    table = onnx_table(graph)
    learnt = {tensor.name: onnx_weights.values(tensor) for tensor in onnx_weights.parameters(graph)}
    int8, floating = onnx_weights.products(graph)
    warnings = [
        *findings.seal(file.parent, "proof.json", OnnxModel),
        *findings.weight(table, [name for name, v in learnt.items() if not np.isfinite(v).all()]),
        *findings.attention(floating if int8 else 0),
    ]
    size = sum(array.size for array in learnt.values())
    return Inspection("onnx", table, totals(table, size, int8, files), warnings)


def totals(
    table: pd.DataFrame, parameters: int, int8_products: int, files: list[Path]
) -> dict[str, float | None]:
    """Return the figures of `Inspection.totals`."""
    encoder = table[table.part == "encoder"]
    return {
        "parameters": parameters,
        "encoder_zeros": findings.overall(encoder) if len(encoder) else None,
        "int8_products": int8_products,
        "file_bytes": sum(file.stat().st_size for file in files),
        "zipped_bytes": sum(zipped_size(file) for file in files),
    }


def read_tensors(folder: Path, files: list[Path]) -> dict[str, "torch.Tensor"]:
    """Read all tensors of some files by name.

    Raises:
        UserError: a file is damaged, holds more than tensors, or none.
    """
    import torch
    from safetensors.torch import load_file

    state = {}
    for file in files:
        try:
            safe = file.suffix == ".safetensors"
            part = load_file(file) if safe else torch.load(file, "cpu", weights_only=True)
            state |= {k: v for k, v in part.items() if isinstance(v, torch.Tensor)}
        except Exception as error:  # noqa: BLE001 - safetensors, pickle and zip share no base class
            raise unreachable(folder, f"file {file.name}", error) from error
    if state:
        return state
    raise UserError(f"{folder} holds no tensors in {files[0].name}. Expected a model's weights.")


def checkpoint_weights(state: dict[str, "torch.Tensor"]) -> pd.DataFrame:
    """Return one row a weight matrix of a checkpoint, see `Inspection.weights`."""
    rows = []
    for key, tensor in state.items():
        if tensor.dim() != 2 or not key.endswith("weight"):
            continue
        precision = precision_of(str(tensor.dtype).removeprefix("torch."))
        if f"{key}_fake_quant.scale" in state:
            precision = "int8 by QAT"
        size = tensor.numel() * tensor.element_size()
        rows.append(row(key, (tensor == 0).numpy(), precision, size))
    return pd.DataFrame(rows, columns=COLUMNS)


def onnx_table(graph: "onnx.GraphProto") -> pd.DataFrame:
    """Return one row a weight matrix of an ONNX graph, see `Inspection.weights`."""
    found = onnx_weights.matrices(graph)
    rows = [row(m.name, m.zero, precision_of(m.dtype), m.bytes) for m in found]
    return pd.DataFrame(rows, columns=COLUMNS)


def row(name: str, zero: np.ndarray, precision: str, size: int) -> tuple:
    """Return one row of `Inspection.weights`; `zero` [outputs, inputs] is true at every zero."""
    name = layer_name(name)
    share = float(zero.mean()) if zero.size else 0.0
    return name, part(name), tuple(zero.shape), share, in_blocks(zero), precision, size


def in_blocks(zero: np.ndarray, size: int = 4) -> float:
    """Return the share of all weights that are zeros in aligned 1 x `size` blocks, 0 to 1.

    Args:
        zero: [outputs, inputs], true at every zero; inputs that fill no block do not count.
        size: weights a block.
    """
    if not zero.size:
        return 0.0
    whole = zero[:, : zero.shape[1] // size * size]
    return float(whole.reshape(-1, size).all(axis=1).sum() * size / zero.size)


def layer_name(name: str) -> str:
    """Return the name of the layer a stored weight belongs to, the same for Torch and ONNX."""
    parts = name.strip("/").replace("/", ".").split(".")
    return ".".join(p for p in parts if p.removesuffix("_quant") not in _ADDED) or name


def part(name: str) -> str:
    """Return which part of the model a layer belongs to: embeddings, encoder or head."""
    if "embeddings" in name:
        return "embeddings"
    return "encoder" if re.search(r"\.\d+\.", name) else "head"


def precision_of(dtype: str) -> str:
    """Return the short name of a data type."""
    return _PRECISIONS.get(dtype, dtype)


def encoder_layers(table: pd.DataFrame) -> int:
    """Count the encoder's layers by the numbers in their names."""
    names = table.weight[table.part == "encoder"]
    return names.str.extract(r"\.(\d+)\.")[0].nunique()
