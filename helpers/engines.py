"""Inference engines behind one small protocol: DeepSparse, ONNX Runtime, OpenVINO and PyTorch.

Why: the same model, the same numbers in and out, whatever runs it. An engine is imported only in
the child process that holds it (see `engine_process`), because engines abort, hang and rewrite the
model they are given.

How: `predict` for logits; `open_engine` for whoever wants to time calls.
"""

import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np

from helpers.engine_process import TIMEOUT, EngineError, EngineProcess
from helpers.errors import UserError
from helpers.model_files import kind_of
from helpers.model_inputs import Inputs

__all__ = ["EngineError", "available_engines", "missing_engines", "open_engine", "predict"]

Outputs = np.ndarray | tuple[np.ndarray, ...]
# Where an engine's class lives and the package it needs. One more engine is one more line here and
# one more class below. A name with a colon is taken as an import path to a class, so tests and
# readers can bring their own.
ENGINES = {
    "deepsparse": ("helpers.engine_kinds:DeepSparse", "deepsparse"),
    "onnxruntime": ("helpers.engine_kinds:OnnxRuntime", "onnxruntime"),
    "openvino": ("helpers.engine_kinds:OpenVino", "openvino"),
    "torch": ("helpers.engine_kinds:TorchEager", "torch"),
    "torch-bf16": ("helpers.engine_kinds:TorchBf16", "torch"),
}
# What an engine takes; an engine that is not listed takes an ONNX file.
TAKES = {
    "torch": ("checkpoint",),
    "torch-bf16": ("checkpoint",),
    "openvino": ("ONNX file", "OpenVINO model"),
}
# Engines of which one process takes inputs of any shape; the others compile for one.
ANY_SHAPE = ("onnxruntime", "torch", "torch-bf16")


def missing_engines() -> dict[str, str]:
    """Return {engine: why it cannot be used here}."""
    reasons = {}
    for name, (_, package) in ENGINES.items():
        if name == "deepsparse" and sys.platform != "linux":
            reasons[name] = f"DeepSparse is made for Linux only; this is {platform.system()}."
        elif importlib.util.find_spec(package) is None:
            reasons[name] = f"The package {package} is not installed. Run `make setup`."
    return reasons


def available_engines() -> list[str]:
    """Return the engines whose packages are installed for this platform."""
    missing = missing_engines()
    return [name for name in ENGINES if name not in missing]


def kinds_taken(engine: str) -> tuple[str, ...]:
    """Return the kinds of models that an engine runs, as `kind_of` names them."""
    return TAKES.get(engine, ("ONNX file",))


def takes(engine: str, model: Path) -> bool:
    """Tell whether an engine runs this kind of model."""
    return kind_of(model) in kinds_taken(engine)


def check_takes(engine: str, model: Path) -> None:
    """Refuse a model of a kind that an engine does not run.

    Raises:
        EngineError: with what it runs, and what to do.
    """
    if ":" in engine or takes(engine, model):
        return
    wanted = " or ".join(kinds_taken(engine))
    hint = " Export it first." if kind_of(model) == "checkpoint" else ""
    raise EngineError(f"{engine} runs: {wanted}. {model} is: {kind_of(model)}.{hint}")


def open_engine(model: Path | str, engine: str, *, timeout: float = TIMEOUT) -> EngineProcess:
    """Start a child process that holds this engine and a private copy of the model.

    Args:
        model: an ONNX file; for torch a checkpoint folder.
        engine: a name from `ENGINES`, or an import path `module:Class`.
        timeout: seconds that any one answer may take.

    Raises:
        UserError: for an unknown or missing engine and a model that is not there.
    """
    if ":" in engine:
        return EngineProcess(engine, Path(model), timeout=timeout)
    if engine not in ENGINES:
        raise UserError(f"No engine {engine!r}. Here are: {', '.join(available_engines())}.")
    reason = missing_engines().get(engine)
    if reason:
        raise UserError(f"{engine} cannot be used here. {reason}")
    return EngineProcess(ENGINES[engine][0], Path(model), timeout=timeout)


def predict(
    model: Path | str,
    engine: str,
    batches: list[Inputs],
    *,
    num_threads: int | None = None,
    timeout: float = TIMEOUT,
) -> Outputs:
    """Return a model's outputs, computed by an engine in a child process.

    Args:
        model: an ONNX file; for torch a checkpoint folder.
        engine: see `open_engine`.
        batches: int64 arrays by input name, all batches of one shape [batch, sequence] (DeepSparse
            compiles for one shape, so the caller pads).
        num_threads: all physical cores unless given.
        timeout: seconds that any one answer may take.

    Returns:
        [batches * batch, ...]; a tuple of such arrays where the model has several outputs.

    Raises:
        UserError: for batches of different shapes, too many threads, and as `open_engine`.
        EngineError: if the engine refuses, aborts or hangs.
        ProofError: if the model file was changed meanwhile.
    """
    shapes = {array.shape for batch in batches for array in batch.values()}
    if len(shapes) != 1:
        raise UserError(
            f"Batches must all have one shape [batch, sequence]; found {sorted(shapes) or 'none'}. "
            "Pad them to the longest and fill up the last one."
        )
    with open_engine(model, engine, timeout=timeout) as process:
        process.prepare(*shapes.pop(), num_threads)
        answers = zip(*(process.run(batch)[0] for batch in batches), strict=True)
        outputs = tuple(np.concatenate(parts) for parts in answers)
    return outputs[0] if len(outputs) == 1 else outputs
