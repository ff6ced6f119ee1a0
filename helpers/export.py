"""Checkpoint to ONNX, with its proof.

The folder appears only when `export_proof` has passed every file in it; `proof.json` says what was
checked, expected and found. An int8 model has two forms: SparseML's, which only DeepSparse runs in
int8, and QDQ, which OpenVINO and ONNX Runtime do (see `portable`).
"""

import collections
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import compat, environment, models, portable, stops
from helpers.errors import UserError
from helpers.export_proof import prove
from helpers.int8_scales import check_biases
from helpers.models import INPUTS
from helpers.requests import check_answers, identity
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task
from helpers.token_batches import check_room

if TYPE_CHECKING:
    import torch


# Form to the files that hold it, each with the form it has; the first is what engines are given.
FORMS = {
    "deepsparse": {"model.onnx": "deepsparse"},
    "qdq": {"model.onnx": "qdq"},
    "both": {"model.onnx": "deepsparse", portable.QDQ_FILE: "qdq"},
}


def export_onnx(
    checkpoint: Checkpoint,
    task: Task,
    output_dir: Path | str,
    *,
    form: str = "deepsparse",
    overwrite: bool = False,
) -> OnnxModel:
    """Export a checkpoint and return the proven ONNX model.

    If `output_dir` holds a proven export of exactly this checkpoint in this form, it is returned as
    it is.

    Args:
        checkpoint: a finished run.
        task: the task it was trained for; its validation rows are the proof's inputs.
        output_dir: the export's folder; it appears when every check has passed.
        form: "deepsparse", "qdq", or "both": then the second is `model_qdq.onnx`. A model in fp32
            has one form, whatever is asked.
        overwrite: replace what it holds.

    Raises:
        UserError: for another form, rows longer than the model takes, and an output folder that is
            occupied, a file, or on a full disk.
        ProofError: if the file is not the model; nothing is written.
    """
    check_form(form)
    output_dir = Path(output_dir).resolve()
    if output_dir.is_file():
        raise UserError(f"{output_dir} is a file; --onnx_export_path names a folder.")
    if stops.is_or_holds(output_dir, checkpoint.folder):
        raise UserError(
            f"{output_dir} is or holds the checkpoint, which would be overwritten. "
            "Choose another folder for the export."
        )
    mend = "Give the task it was trained on, or the proof would mean nothing."
    check_answers(checkpoint, task, mend)
    check_room(checkpoint, task)
    files = files_of(form, quantized=bool(_quantized(checkpoint)))
    if not overwrite and (found := reuse(output_dir, checkpoint, files)):
        print(f"{output_dir.name}: proven export found, nothing to do.")
        return found
    environment.check_disk(output_dir, 4 * sum(f.stat().st_size for f in _files(checkpoint)))
    with stops.writing(output_dir, overwrite=overwrite) as folder:
        for file in _files(checkpoint):
            if file.suffix in (".json", ".txt") and not file.name.startswith(("run.", "eval_")):
                shutil.copy(file, folder)
        checks = write_files(checkpoint, task, folder, files)
        # The checkpoint's metrics, of all validation rows; the checks tie the file to it.
        note = {"source": identity(checkpoint), "task": task.name, "metrics": checkpoint.metrics}
        note |= {"forms": files, "checks": checks}
        stops.write_note(folder, "proof.json", {**note, **environment.describe()})
    return OnnxModel.load(output_dir)


def check_form(form: str) -> None:
    """Refuse a form that there is none of, before anything is trained for it.

    Raises:
        UserError: naming those there are.
    """
    if form not in FORMS:
        raise UserError(f"--onnx_export_format is {form!r}. Expected one of {', '.join(FORMS)}.")


def files_of(form: str, *, quantized: bool) -> dict[str, str]:
    """Return the files of an export, each with its form; a model in fp32 has one form only."""
    return FORMS[form] if quantized else {"model.onnx": "fp32"}


def reuse(
    output_dir: Path, checkpoint: Checkpoint, files: dict[str, str] | None = None
) -> OnnxModel | None:
    """Return the export in `output_dir` if it was made from these very weights, in these forms."""
    if not (output_dir / "proof.json").is_file():
        return None
    found = OnnxModel.load(output_dir)
    if files and found.proof.get("forms", files) != files:
        return None
    return found if found.proof["source"] == identity(checkpoint) else None


def write_files(
    checkpoint: Checkpoint, task: Task, folder: Path, files: dict[str, str]
) -> list[dict[str, Any]]:
    """Write a model in each form that is asked for; return the checks they have passed."""
    model = models.load_model(checkpoint)
    quantized = bool(_quantized(checkpoint))
    write_forms(model, folder, files, task.outputs, quantized=quantized)
    placed = {folder / name: form for name, form in files.items()}
    return prove(placed, model, checkpoint, task)


def write_forms(
    model: "torch.nn.Module",
    folder: Path,
    files: dict[str, str],
    outputs: tuple[str, ...],
    *,
    quantized: bool,
) -> None:
    """Write a model as ONNX into a folder, one file for each form: name to a value of `FORMS`."""
    import onnx

    first = folder / next(iter(files))
    write_graph(model, first, outputs, quantized=quantized)
    # Made of the first file, or in its place where no other form is wanted.
    for name, form in files.items():
        if form == "qdq":
            onnx.save(portable.to_qdq(onnx.load(str(first))), str(folder / name))


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

    Raises:
        ProofError: int8 has no room for a bias.
    """
    import torch
    from sparseml.pytorch.utils import export_onnx as sparseml_export

    if quantized:
        compat.scale_dead_rows(model)
    # No output but one with a number for each token may be as long as the text.
    length = 16 if model.config.num_labels != 16 else 17
    ones = torch.ones(1, length, dtype=torch.int64)
    batch = collections.OrderedDict((name, ones * (name != "token_type_ids")) for name in INPUTS)
    free = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    with torch.no_grad():
        given = model.eval()(**batch)
    for name in outputs:
        free[name] = {
            0: "batch",
            **({1: "sequence"} if given[name].shape[1:2] == (length,) else {}),
        }
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
    check_biases(file)
