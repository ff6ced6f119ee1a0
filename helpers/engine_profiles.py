"""Where an engine's time goes: the milliseconds of every step of its own graph.

Why: zeros make the products with weights faster and nothing else. Who asks why nine zeros in ten do
not make ten times the speed finds the answer in what is left.

How: each engine is opened once more with its own profiler switched on, in a child process as ever.
Names of fused steps still tell the layer they came from, so they are added up by part of the model.
Profiling costs time itself: look at the shares, and take times from `benchmark`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from helpers import engine_kinds
from helpers.benchmark import file_for, token_inputs
from helpers.engine_child import Setup, own_dtype
from helpers.engine_process import EngineError
from helpers.engines import check_takes, open_engine
from helpers.errors import UserError
from helpers.model_inputs import Inputs, fitted, vocabulary

if TYPE_CHECKING:
    import pandas as pd

Steps = list[tuple[str, float]]  # name of a step and its milliseconds
CALLS, WARMUP = 30, 10
OTHER, PRODUCTS = "moving data, other", "query, key, value"
# The first pattern that a step's name has decides; so products come before what is fused to them.
PARTS = {
    PRODUCTS: r"attention/self/(query|key|value)",
    "attention scores, softmax, sum": r"attention/self",
    "attention output, norm": r"attention/output",
    "intermediate, GELU": r"intermediate|Gelu",
    "output, norm": r"layer\.\d+/output",
    "embeddings, norm": r"embeddings",
    "head": r"pooler|classifier|outputs",
}


class DeepSparse(engine_kinds.DeepSparse):
    """DeepSparse with its analysis; one call of it runs all calls."""

    def prepare(self, model_path: Path, setup: Setup) -> None:
        """Compile as for timing, with the profiler in."""
        from deepsparse.engine import DebugAnalysisEngine

        self.engine = DebugAnalysisEngine(
            str(model_path),
            setup.batch_size,
            num_cores=setup.threads,
            input_shapes=[setup.shape],  # of every input
            num_iterations=CALLS,
            num_warmup_iterations=WARMUP,
        )

    def steps(self, inputs: Inputs) -> Steps:
        """Return the mean milliseconds of every step; what was fused has several names."""
        arrays = [own_dtype(inputs[name]) for name in self.engine.input_names]
        layers = self.engine.analyze(arrays, val_inp=False)["layer_info"]
        return [(layer["canonical_name"], layer["average_run_time_in_ms"]) for layer in layers]


class OnnxRuntime(engine_kinds.OnnxRuntime):
    """ONNX Runtime with its profiler, which writes a trace."""

    profiled = True

    def steps(self, inputs: Inputs) -> Steps:
        """Return the median milliseconds of every kernel."""
        for _ in range(WARMUP + CALLS):
            self.run(inputs)
        events = json.loads(Path(self.session.end_profiling()).read_text())
        kernels: dict[str, list[float]] = {}
        for event in events:
            if event["name"].endswith("_kernel_time"):
                kernels.setdefault(event["name"], []).append(event["dur"] / 1000)
        return [(name, median(times[WARMUP:])) for name, times in kernels.items()]


class OpenVino(engine_kinds.OpenVino):
    """OpenVINO with its counters."""

    profiled = True

    def steps(self, inputs: Inputs) -> Steps:
        """Return the median milliseconds of every node that was run."""
        nodes: dict[str, list[float]] = {}
        for number in range(WARMUP + CALLS):
            self.run(inputs)
            for node in self.requests.own.profiling_info if number >= WARMUP else ():
                nodes.setdefault(node.node_name, []).append(node.real_time.total_seconds() * 1000)
        return [(name, median(times)) for name, times in nodes.items()]


PROFILED = {"deepsparse": DeepSparse, "onnxruntime": OnnxRuntime, "openvino": OpenVino}


def part_of(name: str) -> str:
    """Return the part of a transformer that a step belongs to, by its first name."""
    first = name.split(",")[0]
    return next((part for part, pattern in PARTS.items() if re.search(pattern, first)), OTHER)


def profile(
    model: Path,
    engine: str,
    batch_size: int = 1,
    sequence_length: int = 128,
    num_cores: int | None = None,
) -> "pd.Series":
    """Return the milliseconds a call spends in every part of a model.

    Args:
        model: an ONNX file, or the folder of an export or of an OpenVINO model.
        engine: a key of `PROFILED`.
        batch_size, sequence_length: the shape of a call; its words are random, none is padding.
        num_cores: threads; all physical cores unless given.

    Returns:
        Milliseconds by part, in the order of `PARTS`, then `OTHER`.

    Raises:
        UserError: for an engine without a profiler here, or a model that is not there.
        EngineError: if the engine refuses, aborts or hangs, or layers have other names than BERT's.
    """
    import pandas as pd

    if engine not in PROFILED:
        raise UserError(f"No profile of {engine!r}. Expected one of {', '.join(PROFILED)}.")
    file = file_for(engine, model)
    check_takes(engine, file)
    inputs = token_inputs([batch_size, sequence_length], vocabulary([file]))
    steps = steps_of(file, engine, inputs, num_cores)
    found = pd.DataFrame([(part_of(name), ms) for name, ms in steps], columns=["part", "ms"])
    if PRODUCTS not in set(found.part):
        raise EngineError(
            f"The steps of {file} are not named as BERT's layers are, so their parts cannot be "
            "told. Expected a BERT, RoBERTa or MiniLM; `benchmark` times other models."
        )
    return found.groupby("part").ms.sum().reindex([*PARTS, OTHER], fill_value=0.0).round(4)


def profiles(
    asked: Sequence[tuple[str, Path, str, int]],
    sequence_length: int = 128,
    num_cores: int | None = None,
) -> "tuple[pd.DataFrame, dict[str, str]]":
    """Profile several models on several engines.

    Args:
        asked: name, model, engine and batch size of each; an engine may refuse.
        sequence_length: tokens of every text.
        num_cores: as for `profile`.

    Returns:
        Milliseconds with one row a part and one column each, and {column: why it is missing}.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    columns, failed = {}, {}
    for name, model, engine, batch_size in tqdm(asked, desc="profiles", leave=False):
        column = f"{name}, {engine}, batch {batch_size}"
        try:
            columns[column] = profile(model, engine, batch_size, sequence_length, num_cores)
        except EngineError as error:
            failed[column] = str(error)
    return pd.DataFrame(columns), failed


def steps_of(file: Path, engine: str, inputs: Inputs, num_cores: int | None) -> Any:  # noqa: ANN401
    """Open an engine with its profiler and return its steps."""
    kind = PROFILED[engine]
    with open_engine(file, f"{kind.__module__}:{kind.__name__}") as process:
        process.prepare(*inputs["input_ids"].shape, num_cores)
        # All calls are one answer.
        process.timeout *= WARMUP + CALLS
        return process.ask("steps", fitted(inputs, process.inputs))
