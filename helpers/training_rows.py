"""What a run learns from: rows as token ids, and what a teacher answers to them.

A teacher's answers are written down once, instead of being asked for in every epoch, where they do
not depend on what happens on the way.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer
from transformers.modeling_outputs import SequenceClassifierOutput

from helpers import models
from helpers.recipe_checks import check_states
from helpers.stops import Checkpoint
from helpers.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from sparseml.transformers.sparsification.training_args import TrainingArguments
    from transformers import DataCollator, PreTrainedTokenizerBase

    from helpers.recipes import Recipe


@dataclass(frozen=True)
class Rows:
    """A task's rows as a tokenizer reads them.

    Attributes:
        tokenizer: reads them.
        train: what is learnt from.
        measured: what is measured, sorted, so that a batch of short texts is not padded to the
            longest of all.
        references: the right answers to what is measured.
    """

    tokenizer: "PreTrainedTokenizerBase"
    train: "Dataset"
    measured: "Dataset"
    references: Any


def encoded(task: Task, tokenizer: "PreTrainedTokenizerBase") -> Rows:
    """Turn a task's rows into token ids.

    Raises:
        UserError: rows that the task has no use for, such as too little text.
    """
    train = task.encode(tokenizer, task.train)
    measured = task.encode_validation(tokenizer, task.validation).sort("length")
    return Rows(tokenizer, train, measured, task.references(measured))


class RecordedTeacher(nn.Module):
    """A teacher whose answers were written down before: they are the same in every epoch.

    SparseML asks a teacher for its answer at every step; this one reads it from the batch's
    column `teacher_logits` [rows, classes], which costs nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        # SparseML looks at a parameter to learn which device a teacher is on.
        self.device_marker = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, teacher_logits: torch.Tensor) -> SequenceClassifierOutput:
        """Return the recorded answers in the form a live classifier gives them."""
        return SequenceClassifierOutput(logits=teacher_logits)


def teach(
    teacher: Checkpoint | None,
    train: "Dataset",
    task: Task,
    recipe: "Recipe | None",
    collator: "DataCollator",
    args: "TrainingArguments",
) -> "tuple[nn.Module | None, Dataset]":
    """Return what is asked at every step, and the rows, with the teacher's answers if they do."""
    if teacher is None:
        return None, train
    if task.records_teacher and not (recipe and recipe.compares_states):
        return RecordedTeacher(), record_answers(teacher, train, collator, args)
    live_teacher = models.load_model(teacher)
    check_states(recipe, live_teacher)
    return live_teacher, train


def record_answers(
    teacher: Checkpoint,
    train: "Dataset",
    collator: "DataCollator",
    args: "TrainingArguments",
) -> "Dataset":
    """Add the teacher's logits as column `teacher_logits`; one forward pass over the data."""
    print(f"Writing down what {teacher.name} answers to {len(train)} rows ...")
    reader = Trainer(
        models.load_model(teacher),
        # The Trainer refuses a plateau, or a best model, of a run that measures nothing.
        replace(
            args,
            evaluation_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            lr_scheduler_type="constant",
        ),
        data_collator=collator,
    )
    by_length = np.argsort(train["length"], kind="stable")
    logits = np.empty((len(train), len(teacher.run["labels"])), dtype=np.float32)
    logits[by_length] = reader.predict(train.select(by_length)).predictions
    return train.add_column("teacher_logits", list(logits))
