"""From start and end logits to answers: n-best spans, SQuAD's files and SQuAD's scores.

A long context is read in windows that overlap; the spans of all its windows compete.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Where [CLS] stands: the place that means "no answer here".
CLS = 0


@dataclass(frozen=True)
class Window:
    """What is needed to score one window of a context.

    Attributes:
        question: id of the question it belongs to.
        offsets: where each token stands in the whole context, int [tokens, 2]: its first
            character and the one behind its last; -1 where a token is not of the context.
        passage: the part of the context that the window covers.
        answers: the gold answers of the question; none if it has none.
    """

    question: str
    offsets: np.ndarray
    passage: str
    answers: tuple[str, ...]

    def text(self, start: int, end: int) -> str:
        """Return the characters `start` to `end` of the context."""
        begin = self.offsets[self.context][0, 0]
        return self.passage[start - begin : end - begin]

    @property
    def context(self) -> np.ndarray:
        """Positions of the tokens of the context, int [tokens of the context]."""
        return np.flatnonzero(self.offsets[:, 0] >= 0)


class Span(NamedTuple):
    """A possible answer: its text, its characters in the context, and its two logits."""

    text: str
    start: int
    end: int
    start_logit: float
    end_logit: float

    @property
    def score(self) -> float:
        """The sum of the logits; more is better."""
        return self.start_logit + self.end_logit


@dataclass(frozen=True)
class Predictions:
    """What is predicted for each question, by its id.

    Attributes:
        texts: the answer; "" for none.
        n_best: the best spans with their probability among them, best first.
        null_odds: score of "no answer" less that of the best span; None for SQuAD v1.1.
    """

    texts: dict[str, str]
    n_best: dict[str, list[dict[str, str | float]]]
    null_odds: dict[str, float] | None = None


Outputs = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]


def best_spans(
    window: Window, starts: np.ndarray, ends: np.ndarray, n_best: int, longest: int
) -> list[Span]:
    """Return the best spans of one window, best first.

    Args:
        window: the window the logits are for.
        starts: start logits, float [tokens or more]; padding behind the tokens is ignored.
        ends: end logits, likewise.
        n_best: most spans returned; also, how many starts and how many ends are paired.
        longest: most tokens of a span.
    """
    inside = window.context
    first = inside[np.argsort(-starts[inside], kind="stable")[:n_best]]
    last = inside[np.argsort(-ends[inside], kind="stable")[:n_best]]
    scores = starts[first][:, None] + ends[last]
    tokens = last - first[:, None] + 1
    pairs = np.argwhere((tokens >= 1) & (tokens <= longest))
    order = np.argsort(-scores[tuple(pairs.T)], kind="stable")[:n_best]
    found = []
    for i, j in pairs[order]:
        start, end = int(window.offsets[first[i], 0]), int(window.offsets[last[j], 1])
        text = window.text(start, end)
        found.append(Span(text, start, end, float(starts[first[i]]), float(ends[last[j]])))
    return found


def ranked(
    outputs: Outputs, windows: Sequence[Window], n_best: int, longest: int
) -> dict[str, list[Span]]:
    """Return each question's best spans over all its windows, best first, no span twice.

    Args:
        outputs: start and end logits, each [windows, tokens or more].
        windows: in the order of the logits; a question's need not lie together.
        n_best: most spans of a question.
        longest: most tokens of a span.
    """
    spans: dict[str, list[Span]] = {}
    for starts, ends, window in zip(*outputs, windows, strict=True):
        found = best_spans(window, starts, ends, n_best, longest)
        spans.setdefault(window.question, []).extend(found)
    return {question: _best(found)[:n_best] for question, found in spans.items()}


def _best(spans: Iterable[Span]) -> list[Span]:
    """Sort by score; of the same characters, seen in two windows, the better one stays."""
    kept: dict[tuple[int, int], Span] = {}
    for span in sorted(spans, key=lambda span: -span.score):
        kept.setdefault((span.start, span.end), span)
    return list(kept.values())


def null_spans(outputs: Outputs, windows: Sequence[Window]) -> dict[str, Span]:
    """Return each question's "no answer", of the window that believes least in it."""
    nulls: dict[str, Span] = {}
    for starts, ends, window in zip(*outputs, windows, strict=True):
        null = Span("", 0, 0, float(starts[CLS]), float(ends[CLS]))
        known = nulls.get(window.question, null)
        nulls[window.question] = min(known, null, key=lambda span: span.score)
    return nulls


def predict(
    outputs: Outputs,
    windows: Sequence[Window],
    *,
    n_best: int,
    longest: int,
    null_threshold: float | None = None,
) -> Predictions:
    """Choose an answer for every question.

    Args:
        outputs: start and end logits, each [windows, tokens or more].
        windows: in the order of the logits.
        n_best: most spans listed for a question.
        longest: most tokens of an answer.
        null_threshold: odds of "no answer" above which none is given; None if every question
            has an answer (SQuAD v1.1).
    """
    spans = ranked(outputs, windows, n_best, longest)
    # A window without a context, or logits that pair no start with a later end.
    spans = {name: found or [Span("", 0, 0, 0.0, 0.0)] for name, found in spans.items()}
    texts = {name: found[0].text for name, found in spans.items()}
    if null_threshold is None:
        return Predictions(texts, {name: listed(found) for name, found in spans.items()})
    nulls = null_spans(outputs, windows)
    odds = {name: nulls[name].score - found[0].score for name, found in spans.items()}
    texts = {name: "" if odds[name] > null_threshold else text for name, text in texts.items()}
    shown = {name: listed(with_null(found, nulls[name], n_best)) for name, found in spans.items()}
    return Predictions(texts, shown, odds)


def with_null(spans: list[Span], null: Span, n_best: int) -> list[Span]:
    """Put "no answer" among the spans where its score belongs; it is listed in any case."""
    best = sorted([*spans, null], key=lambda span: -span.score)[:n_best]
    return best if null in best else [*best, null]


def probabilities(spans: Sequence[Span]) -> np.ndarray:
    """Return the softmax of the spans' scores, float [spans]."""
    from scipy.special import softmax

    return softmax([span.score for span in spans]) if spans else np.empty(0)


def listed(spans: list[Span]) -> list[dict[str, str | float]]:
    """Return spans as the n-best file of Transformers' run_qa has them."""
    return [
        {
            "text": span.text,
            "probability": float(share),
            "start_logit": span.start_logit,
            "end_logit": span.end_logit,
        }
        for span, share in zip(spans, probabilities(spans), strict=True)
    ]


def write_predictions(folder: Path, predictions: Predictions, prefix: str = "") -> list[Path]:
    """Write predictions.json, nbest_predictions.json and, for SQuAD v2, null_odds.json.

    The formats are those of Transformers' run_qa, which writes them with the prefix "eval_".

    Returns:
        The files written.
    """
    contents = {
        "predictions.json": predictions.texts,
        "nbest_predictions.json": predictions.n_best,
        "null_odds.json": predictions.null_odds,
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in contents.items():
        if content is not None:
            file = folder / f"{prefix}{name}"
            file.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", "utf-8")
            files.append(file)
    return files


def score(
    texts: Mapping[str, str],
    golds: Mapping[str, Sequence[str]],
    *,
    version_2_with_negative: bool = False,
) -> dict[str, float]:
    """Return SQuAD's F1 and exact match, the mean over questions, 0 to 1 (not percent).

    Args:
        texts: the answer given to each question.
        golds: the right answers of each; the best match counts.
        version_2_with_negative: SQuAD v2's definition; adds the means over questions with
            (`HasAns_`) and without an answer (`NoAns_`).
    """
    pairs = {
        name: answer_scores(texts[name], answers, version_2_with_negative)
        for name, answers in golds.items()
    }
    found = _means("f1", "exact_match", pairs.values())
    if not version_2_with_negative:
        return found
    has = [pair for name, pair in pairs.items() if golds[name]]
    lacks = [pair for name, pair in pairs.items() if not golds[name]]
    if has:
        found |= _means("HasAns_f1", "HasAns_exact", has)
    if lacks:
        found |= _means("NoAns_f1", "NoAns_exact", lacks)
    return found


def answer_scores(
    text: str, golds: Sequence[str], version_2_with_negative: bool
) -> tuple[float, float]:
    """Return F1 and exact match of one answer against the gold answer that fits it best."""
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

    if version_2_with_negative:
        # v2 leaves out golds of which nothing is left ("the"); a question without any wants "".
        golds = [gold for gold in golds if normalize_answer(gold)] or [""]
        f1 = max(compute_f1(gold, text) for gold in golds)
    else:
        # v1.1 gives such a gold no F1, even to the same answer.
        f1 = max(compute_f1(gold, text) if normalize_answer(gold) else 0 for gold in golds)
    return float(f1), float(max(compute_exact(gold, text) for gold in golds))


def _means(first: str, second: str, pairs: Iterable[tuple[float, float]]) -> dict[str, float]:
    f1, exact = np.mean(list(pairs), axis=0)
    return {first: float(f1), second: float(exact)}
