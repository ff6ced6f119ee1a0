"""Is this ONNX file the model it was exported from?

It is if it has the zeros, the int8 operators and scales, the logits and the metric of the PyTorch
model, on the engines that its form is made for; and if these run it in int8, where they let one see
that.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import environment, onnx_weights, sparsity, structure
from helpers.errors import ProofError
from helpers.int8_scales import check_scales
from helpers.stops import Checkpoint
from helpers.tasks import Task
from helpers.token_batches import first_rows, proof_batches, run_torch

if TYPE_CHECKING:
    import torch

    from helpers.engines import Outputs

# The dense graph computes the same sums in another order. Simulated int8 rounds the same way but
# for ties, and one tie in an early layer is seen as a few hundredths in a logit.
FP32_LOGITS_TOLERANCE = 1e-3
INT8_MEAN_TOLERANCE = 0.15
METRIC_TOLERANCE = 0.02
# Share of a matrix' weights that rounding to int8 must leave; of a dense one it leaves nine of ten.
LEAST_LEFT = 0.3
ENGINES = {
    "fp32": ("onnxruntime", "deepsparse"),
    "deepsparse": ("onnxruntime", "deepsparse"),
    "qdq": ("onnxruntime", "openvino"),
}
NOT_HERE = "not installed, or not for this platform"
# Products of a layer with weights, and the two inside attention.
PRODUCTS_A_LAYER = 8


def prove(
    files: dict[Path, str], model: "torch.nn.Module", checkpoint: Checkpoint, task: Task
) -> list[dict[str, Any]]:
    """Hold ONNX files to the model they were exported from.

    Args:
        files: each ONNX file with its form, a key of `ENGINES`.
        model: the model in PyTorch.
        checkpoint: where that was loaded from.
        task: its validation rows are the inputs.

    Returns:
        One row a check: `check`, `expected`, `found`.

    Raises:
        ProofError: at the first check that fails.
    """
    in_graphs = {file: check_graph(file, model, form) for file, form in files.items()}
    batches, references = proof_batches(checkpoint, task)
    expected, found = run_torch(model, batches), []
    for file, form in files.items():
        checks = in_graphs[file]
        for engine in ENGINES[form]:
            checks += check_engine(file, engine, batches, references, expected, task, checks[0])
            if form == "qdq":
                checks.append(check_int8_run(file, engine, batches[0], checks[0]["found"]))
        prefix = "qdq: " if form == "qdq" else ""
        found += [{**row, "check": f"{prefix}{row['check']}"} for row in checks]
    return found


def check_graph(file: Path, model: "torch.nn.Module", form: str) -> list[dict[str, Any]]:
    """Hold the int8 products, zeros and scales of a file to those of the model."""
    import onnx

    graph = onnx.load(str(file)).graph
    count = sparsity.int8_products if form == "qdq" else onnx_weights.integer_products
    checks = [check_int8(count(graph), model), check_zeros(file, model)]
    return [*checks, check_scales(graph, model)] if checks[0]["found"] else checks


def check_zeros(file: Path, model: "torch.nn.Module") -> dict[str, Any]:
    """Compare the zeros of every weight matrix of the graph with those of the model.

    Exporters rename and transpose weights, so the two sorted lists of sparsities are compared.
    Rounding to int8 adds zeros; it may never remove one. If it takes most of what was left, the
    int8 range is not that of the weights, in PyTorch as in the file.
    """
    expected = np.sort(sparsity.layer_sparsity(model)["sparsity"].to_numpy())
    found = np.sort(sparsity.onnx_sparsity(file)["sparsity"].to_numpy())
    row = {
        "check": "zeros",
        "expected": f"{len(expected)} matrices, {expected.mean():.1%} zeros on average or more",
        "found": f"{len(found)} matrices, {found.mean() if len(found) else 0:.1%} zeros",
    }
    if len(found) != len(expected) or (found < expected - sparsity.TOLERANCE).any():
        raise failed(row, "The file does not hold this model's weights; export again.")
    if (1 - found < LEAST_LEFT * (1 - expected)).any():
        raise failed(row, "Rounding to int8 took most of the weights: their ranges were never set.")
    return row


def check_int8(found: int, model: "torch.nn.Module") -> dict[str, Any]:
    """Hold a graph's int8 products to the quantized matrices, and two a layer in attention."""
    kinds = sparsity.quantized_modules(model)["kind"].value_counts()
    # Attention is expected, not looked up: where it was lost, model and graph lack it alike.
    attention = 2 * structure.layer_count(model) if kinds.get("Linear", 0) else 0
    expected = int(kinds.get("Linear", 0)) + attention
    row = {"check": "int8 products", "expected": expected, "found": found}
    if found == expected:
        return row
    raise failed(row, "Part of the quantization was lost on the way to ONNX.")


def check_engine(
    file: Path,
    engine: str,
    batches: list[dict[str, np.ndarray]],
    references: Any,  # noqa: ANN401 - each kind of task has its own
    expected: "Outputs",
    task: Task,
    int8: dict[str, Any],
) -> list[dict[str, Any]]:
    """Compare an engine's outputs and metric with PyTorch's on the same rows."""
    found = answers_of(file, engine, batches)
    if found is None:
        return [not_here(engine)]
    # The copies that filled the last batch count for nothing.
    found, expected = (first_rows(outputs, len(references)) for outputs in (found, expected))
    return [
        check_logits(engine, found, expected, quantized=int8["found"] > 0, size=task.spread),
        check_metric(
            engine,
            task.metrics(found, references),
            task.metrics(expected, references),
            metric_tolerance(task.decided(found), task.decided(expected)),
        ),
    ]


def answers_of(file: Path, engine: str, batches: list[dict[str, np.ndarray]]) -> "Outputs | None":
    """Return an engine's outputs for all batches; None if it is not here.

    Raises:
        ProofError: it refuses the model, dies, or takes too long.
    """
    from helpers import engines

    if engine not in engines.available_engines():
        return None
    try:
        return engines.predict(file, engine, batches)
    except engines.EngineError as error:
        mend = "Either it cannot run something in the graph, or there is too little memory."
        raise ProofError(f"{engine} runs it", "answers", str(error), mend) from error


def not_here(engine: str) -> dict[str, Any]:
    """Return the row of a check that could not be made."""
    return {"check": f"{engine} logits", "expected": "as PyTorch", "found": NOT_HERE}


def check_int8_run(
    file: Path, engine: str, batch: dict[str, np.ndarray], products: int
) -> dict[str, Any]:
    """Hold an engine to running the int8 products of a QDQ file in int8, by its own graph."""
    from helpers import engines

    least = products - may_stay_float(products)
    row = {"check": f"{engine} runs int8", "expected": f"{least} products or more"}
    if engine not in engines.available_engines():
        return {**row, "found": NOT_HERE}
    with engines.open_engine(file, engine) as process:
        process.prepare(*batch["input_ids"].shape)
        row["found"] = process.ask("int8_run")
    if row["found"] >= least:
        return row
    raise failed(row, f"{engine} computes it in float, which is slow; its version may be too old.")


def may_stay_float(products: int) -> int:
    """Return how many of a graph's int8 products an engine may compute in float.

    Pooler and head see one token of a text, where int8 may not be worth it. Without VNNI, OpenVINO
    has no product of signed with signed bytes (its graph says `brgemm_avx2_f32`), which each
    layer's attention scores are.
    """
    return 2 if environment.machine()["vnni"] else 2 + products // PRODUCTS_A_LAYER


def metric_tolerance(found: np.ndarray, expected: np.ndarray) -> float:
    """Return by how much a metric (0 to 1) may differ where these answers [rows, ...] do.

    An int8 tie falls to either side, so some rows get another answer. If they fall to both sides
    alike, a share over all rows moves by three standard errors of that at most, which is
    3 * sqrt(changed) / rows. It never may by more than 1 / sqrt(rows).
    """
    rows = len(expected)
    differs = np.abs(found.astype(float) - expected) > FP32_LOGITS_TOLERANCE
    changed = differs.reshape(rows, -1).any(axis=1).sum()
    return max(METRIC_TOLERANCE, min(3 * changed**0.5 / rows, rows**-0.5))


def check_logits(
    engine: str, found: "Outputs", expected: "Outputs", *, quantized: bool, size: float = 1.0
) -> dict[str, Any]:
    """Hold outputs to PyTorch's: the largest difference in fp32, the mean one in int8.

    Raises:
        ProofError: int8 differs by more than `INT8_MEAN_TOLERANCE` of `size`, fp32 by more than
            `FP32_LOGITS_TOLERANCE`.
    """
    gaps = np.abs(np.stack(found) - np.stack(expected))
    gap = float(gaps.mean() if quantized else gaps.max())
    limit = INT8_MEAN_TOLERANCE * size if quantized else FP32_LOGITS_TOLERANCE
    kind = "mean" if quantized else "largest"
    rows = len(found[0]) if isinstance(found, tuple) else len(found)
    row = {
        "check": f"{engine} logits",
        "expected": f"{kind} difference at most {limit:.3g} over {rows} rows",
        "found": round(gap, 6),
    }
    if gap <= limit:
        return row
    raise failed(row, f"{engine} computes another model than PyTorch does.")


def check_metric(
    engine: str,
    found: dict[str, float],
    expected: dict[str, float],
    tolerance: float = METRIC_TOLERANCE,
) -> dict[str, Any]:
    """Hold the task's first metric to PyTorch's."""
    name, value = next(iter(expected.items()))
    row = {
        "check": f"{engine} {name}",
        "expected": f"{value:.4f} within {tolerance:.2g}",
        "found": round(found[name], 4),
    }
    if abs(found[name] - value) <= tolerance:
        return row
    raise failed(row, f"The exported model is not as good on {engine} as it was in PyTorch.")


def passed(checks: list[dict[str, Any]]) -> str:
    """Say how many checks of a proof have passed, and which could not be made on this machine."""
    left = [row["check"] for row in checks if row["found"] == NOT_HERE]
    without = f", not made here: {', '.join(left)}" if left else ""
    return f"{len(checks) - len(left)} checks passed{without}"


def failed(row: dict[str, Any], mend: str) -> ProofError:
    """Turn a row of the proof into the error that stops the export."""
    return ProofError(row["check"], row["expected"], row["found"], mend)
