"""Exercises that check themselves: the answer is computed, never looked up.

Each function takes the reader's answer (None while there is none), works the truth out from the
reader's own model or file, and says right, nearly or wrong, and why.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

from helpers import sparsity
from helpers.models import load_model
from helpers.recipes import Recipe
from helpers.stops import Checkpoint, OnnxModel

if TYPE_CHECKING:
    import pandas as pd
    import torch

Asked = ParamSpec("Asked")
WAITING = "No answer yet: replace None by your number and run the cell again."


def not_a_number(answer: object) -> str | None:
    """Return what to say where there is no number yet; None where there is one."""
    if answer is None:
        return WAITING
    # A tensor or an array of one element will do; one of several, a word or a list has no float.
    with suppress(TypeError, ValueError, RuntimeError):
        if math.isfinite(answer):
            return None
    return f"Not yet: {answer!r} is no number. Give the number alone, such as 70."


def takes_any_answer(
    judge: Callable[Concatenate[float, Asked], str],
) -> Callable[Concatenate[object, Asked], str]:
    """Let an exercise be given whatever a reader writes; it judges what is a number."""

    @wraps(judge)
    def judged(answer: object, *args: Asked.args, **kwargs: Asked.kwargs) -> str:
        return not_a_number(answer) or judge(float(answer), *args, **kwargs)

    return judged


def verdict(answer: float, truth: float, *, nearly: float, why_wrong: str) -> str:
    """Return right, nearly or wrong for a number.

    Args:
        answer: the reader's number.
        truth: the computed one.
        nearly: relative distance up to which an answer is nearly right; 0 for a count, which is
            right or wrong.
        why_wrong: the likely slip of thought.
    """
    distance = abs(answer - truth) / max(abs(truth), 1e-12)
    if distance <= min(0.02, nearly):
        return f"Right: {truth:.4g}."
    if distance <= nearly:
        return f"Nearly: you said {answer:.4g}, counted it is {truth:.4g}."
    return f"Not yet: {answer:.4g} is off. {why_wrong}"


@takes_any_answer
def prunable_share(answer: float, checkpoint: Checkpoint) -> str:
    """01: which share of all parameters lies in the encoder's matrices?"""
    model = load_model(checkpoint)
    table = sparsity.layer_sparsity(model)
    sizes = table["rows"] * table["columns"]
    every = sum(p.numel() for p in model.parameters())
    truth, with_head = float(sizes[table.layer >= 0].sum()) / every, float(sizes.sum()) / every
    slip = (
        "Divide the encoder's weights by ALL parameters; the embedding tables are the larger half."
    )
    if answer > 1:
        return f"Not yet: a share lies between 0 and 1, you said {answer:g}."
    if abs(answer - with_head) < abs(answer - truth) and answer < 1.01 * with_head:
        return (
            "Nearly: pooler and classifier are matrices, too, but not the encoder's (layer >= 0)."
        )
    return verdict(answer, truth, nearly=0.1, why_wrong=slip)


@takes_any_answer
def first_sparsity(answer: float, recipe: Recipe) -> str:
    """02: how many zeros (percent) has each matrix half-way between pruning's start and end?"""
    pruning = next(m for m in recipe.modifiers if m.prunes)
    middle = (pruning.start_epoch + pruning.end_epoch) / 2
    curve = recipe.schedule()
    truth = 100 * float(curve.sparsity[(curve.epoch - middle).abs().idxmin()])
    slip = (
        "A straight line would give half of the final value; a cubic one is early: "
        "final x (1 - (1 - t)^3) at t = 0.5."
    )
    if answer <= 1:
        return f"Not yet: {answer:g} looks like a share; the question asks for percent."
    return verdict(answer, truth, nearly=0.08, why_wrong=slip)


@takes_any_answer
def int8_products(answer: float, checkpoint: Checkpoint) -> str:
    """03: how many matrix products of one forward pass are now int8?"""
    modules = sparsity.quantized_modules(load_model(checkpoint))
    kinds = modules["kind"].value_counts()
    truth = int(kinds.get("Linear", 0) + kinds.get("MatMul", 0))
    if answer == kinds.get("Linear") != truth:
        return "Nearly: those are the weight matrices. Attention multiplies activations, too."
    if answer == len(modules) != truth:
        return "Nearly: the embedding tables are int8 as well, but looking up is no product."
    slip = "Count per layer: six weight matrices and two products in attention; then the head's."
    return verdict(answer, truth, nearly=0.0, why_wrong=slip)


@takes_any_answer
def softened(answer: float, logits: list[float], temperature: float) -> str:
    """04: which probability does the first class get at this temperature?"""
    import numpy as np

    scaled = np.exp(np.array(logits) / temperature)
    truth = float(scaled[0] / scaled.sum())
    unscaled = np.exp(np.array(logits))
    if temperature != 1 and abs(answer - unscaled[0] / unscaled.sum()) < 0.01:
        return "Nearly: that is temperature 1. Divide the logits by the temperature first."
    slip = "softmax(logits / T): divide, exponentiate, then divide by the sum."
    return verdict(answer, truth, nearly=0.1, why_wrong=slip)


@takes_any_answer
def tasks_until_cheaper(
    answer: float,
    upstream: Checkpoint,
    dense: Checkpoint,
    pruned: Checkpoint,
    transfer: Checkpoint,
) -> str:
    """07: from how many tasks on does sparse transfer train less than pruning each from scratch?"""
    once, saved = upstream.run["minutes"], dense.run["minutes"] + pruned.run["minutes"]
    saved -= transfer.run["minutes"]
    if saved <= 0:
        return "Never, in this run: a transfer took as long as pruning did. Measure again alone."
    truth = math.floor(once / saved) + 1
    if answer == truth:
        return f"Right: {truth}. {once:.1f} minutes once, {saved:.1f} saved by each task."
    if math.floor(once / saved) <= answer < truth:
        return f"Nearly: {once / saved:.2f} tasks would break even. It has to be ahead, and whole."
    return (
        f"Not yet: {answer:g} is off. Divide the upstream minutes by what one task saves: "
        "dense and pruning together, less the transfer."
    )


@takes_any_answer
def rounding_error(answer: float, weights: "torch.Tensor") -> str:
    """09: by how much can int8 rounding move a weight of this matrix [outputs, inputs] at most?"""
    step = float(weights.abs().max()) / 127.5
    if abs(answer - step) < 0.01 * step:
        return "Nearly: that is a whole step. The nearest of two neighbours is never that far away."
    slip = (
        "The largest weight over 127.5 is a step; a value lies at most half of one from the next."
    )
    return verdict(answer, step / 2, nearly=0.1, why_wrong=slip)


@takes_any_answer
def left_out(answer: float, table: "pd.DataFrame") -> str:
    """10: which encoder layer has the recipe left as it was?

    Args:
        answer: the number of the layer.
        table: as from `sparsity.layer_sparsity`.
    """
    layers = table[table.layer >= 0].groupby("layer").sparsity.mean()
    truth = int(layers.idxmin())
    if answer == truth:
        return (
            f"Right: {truth}. It has {layers[truth]:.0%} zeros, the others {layers.median():.0%}."
        )
    if answer == truth + 1:
        return "Nearly: layers are counted from 0, in the names of weights as in this table."
    if answer not in layers.index:
        return f"Not yet: there is no layer {answer:g}. They are 0 to {layers.index.max()}."
    return f"Not yet: layer {answer:g} has {layers[answer]:.0%} zeros. Look for the least."


@takes_any_answer
def bits_per_weight(answer: float, model: OnnxModel, zipped_bytes: int) -> str:
    """05: how many bits does one stored value take, on average, in the zipped file?"""
    import onnx

    tensors = onnx.load(str(model.file)).graph.initializer
    weights = sum(math.prod(t.dims) for t in tensors)
    truth = 8 * zipped_bytes / weights
    slip = "8 x bytes / number of stored values; entropy, not the data type, sets the zipped size."
    return verdict(answer, truth, nearly=0.15, why_wrong=slip)


@takes_any_answer
def seconds_saved(answer: float, dense_ms: float, sparse_ms: float, calls: int) -> str:
    """06: how many seconds of waiting are saved over so many calls?"""
    truth = (dense_ms - sparse_ms) * calls / 1000
    slip = "(dense - sparse) milliseconds a call, times calls, divided by 1000."
    if abs(answer - truth * 1000) < abs(truth * 20):
        return "Nearly: that is milliseconds; the question asks for seconds."
    return verdict(answer, truth, nearly=0.1, why_wrong=slip)


@takes_any_answer
def windows_needed(
    answer: float, checkpoint: Checkpoint, context_tokens: int, question_tokens: int
) -> str:
    """08: how many windows does a context of so many tokens become?"""
    from helpers.question_views import count_windows

    truth, apart = (
        count_windows(checkpoint, question_tokens, context_tokens, shared=shared)
        for shared in (checkpoint.run["doc_stride"], 0)
    )
    if answer == apart != truth:
        return "Nearly: those would lie side by side; here each repeats the end of the one before."
    slip = (
        "The first window takes as much context as fits beside the question and three special "
        "tokens; each further one takes so much less `doc_stride`. Round up."
    )
    return verdict(answer, truth, nearly=0.0, why_wrong=slip)


def zipped_size(file: Path) -> int:
    """Return the size of a file after zip's compression (deflate), in bytes."""
    import zlib

    packer = zlib.compressobj(6)
    size = 0
    with file.open("rb") as stream:
        while chunk := stream.read(2**20):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
