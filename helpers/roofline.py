"""How near an engine comes to what this CPU can do at most.

Why: "4 times as fast" does not tell whether more is to be had. The least time a call can take is
its arithmetic at the pace of the CPU's best products, or its weights at the pace of the memory,
whichever is longer (the roofline model: Williams, Waterman, Patterson 2009, CACM 52(4)).

How: the pace is not read from a data sheet. A chain of large dense products is timed on the engines
that are fastest at it, in fp32 and in int8, and a copy of large arrays.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm.auto import tqdm

from helpers import environment
from helpers.arithmetic import Work, count
from helpers.benchmark import file_for
from helpers.engine_process import EngineError, check_threads
from helpers.engines import available_engines, kind_of, open_engine
from helpers.errors import UserError
from helpers.measurements import Measurement

if TYPE_CHECKING:
    import onnx
    import pandas as pd

ROWS, WIDTH, CHAIN = 1024, 2048, 4  # 34 billion operations: caches are warm, handing over is cheap
ENGINES = ("onnxruntime", "openvino")
ROUNDS, WARMUP = 8, 2
COPIED_BYTES = 2**28
SEED = 0


@dataclass(frozen=True)
class Peaks:
    """What the CPU was seen to do at its best.

    Attributes:
        fp32, int8: billions of operations a second in dense products; a multiply-add is two.
        memory: billions of bytes a second, read and written, when large arrays are copied.
        threads: how many took part.
    """

    fp32: float
    int8: float
    memory: float
    threads: int

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"fp32 {self.fp32:.0f} and int8 {self.int8:.0f} billion operations a second, "
            f"memory {self.memory:.0f} GB/s, on {environment.in_cores(self.threads)}"
        )

    def of(self, precision: str) -> float:
        """Return billions of operations a second in one precision."""
        return self.int8 if precision == "int8" else self.fp32


def measure_peaks(num_cores: int | None = None) -> Peaks:
    """Time large products in fp32 and int8, and a copy of memory.

    Args:
        num_cores: threads; all physical cores unless given.

    Raises:
        UserError: neither ONNX Runtime nor OpenVINO could run them.
    """
    threads = check_threads(num_cores)
    pace = {name: product_pace(int8=name == "int8", threads=threads) for name in ("fp32", "int8")}
    return Peaks(**pace, memory=copy_pace(threads), threads=threads)


def product_pace(*, int8: bool, threads: int) -> float:
    """Return the best pace of any engine, in billions of operations a second."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "products.onnx"
        onnx.save(chain(int8=int8), str(file))
        engines = [name for name in ENGINES if name in available_engines()]
        best = [pace_on(engine, file, threads, int8=int8) for engine in tqdm(engines, leave=False)]
    if not max(best, default=0):
        raise UserError("No engine here could run large products, so there is no roof to show.")
    return round(max(best), 1)


def pace_on(engine: str, file: Path, threads: int, *, int8: bool) -> float:
    """Return one engine's pace; 0 if it refuses, or runs the int8 products in float."""
    inputs = {"x": np.random.default_rng(SEED).normal(size=(ROWS, WIDTH)).astype(np.float32)}
    try:
        with open_engine(file, engine) as process:
            process.prepare(ROWS, WIDTH, threads)
            seconds = [process.run(inputs)[1] for _ in range(WARMUP + ROUNDS)]
            if int8 and process.ask("int8_run") < CHAIN:
                return 0.0
    except EngineError:
        return 0.0
    return 2 * CHAIN * ROWS * WIDTH**2 / min(seconds[WARMUP:]) / 1e9


def chain(*, int8: bool) -> "onnx.ModelProto":
    """Return a graph of `CHAIN` dense products, one after the other."""
    from onnx import TensorProto, helper

    kind = TensorProto.FLOAT
    nodes, stored, value = [], [], "x"
    for number in range(CHAIN):
        value = add_product(nodes, stored, value, number, int8=int8)
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", kind, ["rows", WIDTH])],
        [helper.make_tensor_value_info(value, kind, ["rows", WIDTH])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def add_product(
    nodes: list["onnx.NodeProto"],
    stored: list["onnx.TensorProto"],
    value: str,
    number: int,
    *,
    int8: bool,
) -> str:
    """Append one product to the lists; in int8 both factors are dequantized before it."""
    from onnx import helper, numpy_helper

    weight = f"weight{number}"
    numbers = np.random.default_rng(number).integers(-127, 128, (WIDTH, WIDTH), dtype=np.int8)
    values = {weight: numbers if int8 else numbers.astype(np.float32) / (127 * WIDTH**0.5)}
    if int8:
        scales = {f"scale{number}": np.float32(1 / 32), f"small{number}": np.float32(1e-4)}
        values |= scales | {f"middle{number}": np.uint8(128), f"zero{number}": np.int8(0)}
        step = (f"scale{number}", f"middle{number}")
        nodes += [
            helper.make_node("QuantizeLinear", [value, *step], [f"q{number}"]),
            helper.make_node("DequantizeLinear", [f"q{number}", *step], [f"d{number}"]),
            helper.make_node(
                "DequantizeLinear", [weight, f"small{number}", f"zero{number}"], [f"w{number}"]
            ),
        ]
        value, weight = f"d{number}", f"w{number}"
    nodes.append(helper.make_node("MatMul", [value, weight], [f"y{number}"], name=f"p{number}"))
    stored += [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    return f"y{number}"


def copy_pace(threads: int) -> float:
    """Return how fast large arrays are copied, in billions of bytes a second."""
    sources = [np.ones(COPIED_BYTES // threads, dtype=np.uint8) for _ in range(threads)]
    targets = [np.empty_like(array) for array in sources]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(WARMUP + ROUNDS):
            start = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            best = min(best, time.perf_counter() - start)
    return round(2 * COPIED_BYTES / best / 1e9, 1)


def table(
    measurements: Sequence[Measurement], models: Mapping[str, Path], peaks: Peaks
) -> "pd.DataFrame":
    """Hold measured times against the least this CPU needs for the same work.

    Args:
        measurements: those without times, and those of checkpoints, are left out.
        models: what was timed, by name, as `benchmark.measure` was given it.
        peaks: from `measure_peaks`.

    Returns:
        One row a measurement: `operations` and `needed` (billions a call), `least_ms`,
        `median_ms`, `of_needed` (the least time for what is needed, as a share of the time taken)
        and `of_all` (the same for all products: above 1 only if zeros were skipped),
        `operations_a_byte` (of stored weight).
    """
    import pandas as pd

    works: dict[tuple, Work] = {}
    rows = []
    for row in measurements:
        file = file_for(row.engine, models[row.model])
        if row.error is not None or kind_of(file) == "checkpoint":
            continue
        call = (file, row.batch_size, row.sequence_length)
        if call not in works:
            works[call] = count(*call)
        rows.append(held_against(row, works[call], peaks))
    return pd.DataFrame(rows)


def held_against(row: Measurement, work: Work, peaks: Peaks) -> dict[str, object]:
    """Return one row of `table`; an int8 file that runs in float has the roof of fp32."""
    run = "fp32" if row.int8_run == 0 else row.precision
    reading = work.weight_bytes / peaks.memory / 1e6

    def least(multiply_adds: int) -> float:
        return max(2 * multiply_adds / peaks.of(run) / 1e6, reading)

    common = {
        name: value
        for name, value in asdict(row).items()
        if name in ("model", "engine", "batch_size", "sequence_length", "median_ms")
    }
    return common | {
        "runs_in": run,
        "operations": 2 * work.all / 1e9,
        "needed": 2 * work.needed / 1e9,
        "least_ms": least(work.needed),
        "of_needed": least(work.needed) / row.median_ms,
        "of_all": least(work.all) / row.median_ms,
        "operations_a_byte": 2 * work.all / work.weight_bytes,
    }
