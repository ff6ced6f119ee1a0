"""The engines themselves: DeepSparse, ONNX Runtime, OpenVINO and PyTorch, each in four methods.

This is the only module that imports them, each inside `prepare`, in a child process of its own.
"""

import math
import threading
import time
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from helpers import environment
from helpers.engine_child import OPENVINO_FILE, Setup, import_path, own_dtype
from helpers.model_inputs import Inputs

if TYPE_CHECKING:
    import openvino

ORT_ON = ("CPUExecutionProvider",)
# What the kernels of ONNX Runtime that multiply in int8 are called after its optimizations.
ORT_INT8 = (
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "QLinearMatMul",
    "QGemm",
)
# What OpenVINO's graphs have between a product and the int8 it is made of.
OPENVINO_BETWEEN = ("Convert", "Subtract", "Multiply", "Reshape", "Transpose")


def multiply_adds(left: Sequence[int], product: Sequence[int]) -> int:
    """Return the multiply-adds of a product from the shapes of its left factor and its result."""
    return math.prod(left) * product[-1]


class Engine(Protocol):
    """What a child process can be asked. An engine imports its package inside `prepare`."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Load and compile the model."""

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Return the outputs ([batch, ...]) and the seconds of the bare call.

        As many threads as there are streams may call this at once.
        """

    def describe(self) -> dict[str, Any]:
        """Return version, threads in use, and, for DeepSparse, the supported share of operators."""

    def int8_run(self) -> int | None:
        """Return how many products its own graph shows in int8; None where it shows none."""

    def close(self) -> None:
        """Let go of the model."""


class DeepSparse:
    """The sparsity-aware engine; compiles for one fixed shape."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Compile; this overwrites the inputs of the ONNX file in place, hence the private copy."""
        import deepsparse

        several = {"num_streams": setup.streams, "scheduler": deepsparse.Scheduler.multi_stream}
        self.engine = deepsparse.Engine(
            str(model_path),
            setup.batch_size,
            num_cores=setup.threads,
            input_shapes=[setup.shape],  # of every input
            **(several if setup.streams > 1 else {}),
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

    def int8_run(self) -> None:
        """Return nothing: its graph is not shown."""

    def close(self) -> None:
        """Let go of the engine and its threads."""
        del self.engine


class OnnxRuntime:
    """The engine most people use: fast on dense models, blind to zeros."""

    profiled = False  # see engine_profiles

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Open a session, which calls may share; the shape stays free."""
        import onnxruntime

        self.file, self.streams = model_path, setup.streams
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setup.threads_a_call, 1
        options.log_severity_level = 3
        options.enable_profiling = self.profiled
        options.profile_file_prefix = str(model_path.with_name("profile"))
        self.session = onnxruntime.InferenceSession(str(model_path), options, providers=ORT_ON)
        self.names = [value.name for value in self.session.get_inputs()]

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch."""
        feed = {name: inputs[name] for name in self.names}
        start = time.perf_counter()
        outputs = self.session.run(None, feed)
        return list(outputs), time.perf_counter() - start

    def describe(self) -> dict[str, Any]:
        """Report the options the session really has."""
        threads = self.session.get_session_options().intra_op_num_threads * self.streams
        return {"version": environment.package_version("onnxruntime"), "threads": threads}

    def int8_run(self) -> int:
        """Count the kernels it chooses, in a second session that writes its graph down.

        Not in the first one, whose memory is measured: to write takes that of the weights again.
        """
        import onnx
        import onnxruntime

        graph = self.file.with_name("optimized.onnx")  # beside the private copy
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(graph)
        onnxruntime.InferenceSession(str(self.file), options, providers=ORT_ON)
        nodes = onnx.load(str(graph), load_external_data=False).graph.node
        return sum(node.op_type in ORT_INT8 for node in nodes)

    def close(self) -> None:
        """Let go of the session and its threads."""
        del self.session


class OpenVino:
    """Intel's engine, which may be used in production; int8 in QDQ form, blind to zeros."""

    profiled = False  # see engine_profiles

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Compile for one shape, in fp32 where the model is fp32: its default may be bf16."""
        import openvino

        core = openvino.Core()
        own = model_path / OPENVINO_FILE
        model = core.read_model(own if own.is_file() else model_path)
        model.reshape(dict.fromkeys(model.inputs, setup.shape))
        products = [op for op in model.get_ops() if op.get_type_name() == "MatMul"]
        self.products = {op.get_friendly_name() for op in products if quantized(op)}
        self.multiply_adds = sum(
            multiply_adds(op.get_input_shape(0), op.get_output_shape(0)) for op in products
        )
        asked = {
            "INFERENCE_NUM_THREADS": setup.threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": setup.streams,
            "PERF_COUNT": self.profiled,
        }
        self.compiled = core.compile_model(model, "CPU", asked)
        # A request holds its inputs and outputs, so each calling thread needs one of its own.
        self.requests = threading.local()
        self.names = [value.any_name for value in self.compiled.inputs]

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch."""
        feed = {name: own_dtype(inputs[name]) for name in self.names}
        if not hasattr(self.requests, "own"):
            self.requests.own = self.compiled.create_infer_request()
        start = time.perf_counter()
        found = self.requests.own.infer(feed)
        seconds = time.perf_counter() - start
        return [np.array(found[value]) for value in self.compiled.outputs], seconds

    def describe(self) -> dict[str, Any]:
        """Report the options that the compiled model really has."""
        return {
            "version": environment.package_version("openvino"),
            "threads": self.compiled.get_property("INFERENCE_NUM_THREADS"),
            "multiply_adds": self.multiply_adds,
        }

    def int8_run(self) -> int:
        """Count the products that its own graph shows in int8, those fused into others too."""
        int8 = 0
        for node in self.compiled.get_runtime_model().get_ops():
            facts = {key: value.value for key, value in node.get_rt_info().items()}
            if facts["runtimePrecision"] in ("i8", "u8"):
                int8 += len(self.products & {*facts["originalLayersNames"].split(",")})
        return int8

    def close(self) -> None:
        """Let go of the model."""
        del self.requests, self.compiled


def quantized(product: "openvino.Node") -> bool:
    """Tell whether both inputs of a product come out of int8.

    What a fused operator reads may be u8 in a float model too: a mask of true and false is.
    """

    def origin(node: "openvino.Node") -> "openvino.Node":
        while node.get_type_name() in OPENVINO_BETWEEN:
            node = node.input_value(0).get_node()
        return node

    origins = [origin(product.input_value(index).get_node()) for index in (0, 1)]
    kinds = [(node.get_type_name(), node.get_element_type().get_type_name()) for node in origins]
    return all(kind == "FakeQuantize" or element in ("i8", "u8") for kind, element in kinds)


class TorchEager:
    """PyTorch without a compiler, from a checkpoint folder: what one has before exporting."""

    loader = "helpers.models:load_for_inference"
    bf16 = False

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Load the module through `loader`, an import path, so that subclasses may differ."""
        import torch

        self.streams = setup.streams
        torch.set_num_threads(setup.threads_a_call)
        self.model = import_path(self.loader)(model_path).eval()

    def run(self, inputs: Inputs) -> tuple[list[np.ndarray], float]:
        """Run one batch without gradients."""
        import torch

        taken = signature(self.model.forward).parameters  # not every model has token_type_ids
        tensors = {n: torch.from_numpy(own_dtype(a)) for n, a in inputs.items() if n in taken}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            start = time.perf_counter()
            outputs = self.model(**tensors, return_dict=False)
            seconds = time.perf_counter() - start
        return [output.float().numpy() for output in outputs], seconds

    def describe(self) -> dict[str, Any]:
        """Fake quantization computes in fp32, so its precision is said to be simulated."""
        import torch

        from helpers import sparsity

        simulated = len(sparsity.quantized_modules(self.model)) > 0
        matrices = sparsity.layer_sparsity(self.model)
        sizes = matrices["rows"] * matrices["columns"]
        return {
            "version": environment.package_version("torch"),
            "threads": torch.get_num_threads() * self.streams,
            "precision": f"{'bf16' if self.bf16 else 'fp32'}{' (simulated int8)' * simulated}",
            "sparsity": float((matrices["sparsity"] * sizes).sum() / sizes.sum()),
        }

    def int8_run(self) -> None:
        """Return nothing: it has no graph."""

    def close(self) -> None:
        """Let go of the module."""
        del self.model


class TorchBf16(TorchEager):
    """The same with matrix products in bf16 (autocast)."""

    bf16 = True
