"""Dense int8 without training: what a sparse int8 model is honestly compared with.

Why: who wants speed and never heard of sparsity quantizes the dense model after training. What
zeros gain is their lead over that, not over fp32.

How: ONNX Runtime's static quantizer, and NNCF's, made for OpenVINO. Both set their ranges by the
same training rows; the accuracy is measured on the engine that the method is made for.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import (
    compat,
    engines,
    environment,
    export,
    export_proof,
    models,
    stops,
    token_batches,
)
from helpers.engine_child import OPENVINO_FILE
from helpers.errors import UserError
from helpers.requests import check_answers, identity
from helpers.stops import Checkpoint
from helpers.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Method to the engine it is made for; "onnxruntime" writes model.onnx, "nncf" an OpenVINO model.
METHODS = {"onnxruntime": "onnxruntime", "nncf": "openvino"}
CALIBRATION_ROWS = 128
NOTE = "peer.json"


def quantize_after_training(
    checkpoint: Checkpoint,
    task: Task,
    output_dir: Path | str,
    *,
    method: str = "onnxruntime",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a dense model in int8, without training it, and measure it on all validation rows.

    Args:
        checkpoint: a finished run in fp32.
        task: the task it was trained for; rows of its training half set the ranges.
        output_dir: gets `model.onnx` or an OpenVINO model, and `peer.json`.
        method: a key of `METHODS`.
        overwrite: replace what it holds.

    Returns:
        What `peer.json` says: `method`, `engine`, `metrics` there, `fp32` metrics on the same
        `rows`, `source`.

    Raises:
        UserError: for another method, a checkpoint that is int8 already, another task, rows longer
            than the model takes, an engine that is not for this platform, an output folder that is
            occupied or holds the checkpoint.
        ProofError: the engine cannot run what was written.
    """
    check(checkpoint, task, method)
    if stops.is_or_holds(Path(output_dir), checkpoint.folder):
        raise UserError(f"{output_dir} is or holds the checkpoint itself. Name another folder.")
    tokenizer = models.load_tokenizer(checkpoint.folder)
    rows = task.encode(tokenizer, task.shortened(CALIBRATION_ROWS, 1).train)
    texts = token_batches.equal_batches(checkpoint, task, rows)
    with stops.writing(Path(output_dir).resolve(), overwrite=overwrite) as folder:
        dense = folder / "dense.onnx"
        export.write_graph(models.load_model(checkpoint), dense, task.outputs, quantized=False)
        made = WRITERS[method](dense, folder, texts)
        features = task.encode_validation(tokenizer, task.validation)
        fp32 = checkpoint.metrics
        if not measured_alike(checkpoint, task):
            fp32 = measure(dense, METHODS[method], checkpoint, task, features)
        dense.unlink()
        note = {
            "method": method,
            "engine": METHODS[method],
            "metrics": measure(made, METHODS[method], checkpoint, task, features),
            "fp32": fp32,
            "rows": len(task.validation),
            "source": identity(checkpoint),
            "calibration_rows": len(rows),
        }
        stops.write_note(folder, NOTE, {**note, **environment.describe()})
    return note


def measured_alike(checkpoint: Checkpoint, task: Task) -> bool:
    """Tell whether a checkpoint's own metrics are of these rows, read in the same way."""
    return checkpoint.run.get("request", {}).get("data") == task.fingerprint


def is_made(folder: Path, checkpoint: Checkpoint) -> bool:
    """Tell whether a folder holds the int8 form of these very weights.

    Raises:
        UserError: a file in it was changed.
    """
    if not (folder / NOTE).is_file():
        return False
    return stops.read_note(folder, NOTE)["source"] == identity(checkpoint)


def check(checkpoint: Checkpoint, task: Task, method: str) -> None:
    """Refuse what cannot be quantized, before anything is written."""
    if method not in METHODS:
        raise UserError(f"No method {method!r}. Expected one of {', '.join(METHODS)}.")
    if checkpoint.run["quantized_modules"]:
        raise UserError(
            f"{checkpoint.folder} is int8 already. Expected a model in fp32; export this one."
        )
    if reason := engines.missing_engines().get(METHODS[method]):
        raise UserError(f"{method} cannot be used here. {reason}")
    check_answers(checkpoint, task, "Give the task it was trained on: its rows set the ranges.")
    token_batches.check_room(checkpoint, task)


def by_onnx_runtime(dense: Path, folder: Path, texts: list[dict[str, np.ndarray]]) -> Path:
    """Quantize statically with ONNX Runtime's own tool; weights per channel."""
    compat.name_small_integers()
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Texts(CalibrationDataReader):
        """The same texts again for each pass."""

        def __init__(self) -> None:
            self.left = iter(texts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    prepared, made = folder / "prepared.onnx", folder / "model.onnx"
    quant_pre_process(str(dense), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(made),
        Texts(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )
    prepared.unlink()
    return made


def by_nncf(dense: Path, folder: Path, texts: list[dict[str, np.ndarray]]) -> Path:
    """Quantize with NNCF's recipe for transformers, which smooths activations and mends biases."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    import nncf
    import openvino

    made = nncf.quantize(
        openvino.Core().read_model(dense),
        nncf.Dataset(texts),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(texts),
    )
    openvino.save_model(made, folder / OPENVINO_FILE, compress_to_fp16=False)
    return folder


WRITERS = {"onnxruntime": by_onnx_runtime, "nncf": by_nncf}


def measure(
    model: Path, engine: str, checkpoint: Checkpoint, task: Task, features: "Dataset"
) -> dict[str, float]:
    """Return the task's metrics of a model on an engine, over all of the features."""
    batches = token_batches.equal_batches(checkpoint, task, features)
    found = export_proof.answers_of(model, engine, batches)
    # The copies that filled the last batch count for nothing.
    references = task.references(features)
    return task.metrics(token_batches.first_rows(found, len(features)), references)
