"""Workarounds for the end-of-life training stack, one function each: symptom, cause, fix.

What engines need in their child processes stands in `engine_child.py`, what they say made readable
in `compat_engines.py`, what recipes need in `recipe_text.py`; nothing else may work around
SparseML, DeepSparse or old Transformers.
All symptoms were seen with the versions in `requirements.lock`.
"""

# Python 3.9, which macOS has, gets as far as being told that it is the wrong one.
from __future__ import annotations

import dataclasses
import functools
import logging
import os
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from nbclient import NotebookClient
    from transformers import TrainingArguments

# FakeQuantize and SparseML's int8 folding were seen to work with this opset.
ONNX_OPSET = 14
FLAG_HELP = {
    "bf16": "bf16 autocast outside QAT; not given: where it is faster, which is measured",
    "distill_teacher": "a dense model of the same task: a folder, a hub name, 'self' or 'disable'",
    "recipe": "a recipe's file, or the name of one in recipes/",
    "recipe_args": "variables of the recipe to set, as num_epochs=3,init_lr=1e-4 or as JSON",
}


def quiet_stack() -> None:
    """Switch analytics off and lower the noise, before anything of the stack is imported.

    Symptom: SparseML and SparseZoo phone home at import; pages of deprecation warnings.
    Cause: analytics are on by default and only read the variable at import; old pins on new Torch.
    """
    os.environ.setdefault("NM_DISABLE_ANALYTICS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    # Ours to show: the Trainer's own bar and tqdm in text, never widgets that are stored half-way.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("sparseml", "sparsezoo", "torch.onnx", "torch.ao.quantization"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in (
        "transformers",
        "sparseml",
        "torch",
        "huggingface_hub",
        "accelerate",
        "pydantic",
    ):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")


def quiet_sparseml() -> None:
    """Show SparseML's errors only, and let it open no log files; call it after the import.

    Symptom: pages of INFO lines, a warning that the transformers version is unsupported, and
    `sparse_logs/` folders in whatever directory the process was started from.
    Cause: `sparseml.log` sets its logger to INFO when imported, whatever was set before; the
    version warning concerns generative models; `PythonLogger` opens a file of its own unless its
    logger has a FileHandler already.
    """
    from sparseml.log import set_logging_level

    set_logging_level(logging.ERROR)
    modifiers = logging.getLogger("sparseml.pytorch.utils.logger")
    if not any(isinstance(handler, logging.FileHandler) for handler in modifiers.handlers):
        modifiers.addHandler(logging.FileHandler(os.devnull, delay=True))


def make_attention_quantizable(model: torch.nn.Module) -> torch.nn.Module:
    """Let QAT see the two matrix products inside attention, whatever head the model has.

    Symptom: a quantized classifier has 38 int8 products instead of 50, and nothing says so.
    Cause: SparseML swaps the attention modules only for `BertModel` and
    `BertForQuestionAnswering`, looked up by class name.
    """
    from sparseml.transformers.sparsification.modification import modifying_bert

    quiet_sparseml()
    if getattr(model.config, "model_type", "") == "bert":
        modifying_bert.modify(model)
    return model


def torchscript_export_options() -> dict[str, Any]:
    """Return the options with which Torch's ONNX exporter can take fake-quantized modules.

    Symptom: `No module named 'onnxscript'` during export.
    Cause: Torch 2.9 and later export by dynamo unless told otherwise, and that path has no
    FakeQuantize.
    """
    return {"dynamo": False, "do_constant_folding": True}


def absolute(path: Path | str) -> str:
    """Return the path SparseML may be given.

    Symptom: `out/model/out/model/pytorch_model.bin` not found.
    Cause: SparseML joins a relative model path with itself when it reloads.
    """
    return str(Path(path).resolve())


def was_interrupted(client: NotebookClient) -> bool:
    """Tell whether Ctrl-C ended a notebook.

    Symptom: "notebook failed", or the traceback of an AssertionError, for Ctrl-C.
    Cause: nbclient takes the signal for itself and ends the kernel, which fails in one way or
    another; what is looked for here is there after that only.
    """
    return hasattr(client, "_async_cleanup_kernel_future")


def weight_file_name(quantized: bool) -> str:
    """Return the weight file a checkpoint must use.

    Symptom: random weights are exported, "Successfully exported".
    Cause: SparseML's own tools reload a QAT or layer-dropped checkpoint from
    `pytorch_model*.bin` only, and go on without weights when there is none. We load strictly
    ourselves, but a reader may hand our checkpoint to those tools.
    """
    return "pytorch_model.bin" if quantized else "model.safetensors"


def share_learning_rate(optimizer: torch.optim.Optimizer) -> None:
    """Let the Trainer see, and its scheduler set, the learning rate that is really used.

    Symptom: the logged learning rate stays constant whatever the recipe says; and with a recipe
    that has no learning-rate modifier, the Trainer's own schedule has no effect.
    Cause: Accelerate reloads the optimizer's state. SparseML's `ScheduledOptimizer` inherits
    that method, so it ends up with parameter groups of its own beside those of the optimizer it
    wraps.
    """
    scheduled = getattr(optimizer, "optimizer", optimizer)
    if type(scheduled).__name__ == "ScheduledOptimizer":
        scheduled.__dict__.pop("param_groups", None)
        scheduled.__dict__.pop("state", None)


def round_rows_looked_up() -> None:
    """Let QAT round the rows of an embedding table that a batch looks up, not the whole table.

    Symptom: MiniLM's QAT step spends 100 ms of 600 on the table's 30,522 rows.
    Cause: SparseML rounds first and looks up then. Each weight is rounded by itself, so the order
    makes no difference to the result, nor to the gradient. Evaluation and export keep SparseML's
    order: its int8 folding looks for it.
    """
    from sparseml.pytorch.sparsification.quantization import helpers as quantization

    prepare_whole = quantization._prepare_qat_embedding
    if hasattr(prepare_whole, "__wrapped__"):
        return

    @functools.wraps(prepare_whole)
    def prepare(embedding: torch.nn.Embedding, qconfig: Any) -> None:  # noqa: ANN401 - as SparseML
        prepare_whole(embedding, qconfig)
        embedding.round_and_look_up = embedding.forward
        # A bound method, so that a copy of the module gets one of its own.
        embedding.forward = types.MethodType(_forward, embedding)

    quantization._prepare_qat_embedding = prepare


def _forward(embedding: torch.nn.Embedding, rows: torch.Tensor) -> torch.Tensor:
    if not embedding.training:
        return embedding.round_and_look_up(rows)
    return _look_up_and_round(embedding, rows)


def _look_up_and_round(embedding: torch.nn.Embedding, rows: torch.Tensor) -> torch.Tensor:
    """Return the rows [..., width] rounded as `weight_fake_quant` rounds the table."""
    import torch

    rounding = embedding.weight_fake_quant
    if rounding.observer_enabled[0]:
        rounding.activation_post_process(embedding.weight.detach())
        scale, zero_point = rounding.calculate_qparams()
        rounding.scale.copy_(scale)
        rounding.zero_point.copy_(zero_point)
    found = torch.nn.functional.embedding(rows, embedding.weight, embedding.padding_idx)
    if not rounding.fake_quant_enabled[0]:
        return found
    return torch.fake_quantize_per_tensor_affine(
        found, rounding.scale, rounding.zero_point, rounding.quant_min, rounding.quant_max
    )


def keep_scheme_on_qconfig() -> None:
    """Let SparseML's newer QuantizationModifier start QAT: the one that takes a `scheme`.

    Symptom: `'QConfig' object has no attribute 'quantization_scheme'` at its first epoch.
    Cause: SparseML notes on each QConfig which scheme it was made of. Torch's has empty
    `__slots__` by now and takes no notes; a subclass without slots does.
    """
    import torch
    from sparseml.pytorch.sparsification.quantization import quantization_scheme

    make = quantization_scheme._get_qconfig
    if hasattr(make, "__wrapped__"):
        return

    class QConfig(torch.ao.quantization.QConfig):
        """One that attributes can be set on."""

    @functools.wraps(make)
    def make_open(*arguments: Any) -> QConfig:  # noqa: ANN401 - as SparseML
        return QConfig(*make(*arguments))

    quantization_scheme._get_qconfig = make_open


def scale_dead_rows(model: torch.nn.Module) -> None:
    """Give rows of zeros the largest scale of their matrix; the model stays the same function.

    Symptom: where pruning took a whole row, the ONNX file cuts the bias of that output off at 256
    steps of the matrix' input, which may be less than 1.
    Cause: with one scale a row, a row of zeros gets the smallest there is, 1.2e-7. SparseML stores
    the bias as int32 in steps of input scale times row scale, which reach no further then.
    """
    for module in model.modules():
        scale = getattr(getattr(module, "weight_fake_quant", None), "scale", None)
        if scale is not None and scale.numel() > 1:
            scale[(module.weight == 0).all(dim=1)] = scale.max()


def switch_off_autocast(args: TrainingArguments) -> None:
    """Leave bf16 autocast to `RecipeTrainer`; call it before a Trainer is made of `args`.

    Symptom: with `--bf16` the model is evaluated, and trained for int8, under autocast, and what
    was saved answers differently from what was measured.
    Cause: TrainingArguments put the precision into an environment variable, from which Accelerate
    wraps `model.forward` for good, whatever `args.bf16` says by then.
    """
    args.bf16 = False
    # `accelerate launch --mixed_precision bf16` sets it, too.
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"


def word_flags(arguments: type) -> None:
    """Let `--help` say what SparseML's own flags take.

    Symptom: `run_qa --help` asks for "a trained text classification model" as a teacher.
    Cause: SparseML has one dataclass of these flags for all kinds of tasks.
    """
    for field in dataclasses.fields(arguments):
        if field.name in FLAG_HELP:
            said = {**field.metadata, "help": FLAG_HELP[field.name]}
            field.metadata = types.MappingProxyType(said)


def keep_run_length(args: TrainingArguments, num_epochs: float) -> None:
    """Let a run end where its recipe ends, also in the middle of an epoch.

    Symptom: a recipe of 1.6 epochs trains for 2, the rest at a learning rate of 0.
    Cause: SparseML's Trainer sets `num_train_epochs` to the recipe's length rounded up.
    """
    args.num_train_epochs = num_epochs


def name_small_integers() -> None:
    """Give onnx the names of types that it is too old to have; call it before the import.

    Symptom: `type object 'TensorProto' has no attribute 'INT4'` on importing
    `onnxruntime.quantization`.
    Cause: it lists 4-bit types, which onnx has from 1.16 on; SparseML needs 1.14. No 4-bit number
    is used here, so the names (with the numbers of the ONNX standard) are enough.
    """
    import onnx

    for name, number in (("UINT4", 21), ("INT4", 22)):
        if not hasattr(onnx.TensorProto, name):
            setattr(onnx.TensorProto, name, number)
