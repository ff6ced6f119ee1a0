"""What a run may start from: its own kind of checkpoint, or an encoder that was made for any task.

Zeros are what a sparse start is taken for. A recipe that would lose them, or that counts on zeros
which are not there, is refused before the first step; SparseML trains on without a word.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import models, sparsity
from helpers.errors import UserError
from helpers.requests import check_answers
from helpers.stops import Checkpoint
from helpers.tasks import Task, check_length
from helpers.training_proof import promises

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from helpers.recipe_modifier import PruningTarget
    from helpers.recipes import Recipe

#: Kinds of tasks whose models are a start for others: the encoder is kept, the head is new.
ENCODERS = ("MaskedLanguageModel", "Upstream")


@dataclass(frozen=True)
class Student:
    """What a run begins with.

    Attributes:
        start: what it was made from.
        network, tokenizer: ready to be trained.
        promised: zeros the recipe will make, and in which matrices.
        zeros: where the zeros of each sparse matrix are now (bool).
    """

    start: str | Path | Checkpoint
    network: "nn.Module"
    tokenizer: "PreTrainedTokenizerBase"
    promised: "dict[PruningTarget, list[str]]"
    zeros: "dict[str, torch.Tensor]"


def prepare(start: str | Path | Checkpoint, task: Task, recipe: "Recipe | None") -> Student:
    """Build what a run begins with; nothing is written yet.

    Raises:
        UserError: a start that is not there, or does not go with the task or the recipe.
    """
    tokenizer = models.load_tokenizer(models.tokenizer_source(start))
    network = build(start, task)
    promised = promises(recipe, network)
    check_zeros(recipe, network)
    return Student(start, network, tokenizer, promised, sparsity.zero_places(network))


def gives_encoder(start: str | Path | Checkpoint, task: Task) -> bool:
    """Tell whether a start is a checkpoint of which only the encoder is taken."""
    if not isinstance(start, Checkpoint):
        return False
    kind = start.run.get("kind")
    return kind in ENCODERS and kind != type(task).__name__


def build(start: str | Path | Checkpoint, task: Task) -> "nn.Module":
    """Return the network to train: a checkpoint's own, or an encoder with a new head.

    Raises:
        UserError: if it answers another question than the task asks, or takes shorter rows.
    """
    if not isinstance(start, Checkpoint):
        network = models.new_model(start, task)
    elif gives_encoder(start, task):
        refuse_dropped_layers(start)
        network = models.new_model(start.folder, task)
    else:
        check_answers(start, task, "Start from a checkpoint of this task, or from a plain model.")
        network = models.load_model(start)
    # A tokenizer may name no limit at all, and the position table ends without a warning.
    check_length(task.max_seq_length, network.config.max_position_embeddings)
    return network


def refuse_dropped_layers(start: Checkpoint) -> None:
    """Refuse an encoder whose config.json still has layers that its recipe took out.

    Raises:
        UserError: naming the recipe.
    """
    if start.recipe_file is None or "LayerPruningModifier" not in start.recipe_file.read_text():
        return
    raise UserError(
        f"{start.name} has dropped layers ({start.run['recipe']}) and goes on with its own kind of "
        "task only. Start from an encoder with all of its layers, and drop them in this run."
    )


def previous_recipe(start: str | Path | Checkpoint, task: Task) -> Path | None:
    """Return the recipe that the new run's stands on; one of another kind of task ends here."""
    if not isinstance(start, Checkpoint) or gives_encoder(start, task):
        return None
    return start.recipe_file


def check_zeros(recipe: "Recipe | None", network: "nn.Module") -> None:
    """Hold a recipe to the zeros the network starts with.

    Raises:
        UserError: it would prune a sparse model again, or let its zeros go; or it is made for a
            sparse start (`start_sparsity`), and this one is dense.
    """
    if recipe is None:
        refuse_plain(network)
        return
    from helpers.recipe_findings import sparse_findings, zeros_not_held

    lost = sparse_findings(recipe, network)
    if sparsity.sparse_parameters(network) and not any(m.prunes for m in recipe.modifiers):
        lost += [found for modifier in recipe.modifiers for found in zeros_not_held(modifier)]
    if lost:
        raise UserError(f"{recipe.name}: {lost[0]}")
    check_start_sparsity(recipe, network)


def refuse_plain(network: "nn.Module") -> None:
    """Refuse to train a sparse model without anything that holds its zeros.

    Raises:
        UserError: naming the first matrix.
    """
    for name, share in sparsity.sparse_parameters(network).items():
        raise UserError(
            f"The start is sparse ({share:.0%} zeros in {name}) and a plain fine-tune would fill "
            "its zeros in. Pass --recipe minilm-6layers_transfer, which holds them."
        )


def check_start_sparsity(recipe: "Recipe", network: "nn.Module") -> None:
    """Hold the start to the zeros a recipe expects, in each matrix that it keeps.

    Raises:
        UserError: naming the matrix with the fewest.
    """
    expected = recipe.variables.get("start_sparsity")
    if expected is None:
        return
    from helpers.recipes import check_against

    matched = check_against(recipe, network)
    kept = [m for m in recipe.modifiers if m.name == "ConstantPruningModifier"]
    names = [name for m in kept for pattern in m.patterns() for name in matched[pattern]]
    if not names:
        raise UserError(
            f"{recipe.name} counts on zeros (start_sparsity {expected}) and holds none. Add a "
            "ConstantPruningModifier for the matrices that have them."
        )
    found = sparsity.parameter_sparsity(network, names)
    worst = min(found, key=found.__getitem__)
    if found[worst] >= float(expected) - sparsity.TOLERANCE:
        return
    raise UserError(
        f"{recipe.name} expects a sparse start (start_sparsity {expected}), but {worst} has "
        f"{found[worst]:.1%} zeros: nothing would be held, and the result would be just as dense. "
        "Start from what sparsify_upstream or a pruning recipe wrote, or take minilm-6layers_quant."
    )
