"""Workaround for SparseML's pruners that ask for gradients of their own: symptom, cause, fix.

Magnitude and movement pruning see the gradients of training. The Optimal BERT Surgeon takes a
sample before every mask, from a second loader over the training data.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from sparseml.transformers.sparsification import Trainer

Sample = tuple[list, "dict[str, torch.Tensor]", None]


def gradient_batches(trainer: "Trainer", options: dict[str, Any] | None = None) -> Iterator[Sample]:
    """Yield training batches without end, as SparseML's `GradSampler` takes them.

    Symptom: `DataLoader.__init__() got an unexpected keyword argument 'gradient_state'` at the
    first mask of an OBSPruningModifier.
    Cause: `Trainer._data_loader_builder` makes its loader out of the attributes of the one that
    trains, and Accelerate has added some that no constructor takes. It would also hand the model
    columns it does not know, such as `length`, and an Accelerate loader that is never read to its
    end takes the place of the one that trains in Accelerate's state. A plain loader does neither.

    Args:
        trainer: the one that trains; its data, collator, batch size and seed are used.
        options: `grad_sampler_kwargs` of the recipe, any argument of Torch's DataLoader.

    Yields:
        no positional inputs; inputs and labels by name, on the model's device; no target, as the
        model computes its own loss.
    """
    import torch

    defaults = {
        "batch_size": trainer.args.per_device_train_batch_size,
        "shuffle": True,
        "collate_fn": trainer.data_collator,
        # Its own, so that training draws the same numbers as without this pruner.
        "generator": torch.Generator().manual_seed(trainer.args.seed),
    }
    rows = trainer._remove_unused_columns(trainer.train_dataset, description="gradients")
    loader = torch.utils.data.DataLoader(rows, **{**defaults, **(options or {})})
    known = trainer._model_signature_columns
    while True:
        for batch in loader:
            inputs = {name: column for name, column in batch.items() if name in known}
            yield [], trainer._prepare_inputs(inputs), None
