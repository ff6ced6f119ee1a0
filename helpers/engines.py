"""Inference engines behind one small protocol: DeepSparse, ONNX Runtime and PyTorch.

Why: the same model, the same numbers in and out, whatever runs it. This is the only module that
imports an engine, and each is imported only inside the child process that holds it (see
`engine_process`), because engines abort, hang and rewrite the model they are given.

How: `predict` for logits; `open_engine` for whoever wants to time calls.
"""

import importlib.util
import platform
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from helpers import environment
from helpers.engine_child import import_path, own_dtype
from helpers.engine_process import TIMEOUT, EngineError, EngineProcess, Inputs
from helpers.errors import UserError

__all__ = ["EngineError", "available_engines", "missing_engines", "open_engine", "predict"]

Outputs = np.ndarray | tuple[np.ndarray, ...]
# Where an engine's class lives and the package it needs. One more engine is one more line here and
# one more class below (OpenVINO is meant to come next). A name with a colon is taken as an import
# path to a class, so tests and readers can bring their own.
ENGINES = {
    "deepsparse": ("helpers.engines:DeepSparse", "deepsparse"),
    "onnxruntime": ("helpers.engines:OnnxRuntime", "onnxruntime"),
    "torch": ("helpers.engines:TorchEager", "torch"),
}


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


class Engine(Protocol):
    """What a child process can be asked. An engine imports its package inside `prepare`."""

    def prepare(
        self, model_path: Path, batch_size: int, sequence_length: int, num_threads: int
    ) -> None:
        """Load and compile the model for inputs of [batch_size, sequence_length]."""

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Return the outputs ([batch, ...]) and the seconds of the bare call."""

    def describe(self) -> dict[str, Any]:
        """Return version, threads in use and, for DeepSparse, the supported share of operators."""

    def close(self) -> None:
        """Let go of the model."""


class DeepSparse:
    """The sparsity-aware engine; compiles for one fixed shape."""

    def prepare(
        self, model_path: Path, batch_size: int, sequence_length: int, num_threads: int
    ) -> None:
        """Compile; this overwrites the inputs of the ONNX file in place, hence the private copy."""
        import deepsparse
        import onnx

        graph = onnx.load(str(model_path)).graph
        shapes = [[batch_size, sequence_length]] * len(graph.input)
        self.engine = deepsparse.Engine(
            str(model_path), batch_size, num_cores=num_threads, input_shapes=shapes
        )

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch synchronously."""
        arrays = [own_dtype(inputs[name]) for name in self.engine.input_names]
        start = time.perf_counter()
        outputs = self.engine.run(arrays, val_inp=False)
        return list(outputs), time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """A supported share of 0 means that DeepSparse hands everything to its slow fallback."""
        return {
            "version": environment.package_version("deepsparse"),
            "threads": self.engine.num_cores,
            "supported_fraction": self.engine.fraction_of_supported_ops,
        }

    def close(self) -> None:
        """Let go of the engine and its threads."""
        del self.engine


class OnnxRuntime:
    """The engine most people use: fast on dense models, blind to zeros."""

    def prepare(
        self, model_path: Path, batch_size: int, sequence_length: int, num_threads: int
    ) -> None:
        """Open a session with that many threads; the shape stays free."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(model_path), options, providers=["CPUExecutionProvider"]
        )
        self.names = [value.name for value in self.session.get_inputs()]

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch."""
        feed = {name: inputs[name] for name in self.names}
        start = time.perf_counter()
        outputs = self.session.run(None, feed)
        return list(outputs), time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """Report the options the session really has."""
        threads = self.session.get_session_options().intra_op_num_threads
        return {"version": environment.package_version("onnxruntime"), "threads": threads}

    def close(self) -> None:
        """Let go of the session and its threads."""
        del self.session


class TorchEager:
    """PyTorch without a compiler, from a checkpoint folder: what one has before exporting."""

    loader = "helpers.models:load_for_inference"

    def prepare(
        self, model_path: Path, batch_size: int, sequence_length: int, num_threads: int
    ) -> None:
        """Load the module through `loader`, an import path, so that subclasses may differ."""
        import torch

        torch.set_num_threads(num_threads)
        self.model = import_path(self.loader)(model_path).eval()

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch without gradients."""
        import torch

        tensors = {name: torch.from_numpy(own_dtype(array)) for name, array in inputs.items()}
        with torch.inference_mode():
            start = time.perf_counter()
            outputs = self.model(**tensors, return_dict=False)
            seconds = time.perf_counter() - start
        return [output.numpy() for output in outputs], seconds

    def describe(self) -> dict[str, Any]:
        """Fake quantization computes in fp32, so its precision is said to be simulated."""
        import torch

        from helpers import sparsity

        simulated = len(sparsity.quantized_modules(self.model)) > 0
        matrices = sparsity.layer_sparsity(self.model)
        sizes = matrices["rows"] * matrices["columns"]
        return {
            "version": environment.package_version("torch"),
            "threads": torch.get_num_threads(),
            "precision": "fp32 (simulated int8)" if simulated else "fp32",
            "sparsity": float((matrices["sparsity"] * sizes).sum() / sizes.sum()),
        }

    def close(self) -> None:
        """Let go of the module."""
        del self.model
