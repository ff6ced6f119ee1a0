"""What timing on real texts gives: one row a model, engine and way of padding, table and verdict.

Why: texts differ in length, so ranges of milliseconds say how long texts are, not how noisy the
machine was. What buckets gain is told from differences text by text, and pass by pass.

How: a frozen dataclass a row; `measurements.save` writes it with machine and versions.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.errors import UserError
from helpers.text_lengths import TextLengths
from helpers.verdict import SpeedUp

if TYPE_CHECKING:
    import pandas as pd

ONE_LENGTH, BUCKETS = WAYS = ("one length", "buckets")
# A mean difference is told from none if it is this many standard errors away from it.
STANDARD_ERRORS = 2


@dataclass(frozen=True)
class TextMeasurement:
    """One model on one engine, its texts padded in one way; `error` says why numbers are missing.

    Attributes:
        padding: one of `WAYS`.
        lengths: what texts are padded to, each to the smallest that holds it.
        sparsity: share of zeros (0 to 1) among all weights of the matrices.
        timed_texts: texts that were timed one by one, at batch 1.
        median_ms, p10_ms, p90_ms, mean_ms: milliseconds a text there, in the engine alone.
        saved_ms: mean milliseconds a text saved against one length, text by text.
        saved_error_ms: the standard error of that mean.
        tokenize_ms: median milliseconds that one text takes to become tokens.
        batch_size: texts of a call when all validation texts are run.
        texts, passes: how many, and how often.
        texts_per_second: of the median pass: tokens, batches and engine together.
        slowest_pass, fastest_pass: texts a second.
        tokenize_share, engine_share: of the time of a pass (0 to 1); the rest makes batches.
        metric, score: on these texts; None for a model with other labels than the data.
        logits_gap: largest difference to the logits of one length.
        labels_changed: texts whose answer is another than with one length.
        processes, memory_mb: engine processes and the memory that is theirs alone, at batch 1.
        compile_seconds: of these processes, one after the other.
    """

    model: str
    engine: str
    padding: str
    lengths: list[int]
    batch_size: int
    threads: int
    sha256: str
    precision: str = "unknown"
    sparsity: float | None = None
    timed_texts: int = 0
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    mean_ms: float | None = None
    saved_ms: float | None = None
    saved_error_ms: float | None = None
    tokenize_ms: float | None = None
    texts: int = 0
    passes: int = 0
    texts_per_second: float | None = None
    slowest_pass: float | None = None
    fastest_pass: float | None = None
    tokenize_share: float | None = None
    engine_share: float | None = None
    metric: str | None = None
    score: float | None = None
    logits_gap: float | None = None
    labels_changed: int | None = None
    processes: int | None = None
    memory_mb: float | None = None
    compile_seconds: float | None = None
    engine_version: str | None = None
    error: str | None = None


def load(file: Path) -> tuple[TextLengths, list[TextMeasurement]]:
    """Read what `python -m helpers texts --output` wrote.

    Raises:
        UserError: if the file is missing or holds something else.
    """
    try:
        found = json.loads(file.read_text())
        known = {name: found["lengths"][name] for name in TextLengths.__dataclass_fields__}
        return TextLengths(**known), [TextMeasurement(**row) for row in found["measurements"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} holds no timings of texts ({type(error).__name__}). Run `texts` again."
        ) from error


def as_table(rows: Sequence[TextMeasurement]) -> "pd.DataFrame":
    """Return one row a measurement, the two ways of a model and engine below each other."""
    import pandas as pd

    table = pd.DataFrame([asdict(row) for row in rows])
    table.insert(3, "padded_to", [in_words(row.lengths) for row in rows])
    return table


def in_words(lengths: Sequence[int]) -> str:
    """Return lengths with commas between them."""
    return ", ".join(map(str, lengths))


def verdict(lengths: TextLengths, rows: Sequence[TextMeasurement]) -> str:
    """Say how much of the work was padding, and what buckets gain on each engine."""
    pairs = {
        key: {row.padding: row for row in rows if (row.model, row.engine) == key}
        for key in dict.fromkeys((row.model, row.engine) for row in rows)
    }
    return "\n".join([about_lengths(lengths), *map(about_pair, pairs.values()), *about_best(rows)])


def about_lengths(lengths: TextLengths) -> str:
    """Say how long the texts are and what padding that means."""
    most = lengths.max_seq_length
    cut = f" {lengths.cut} had more than {most} and lost the rest, as in training."
    return (
        f"{lengths.data}: {len(lengths.each)} texts; half of them have {lengths.quantile(50)} "
        f"tokens or fewer, nine of ten {lengths.quantile(90)} or fewer, the longest "
        f"{lengths.quantile(100)}.{cut if lengths.cut else ''} Padded to {most}, "
        f"{lengths.padding([most]):.0%} of what an engine computes is padding; in buckets "
        f"({in_words(lengths.buckets)}) it is {lengths.padding(lengths.buckets):.0%}."
    )


def about_pair(ways: dict[str, TextMeasurement]) -> str:
    """Say what buckets change for one model on one engine, and what they cost."""
    before, after = ways[ONE_LENGTH], ways[BUCKETS]
    name = f"{after.model} on {after.engine}"
    if after.error:
        return f"{name} could not be timed: {after.error}"
    memory = "one process for all"
    if after.processes > 1:
        memory = (
            f"{after.memory_mb:.0f} MB in {after.processes} processes instead of one with "
            f"{before.memory_mb:.0f}"
        )
    return (
        f"{name}: buckets take {after.mean_ms:.1f} ms a text in the mean, one length "
        f"{before.mean_ms:.1f} ({faster_text(before, after)}); {after.texts_per_second:.0f} texts "
        f"a second, one length {before.texts_per_second:.0f} ({faster_pass(before, after)}). "
        f"Answers changed: {after.labels_changed}; {memory}."
    )


def faster_text(before: TextMeasurement, after: TextMeasurement) -> SpeedUp:
    """Compare mean milliseconds a text; different if the differences of single texts say so."""
    different = abs(after.saved_ms) > STANDARD_ERRORS * after.saved_error_ms
    return SpeedUp(before.mean_ms / after.mean_ms, different)


def faster_pass(before: TextMeasurement, after: TextMeasurement) -> SpeedUp:
    """Compare texts a second; different if no pass of one is as fast as a pass of the other."""
    apart = after.slowest_pass > before.fastest_pass or before.slowest_pass > after.fastest_pass
    return SpeedUp(after.texts_per_second / before.texts_per_second, apart)


def about_best(rows: Sequence[TextMeasurement]) -> list[str]:
    """Name the row with most texts a second, and what tokenising takes of its time."""
    timed = [row for row in rows if row.error is None]
    if not timed:
        return []
    best = max(timed, key=lambda row: row.texts_per_second)
    return [
        f"Most texts a second: {best.model} on {best.engine}, {best.padding}, "
        f"{best.texts_per_second:.0f} in batches of {best.batch_size}. Making tokens takes "
        f"{best.tokenize_share:.0%} of that time, the engine {best.engine_share:.0%}. One text "
        f"alone takes {best.tokenize_ms:.2f} ms to become tokens and {best.median_ms:.1f} ms in "
        "the engine."
    ]
