"""Make the usual complaints about sparse models happen on purpose, for notebook 10.

Each function does what a reader would do who knows nothing of it: with Transformers, PyTorch,
SparseML and DeepSparse as they come, and without one of this project's checks.
"""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from helpers import models, sparsity, token_batches
from helpers.errors import UserError
from helpers.stops import Checkpoint
from helpers.tasks import Task

if TYPE_CHECKING:
    from torch import nn

LEARNING_RATE = 1e-5
STEPS_PER_EPOCH = 4
COMPILE = "import sys, deepsparse; deepsparse.compile_model(sys.argv[1], 1, input_shapes=[[1, 32]])"


def loaded_plainly(checkpoint: Checkpoint) -> tuple["nn.Module", list[str]]:
    """Load a checkpoint by `from_pretrained` alone, which knows nothing of int8 training.

    Returns:
        the network, and the names of the weights that were not found and are random.
    """
    from transformers import AutoModelForSequenceClassification

    network, info = AutoModelForSequenceClassification.from_pretrained(
        checkpoint.folder, output_loading_info=True
    )
    return network.eval(), sorted(info["missing_keys"])


def accuracy(network: "nn.Module", checkpoint: Checkpoint, task: Task) -> float:
    """Return a network's accuracy (0 to 1) on the validation rows that exports are proven on."""
    batches, references = token_batches.proof_batches(checkpoint, task)
    outputs = token_batches.first_rows(token_batches.run_torch(network, batches), len(references))
    return task.metrics(outputs, references)["accuracy"]


def at_once(recipe: str, checkpoint: Checkpoint) -> pd.DataFrame:
    """Let SparseML apply the text of a recipe without training; return zeros, one row a matrix."""
    from helpers.recipes import make_manager

    network = models.load_model(checkpoint)
    make_manager(recipe, "recipe").apply(network)
    return sparsity.layer_sparsity(network)


def own_loop(recipe: str, checkpoint: Checkpoint, epochs: int) -> pd.DataFrame:
    """Go through a few steps an epoch under SparseML's manager, as a loop of one's own would.

    The learning rate is 0, so that nothing but masks changes the weights.

    Returns:
        zeros at the end, one row a matrix.
    """
    import torch

    from helpers.recipes import make_manager

    network = models.load_model(checkpoint)
    manager = make_manager(recipe, "recipe")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    optimizer = manager.modify(network, optimizer, steps_per_epoch=STEPS_PER_EPOCH)
    for _ in range(epochs * STEPS_PER_EPOCH):
        optimizer.step()
    manager.finalize(network)
    return sparsity.layer_sparsity(network)


def one_plain_step(checkpoint: Checkpoint, task: Task) -> pd.DataFrame:
    """Take one step of AdamW with one text, nothing else; return zeros, one row a matrix."""
    import torch

    network, tokenizer = models.load_model(checkpoint), models.load_tokenizer(checkpoint.folder)
    row = task.train[0]
    tokens = tokenizer(row["text"], truncation=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    network(**tokens, labels=torch.tensor([row["label"]])).loss.backward()
    optimizer.step()
    return sparsity.layer_sparsity(network)


def compile_for_short_texts(file: Path) -> None:
    """Let DeepSparse compile a model for 32 tokens, in a process of its own.

    Raises:
        UserError: DeepSparse could not, with its last line.
    """
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"DeepSparse does not compile {file.name}: {last[:200]}")
