"""Rows of token ids as every engine takes them, and what PyTorch answers to them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers import models, tiers
from helpers.model_inputs import Inputs
from helpers.models import INPUTS
from helpers.stops import Checkpoint
from helpers.tasks import Task, check_length

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from helpers.engines import Outputs

PROOF_BATCH = 16


def proof_batches(checkpoint: Checkpoint, task: Task) -> tuple[list[dict[str, np.ndarray]], Any]:
    """Return validation rows as `equal_batches`, and the references of those rows."""
    tokenizer = models.load_tokenizer(checkpoint.folder)
    rows = task.shortened(1, tiers.current().proof_examples).validation
    features = task.encode_validation(tokenizer, rows)
    return equal_batches(checkpoint, task, features), task.references(features)


def check_room(checkpoint: Checkpoint, task: Task) -> None:
    """Refuse a task whose rows are longer than the model's position table.

    Raises:
        UserError: naming the length there is; a tokenizer may name no limit at all.
    """
    most = models.load_config(checkpoint.folder).max_position_embeddings
    check_length(task.max_seq_length, most)


def equal_batches(checkpoint: Checkpoint, task: Task, features: "Dataset") -> list[Inputs]:
    """Return encoded rows as batches of token ids, all [PROOF_BATCH, max_seq_length], int64.

    The length is the task's, which may be another than the one the checkpoint was trained at.
    DeepSparse compiles for one shape, so the last batch is filled up with copies of its last row.
    """
    pad_id = models.load_tokenizer(checkpoint.folder).pad_token_id
    tokens = {name: features[name] for name in INPUTS if name in features.column_names}
    full = np.minimum(np.arange(-(-len(features) // PROOF_BATCH) * PROOF_BATCH), len(features) - 1)
    return [
        padded(tokens, part.tolist(), task.max_seq_length, pad_id)
        for part in full.reshape(-1, PROOF_BATCH)
    ]


def padded(
    tokens: "Mapping[str, Sequence[Sequence[int]]]", rows: Sequence[int], length: int, pad_id: int
) -> Inputs:
    """Return some rows of tokens as int64 arrays [rows, length], masked where they are padding."""
    filled = {
        name: np.full((len(rows), length), pad_id if name == "input_ids" else 0, np.int64)
        for name in INPUTS
    }
    for name in set(INPUTS) & set(tokens):
        for place, row in enumerate(rows):
            filled[name][place, : len(tokens[name][row])] = tokens[name][row]
    return filled


def run_torch(model: "torch.nn.Module", batches: list[dict[str, np.ndarray]]) -> "Outputs":
    """Return the model's own outputs [rows, ...]; a tuple where it has several."""
    import torch

    with torch.no_grad():
        answers = [
            model(**{k: torch.from_numpy(v) for k, v in batch.items()}).values()
            for batch in batches
        ]
    outputs = tuple(np.concatenate(parts) for parts in zip(*answers, strict=True))
    return outputs[0] if len(outputs) == 1 else outputs


def first_rows(outputs: "Outputs", rows: int) -> "Outputs":
    """Return the first rows of one output, or of each of several."""
    if isinstance(outputs, tuple):
        return tuple(output[:rows] for output in outputs)
    return outputs[:rows]
