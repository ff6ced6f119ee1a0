"""Questions to look at: an answer in its context, the windows of a context, a form to ask with."""

import contextlib
import io
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers import models, squad
from helpers.asking import ASKED, answer, settings_of
from helpers.errors import UserError
from helpers.question_answering import QuestionAnswering
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    from ipywidgets import VBox
    from transformers import PreTrainedTokenizerBase

# Marks around an answer.
BEFORE, BEHIND = "»", "«"
# Characters shown of a window's begin and end.
SHOWN = 25


def marked(row: squad.Row) -> str:
    """Return the context of a question with its first right answer between » and «.

    Args:
        row: a question with an answer, columns as `squad.COLUMNS`.
    """
    text, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
    context = row["context"]
    end = start + len(text)
    return f"{context[:start]}{BEFORE}{context[start:end]}{BEHIND}{context[end:]}"


def windows(
    task: QuestionAnswering, tokenizer: "PreTrainedTokenizerBase", row: squad.Row
) -> pd.DataFrame:
    """Return the windows that a context is cut into, in reading order.

    Args:
        task: says how long windows are and how much they share.
        tokenizer: a fast one, of the model that will read them.
        row: a question, columns as `squad.COLUMNS`.

    Returns:
        One row a window: `tokens` of the context in it, `start` and `end` (its characters in the
        context), whether the first right `answer` is whole in it, and how it begins and ends.
    """
    from datasets import Dataset

    rows = Dataset.from_list([row], features=squad.columns())
    features = task.encode_validation(tokenizer, rows)
    found = []
    for window, place in zip(task.references(features), features["start_positions"], strict=True):
        offsets = window.offsets[window.context]
        text = window.passage
        characters = (int(offsets[0, 0]), int(offsets[-1, 1]))
        found.append((len(offsets), *characters, place > 0, text[:SHOWN], text[-SHOWN:]))
    columns = ["tokens", "start", "end", "answer", "begins", "ends"]
    return pd.DataFrame(found, columns=columns)


def count_windows(
    checkpoint: Checkpoint, question_tokens: int, context_tokens: int, *, shared: int
) -> int:
    """Return how many windows a checkpoint's tokenizer makes of words that are one token each.

    Args:
        checkpoint: one that answers questions; its window length counts.
        question_tokens: tokens of the question.
        context_tokens: tokens of the context.
        shared: tokens that neighbouring windows share (`doc_stride`).
    """
    question, context = " ".join(["why"] * question_tokens), " ".join(["so"] * context_tokens)
    row = {"id": ASKED, "title": "", "context": context, "question": question, "answers": []}
    settings = {**settings_of(checkpoint), "doc_stride": shared}
    task = QuestionAnswering(ASKED, [], [], [], **settings)
    tokenizer = models.load_tokenizer(checkpoint.folder)
    # What encoding says of long contexts would tell the answer of an exercise.
    with contextlib.redirect_stdout(io.StringIO()):
        return len(windows(task, tokenizer, squad.tidy(row, ASKED)))


def form(checkpoint: Checkpoint, question: str = "", context: str = "") -> "VBox":
    """Return two fields and a button that show what a checkpoint answers; for a live notebook.

    Args:
        checkpoint: one that answers questions.
        question: what stands in the first field at first.
        context: what stands in the second.
    """
    import ipywidgets as widgets

    wide = {"layout": widgets.Layout(width="95%")}
    ask_for = widgets.Text(question, description="Question", **wide)
    text = widgets.Textarea(context, description="Context", rows=8, **wide)
    button, shown = widgets.Button(description="Ask"), widgets.HTML()

    def ask(_: Any) -> None:  # noqa: ANN401 - the button hands itself over
        shown.value = answered(checkpoint, ask_for.value, text.value)

    button.on_click(ask)
    return widgets.VBox([ask_for, text, button, shown])


def answered(checkpoint: Checkpoint, question: str, context: str) -> str:
    """Return the best answers as an HTML table, or in words why there are none."""
    try:
        return answer(checkpoint, question, context).to_html(index=False)
    except UserError as error:
        return escape(str(error))
