"""Put timings into words: how much faster, and why (not).

Why: "90 % sparse" promises nothing by itself. Zeros become speed only where the engine skips
them, int8 only where the CPU multiplies it, and both only where the noise leaves room to see it.

How: every sentence is derived from the measurements and the CPU's features, none is assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.errors import UserError
from helpers.sparsity import SPARSE_FROM

if TYPE_CHECKING:
    from helpers.measurements import Measurement

SAME = "no difference"


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast one row is as another.

    Attributes:
        factor: median of the slow row over median of the fast one; below 1 the "fast" one loses.
        different: False if their ranges (10th to 90th percentile) overlap.
    """

    factor: float
    different: bool

    def __str__(self) -> str:
        """Say it in words."""
        if not self.different:
            return SAME
        if self.factor >= 1:
            return f"{self.factor:.1f} times as fast"
        return f"{1 / self.factor:.1f} times as slow"


def cpu_features() -> dict[str, Any]:
    """Return what decides about sparse int8 speed: vnni, amx, avx512, bf16 (bool), cores, cpu."""
    from helpers import environment

    machine = environment.machine()
    wanted = ("cpu", "cores", "vnni", "amx", "avx512", "bf16")
    return {name: machine[name] for name in wanted}


def compare(fast: "Measurement", slow: "Measurement") -> SpeedUp:
    """Compare two rows that both have times."""
    apart = fast.p90_ms < slow.p10_ms or slow.p90_ms < fast.p10_ms
    return SpeedUp(slow.median_ms / fast.median_ms, apart)


def speed_up(
    measurements: Sequence["Measurement"],
    fast: tuple[str, str],
    slow: tuple[str, str],
    batch_size: int = 1,
) -> SpeedUp:
    """Compare two (model, engine) pairs at one batch size, and at the shortest length of both.

    Raises:
        UserError: if one of them was not measured, or failed, or they were measured at other
            lengths; the message says which and why.
    """
    of_length = by_length(measurements, batch_size)
    both = [r for r in of_length if {fast, slow} <= {(row.model, row.engine) for row in r}]
    rows = next(iter(both), measurements)
    one, other = pick(rows, fast, batch_size), pick(rows, slow, batch_size)
    if one.sequence_length != other.sequence_length:
        raise UserError(
            f"{one.model} was timed at {one.sequence_length} tokens, {other.model} at "
            f"{other.sequence_length}. Time both at one length."
        )
    return compare(one, other)


def pick(
    measurements: Sequence["Measurement"], pair: tuple[str, str], batch_size: int
) -> "Measurement":
    """Find a row that has times."""
    for row in measurements:
        if (row.model, row.engine, row.batch_size) == (*pair, batch_size):
            if row.error is None:
                return row
            raise UserError(f"{pair[0]} on {pair[1]} could not be timed: {row.error}")
    known = sorted({f"{row.model} on {row.engine}" for row in measurements})
    raise UserError(
        f"{pair[0]} on {pair[1]} was not timed at batch {batch_size}. There are: {known}."
    )


def verdict(measurements: Sequence["Measurement"], features: dict[str, Any]) -> str:
    """Answer "why is my sparse model (not) faster?" for these numbers on this CPU.

    Args:
        measurements: what `measure` returned; the smallest batch size is spoken about, at the
            shortest length at which there is something to compare.
        features: `cpu_features()`.

    Returns:
        A few sentences, one a line.
    """
    timed = comparable(measurements)
    several = len({row.sequence_length for row in measurements}) > 1
    sparse = [row for row in timed if is_sparse(row)]
    dense = [row for row in timed if is_baseline(row)]
    # Of every batch size and length, each reason once.
    failed = [row for row in measurements if row.error]
    lines = [f"{row.model} on {row.engine} could not be timed: {row.error}" for row in failed]
    lines = list(dict.fromkeys(lines))
    if not sparse or not dense:
        missing = "a dense fp32 one" if sparse else "a sparse one"
        end = " at this length" if several else ""
        lines.append(f"Nothing to compare: {missing} was not among the timed models{end}.")
        return "\n".join(lines)
    best = min(sparse, key=lambda row: row.median_ms)
    reasons = [
        against_int8(best, timed),
        skipping(timed),
        *effects(sparse, timed),
        *wrong_form(timed),
    ]
    reasons.append(instructions(best, features))
    if several:
        reasons.append(f"All of this is for texts of {best.sequence_length} tokens.")
    return "\n".join([headline(best, baseline(dense)), *filter(None, reasons), *lines])


def comparable(measurements: Sequence["Measurement"]) -> list["Measurement"]:
    """Return the timed rows of the smallest shape that has a sparse and a dense one, if any has."""
    of_length = by_length(measurements, min((row.batch_size for row in measurements), default=1))
    both = [r for r in of_length if any(map(is_sparse, r)) and any(map(is_baseline, r))]
    return next(iter(both or of_length), [])


def by_length(measurements: Sequence["Measurement"], batch_size: int) -> list[list["Measurement"]]:
    """Return the timed rows of a batch size, those of one length together, the shortest first.

    Times of different lengths say nothing together.
    """
    timed = [row for row in measurements if row.batch_size == batch_size and row.error is None]
    lengths = sorted({row.sequence_length for row in timed})
    return [[row for row in timed if row.sequence_length == length] for length in lengths]


def is_baseline(row: "Measurement") -> bool:
    """Tell whether a row's model is what a sparse one is compared with."""
    return not is_sparse(row) and row.precision == "fp32"


def is_sparse(row: "Measurement") -> bool:
    """Tell whether a row's model has zeros enough to speak of them."""
    return (row.sparsity or 0) >= SPARSE_FROM


def baseline(dense: list["Measurement"]) -> "Measurement":
    """Choose what to compare with: ONNX Runtime, as most people would, else the fastest."""
    usual = [row for row in dense if row.engine == "onnxruntime"]
    return min(usual or dense, key=lambda row: row.median_ms)


def headline(best: "Measurement", base: "Measurement") -> str:
    """Say whether the best sparse row beats the dense baseline."""
    found = compare(best, base)
    end = " (the ranges overlap: more rounds or a quieter machine may tell)"
    return (
        f"Best sparse: {describe(best)}, {best.median_ms:.1f} ms at batch {best.batch_size}. "
        f"Dense: {describe(base)}, {base.median_ms:.1f} ms. That is {found}"
        f"{'' if found.different else end}."
    )


def against_int8(best: "Measurement", timed: list["Measurement"]) -> str | None:
    """Say whether the best sparse row beats the fastest dense int8, which needs no training."""
    int8 = [row for row in timed if not is_sparse(row) and row.precision == "int8"]
    if not int8:
        return None
    rival = min(int8, key=lambda row: row.median_ms)
    return (
        f"The fastest dense int8: {describe(rival)}, {rival.median_ms:.1f} ms. "
        f"Against it the best sparse one is: {compare(best, rival)}."
    )


def describe(row: "Measurement") -> str:
    """Name a row: model, zeros and precision, engine."""
    return f"{row.model} ({row.sparsity or 0:.0%} zeros, {row.precision}) on {row.engine}"


def skipping(timed: list["Measurement"]) -> str | None:
    """Say whether an engine that skips zeros took part, and with how much of the model."""
    skips = [row for row in timed if row.engine == "deepsparse" and is_sparse(row)]
    if not skips:
        return (
            "Zeros could not help: only DeepSparse skips them, and it timed no sparse model here."
        )
    worst = min(skips, key=lambda row: row.supported_fraction or 0)
    share = worst.supported_fraction or 0
    if share >= 1:
        return None
    return (
        f"DeepSparse runs only {share:.0%} of the operators of {worst.model} itself and skips "
        "no zeros in the rest: check its export (operators, opset, fixed shapes)."
    )


def effects(sparse: list["Measurement"], timed: list["Measurement"]) -> list[str]:
    """Say, engine by engine, what the zeros alone, and those together with int8, changed."""
    lines = []
    for engine, precision in sorted({(row.engine, row.precision) for row in sparse}):
        here = [row for row in timed if row.engine == engine]
        alike = [row for row in here if row in sparse and row.precision == precision]
        best = min(alike, key=lambda row: row.median_ms)
        dense = [row for row in here if row not in sparse]
        dense = [row for row in dense if row.precision == precision] or dense
        if not dense:
            continue
        other = min(dense, key=lambda row: row.median_ms)
        cause = "zeros" if other.precision == precision else f"zeros and {precision}"
        note = "" if engine == "deepsparse" else "; this engine multiplies zeros like any number"
        lines.append(
            f"On {engine}, {cause}: {best.model} {best.median_ms:.1f} ms against {other.model} "
            f"{other.median_ms:.1f} ms, {compare(best, other)}{note}."
        )
    return lines


def wrong_form(timed: list["Measurement"]) -> list[str]:
    """Name the int8 models of which an engine runs nothing in int8, by its own graph."""
    return [
        f"{row.engine} runs none of the int8 products of {row.model} in int8: export it with "
        "--onnx_export_format qdq."
        for row in timed
        if row.precision == "int8" and row.int8_run == 0
    ]


def instructions(best: "Measurement", features: dict[str, Any]) -> str:
    """Say what the CPU can do for int8 and sparse arithmetic."""
    if best.precision == "int8" and not features["vnni"]:
        return (
            "This CPU has no VNNI, so an int8 product takes several instructions: int8 saves "
            "memory here, and little or no time."
        )
    if not features["avx512"]:
        return "This CPU has no AVX-512; DeepSparse falls back to AVX2, which gains less."
    if best.precision == "int8":
        return "This CPU has VNNI: int8 products run natively."
    kind = "int8 could add to the zeros (VNNI is here)" if features["vnni"] else "VNNI is missing"
    return f"The best sparse model is {best.precision}; {kind}."
