"""Checkpoint to ONNX, with its proof.

The folder appears only when `export_proof` has passed the file; `proof.json` in it says what was
checked, expected and found.
"""

import collections
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import compat, environment, models, stops
from helpers.errors import UserError
from helpers.export_proof import prove
from helpers.models import INPUTS
from helpers.requests import check_answers, identity
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task

if TYPE_CHECKING:
    import torch


def export_onnx(
    checkpoint: Checkpoint, task: Task, output_dir: Path | str, *, overwrite: bool = False
) -> OnnxModel:
    """Export a checkpoint and return the proven ONNX model.

    If `output_dir` holds a proven export of exactly this checkpoint, it is returned as it is.

    Args:
        checkpoint: a finished run.
        task: the task it was trained for; its validation rows are the proof's inputs.
        output_dir: the export's folder; it appears when every check has passed.
        overwrite: replace what it holds.

    Raises:
        UserError: for an output folder that is occupied, a file, or on a full disk.
        ProofError: if the file is not the model; nothing is written.
    """
    output_dir = Path(output_dir).resolve()
    if output_dir.is_file():
        raise UserError(f"{output_dir} is a file; --onnx_export_path names a folder.")
    if output_dir in (checkpoint.folder, *checkpoint.folder.parents):
        raise UserError(
            f"{output_dir} is or holds the checkpoint, which would be overwritten. "
            "Choose another folder for the export."
        )
    mend = "Give the task it was trained on, or the proof would mean nothing."
    check_answers(checkpoint, task, mend)
    if not overwrite and (found := reuse(output_dir, checkpoint)):
        print(f"{output_dir.name}: proven export found, nothing to do.")
        return found
    environment.check_disk(output_dir, 4 * sum(f.stat().st_size for f in _files(checkpoint)))
    with stops.writing(output_dir, overwrite=overwrite) as folder:
        model = models.load_model(checkpoint)
        quantized = bool(_quantized(checkpoint))
        write_graph(model, folder / "model.onnx", task.outputs, quantized=quantized)
        for file in _files(checkpoint):
            if file.suffix in (".json", ".txt") and not file.name.startswith(("run.", "eval_")):
                shutil.copy(file, folder)
        checks = prove(folder / "model.onnx", model, checkpoint, task)
        note = {"source": identity(checkpoint), "task": task.name, "checks": checks}
        stops.write_note(folder, "proof.json", {**note, **environment.describe()})
    return OnnxModel.load(output_dir)


def reuse(output_dir: Path, checkpoint: Checkpoint) -> OnnxModel | None:
    """Return the export in `output_dir` if it was made from these very weights."""
    if not (output_dir / "proof.json").is_file():
        return None
    found = OnnxModel.load(output_dir)
    return found if found.proof["source"] == identity(checkpoint) else None


def _files(checkpoint: Checkpoint) -> list[Path]:
    return sorted(file for file in checkpoint.folder.iterdir() if file.is_file())


def _quantized(checkpoint: Checkpoint) -> int:
    return checkpoint.run["quantized_modules"]


def write_graph(
    model: "torch.nn.Module",
    file: Path,
    outputs: tuple[str, ...] = ("logits",),
    *,
    quantized: bool,
) -> None:
    """Write the ONNX graph of a model; fake quantization becomes real int8 operators.

    Inputs are `input_ids`, `attention_mask`, `token_type_ids` [batch, sequence], int64, both
    dimensions free; so they are in the `outputs`, as far as these have them.
    """
    import torch
    from sparseml.pytorch.utils import export_onnx as sparseml_export

    ones = torch.ones(1, 16, dtype=torch.int64)
    batch = collections.OrderedDict((name, ones * (name != "token_type_ids")) for name in INPUTS)
    free = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    with torch.no_grad():
        given = model.eval()(**batch)
    for name in outputs:
        free[name] = {0: "batch", **({1: "sequence"} if given[name].shape[1:2] == (16,) else {})}
    sparseml_export(
        model.eval(),
        batch,
        str(file),
        opset=compat.ONNX_OPSET,
        convert_qat=quantized,
        dynamic_axes=free,
        output_names=list(outputs),
        **compat.torchscript_export_options(),
    )
