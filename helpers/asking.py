"""Asks a checkpoint one question: what a person types is a task of a single row.

Why: the answer then goes the way of every evaluation, windows and thresholds included.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers import answers, models, squad
from helpers.errors import UserError
from helpers.question_answering import SETTINGS, QuestionAnswering
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn
    from transformers import PreTrainedTokenizerBase

WINDOWS_AT_ONCE = 16
# The id of a question that a person asks.
ASKED = "asked"


def answer(checkpoint: Checkpoint, question: str, context: str, *, top: int = 5) -> pd.DataFrame:
    """Return what a checkpoint answers to a question about a context of any length.

    Returns:
        At most `top` rows, best first: `answer`, `score` (its probability among all that are
        listed for a question), and `start` and `end`, its characters in the context. An empty
        answer is "no answer", which only a model for SQuAD v2 gives.

    Raises:
        UserError: if question or context is empty.
    """
    from datasets import Dataset

    if not question.strip() or not context.strip():
        raise UserError("A question and a context are needed. Fill in what is empty.")
    row = {"id": ASKED, "context": context, "question": question, "answers": []}
    rows = Dataset.from_list([squad.tidy(row, ASKED)], features=squad.columns())
    task = QuestionAnswering(ASKED, rows, rows, [], **settings_of(checkpoint))
    network, tokenizer = models.load_model(checkpoint), models.load_tokenizer(checkpoint.folder)
    return best_answers(task, network, tokenizer).head(top)


def settings_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return how a checkpoint is asked; what it does not say is as the task's defaults have it."""
    return {name: checkpoint.run[name] for name in SETTINGS if name in checkpoint.run}


def best_answers(
    task: QuestionAnswering, network: "nn.Module", tokenizer: "PreTrainedTokenizerBase"
) -> pd.DataFrame:
    """Ask a network the one question of `task.validation`; see `answer` for the columns."""
    features = task.encode_validation(tokenizer, task.validation)
    windows = task.references(features)
    outputs = logits(network, tokenizer, features)
    spans = answers.ranked(outputs, windows, task.n_best_size, task.max_answer_length)[ASKED]
    if task.version_2_with_negative:
        null = answers.null_spans(outputs, windows)[ASKED]
        # The threshold may decide against the best score.
        chosen = spans[0] if task.predictions(outputs, windows).texts[ASKED] else null
        spans = answers.with_null(spans, null, task.n_best_size)
        spans.sort(key=lambda span: span != chosen)
    table = pd.DataFrame(spans, columns=answers.Span._fields).rename(columns={"text": "answer"})
    table["score"] = answers.probabilities(spans).round(3)
    return table[["answer", "score", "start", "end"]]


def logits(
    network: "nn.Module", tokenizer: "PreTrainedTokenizerBase", features: "Dataset"
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return start and end logits of every window, float [tokens or more] each."""
    import torch

    inputs = features.select_columns(tokenizer.model_input_names)
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for begin in range(0, len(inputs), WINDOWS_AT_ONCE):
        batch = tokenizer.pad(inputs[begin : begin + WINDOWS_AT_ONCE], return_tensors="pt")
        with torch.no_grad():
            output = network(**batch)
        starts.extend(output.start_logits.float().numpy())
        ends.extend(output.end_logits.float().numpy())
    return starts, ends
