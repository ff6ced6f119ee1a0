"""What is known of a model before it is run: hash, precision and zeros; or why it cannot be run.

Why: a wrong file is worth a sentence in the first second, not a stack trace of each engine after
the first model has been timed for minutes.

How: all is read from the files; no engine is started.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import onnx_weights, sparsity
from helpers.engine_child import OPENVINO_FILE
from helpers.errors import UserError
from helpers.model_files import fingerprint, kind_of
from helpers.model_inputs import check_inputs

if TYPE_CHECKING:
    import onnx


def facts_of(model: Path) -> dict[str, Any]:
    """Return what can be known of a model without running it: sha256, precision and sparsity.

    Raises:
        UserError: if it is neither an ONNX file nor the folder of a model, if a part of it is
            missing, or if it takes other inputs than a transformer.
    """
    if not model.exists():
        raise UserError(f"There is no model {model}. Export it first, or correct the name.")
    kind = kind_of(model)
    if kind == "checkpoint" and not (model / "config.json").is_file():
        others = ", ".join(file.name for file in sorted(model.glob("*.onnx"))[:3])
        mend = f" It holds {others}: name the file." if others else ""
        raise UserError(f"{model} holds neither model.onnx nor a checkpoint (config.json).{mend}")
    check_inputs(model)
    facts = {"sha256": fingerprint(model)}
    if kind == "OpenVINO model":
        int8 = b'type="FakeQuantize"' in (model / OPENVINO_FILE).read_bytes()
        return facts | {"precision": "int8" if int8 else "fp32"}
    return facts if kind == "checkpoint" else facts | onnx_facts(model)


def onnx_facts(file: Path) -> dict[str, Any]:
    """Return precision and sparsity of an ONNX file, counted in its graph."""
    graph, _ = onnx_weights.read_graph(file)
    check_weights(file, graph)
    matrices = sparsity.graph_sparsity(graph)
    sizes = matrices["shape"].map(np.prod)
    floats = "fp16" if set(matrices["dtype"]) == {"float16"} else "fp32"
    return {
        "precision": "int8" if sparsity.int8_products(graph) else floats,
        "sparsity": float(np.average(matrices["sparsity"], weights=sizes)) if len(sizes) else None,
    }


def check_weights(file: Path, graph: "onnx.GraphProto") -> None:
    """Refuse weights that are no numbers; DeepSparse would answer as if nothing were wrong.

    Raises:
        UserError: naming the first of them.
    """
    for tensor in onnx_weights.parameters(graph):
        if np.isnan(onnx_weights.values(tensor)).any():
            raise UserError(
                f"{file} holds NaN in {tensor.name}: its training went wrong. "
                "`python -m helpers inspect` lists all such weights."
            )
