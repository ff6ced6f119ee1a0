"""Workarounds for SparseML's pruners: symptom, cause, fix.

Magnitude and movement pruning see the gradients of training. The Optimal BERT Surgeon takes a
sample before every mask, from a second loader over the training data.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

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

    settings = {
        "batch_size": trainer.args.per_device_train_batch_size,
        "collate_fn": trainer.data_collator,
        # Its own, so that training draws the same numbers as without this pruner.
        "generator": torch.Generator().manual_seed(trainer.args.seed),
        **(options or {}),
    }
    if not settings.keys() & {"sampler", "shuffle", "drop_last"}:
        size = settings.pop("batch_size")
        settings["batch_sampler"] = MixedBatches.of(trainer, size, settings["generator"])
    rows = trainer._remove_unused_columns(trainer.train_dataset, description="gradients")
    loader = torch.utils.data.DataLoader(rows, **settings)
    known = trainer._model_signature_columns
    while True:
        for batch in loader:
            inputs = {name: column for name, column in batch.items() if name in known}
            yield [], trainer._prepare_inputs(inputs), None


@dataclass(frozen=True)
class MixedBatches:
    """Rows in batches of like length where training groups them, long and short batches mixed.

    Transformers sorts fifty batches at a time by length. Read in that order, the sample behind one
    mask would be of long texts, and that behind the next of short ones.
    """

    batches: "torch.utils.data.BatchSampler"
    generator: "torch.Generator"

    @classmethod
    def of(cls, trainer: "Trainer", size: int, generator: "torch.Generator") -> "MixedBatches":
        """Draw from the rows that a trainer trains on."""
        from torch.utils.data import BatchSampler, RandomSampler
        from transformers.trainer_pt_utils import LengthGroupedSampler

        from helpers.row_order import lengths_of

        rows = trainer.train_dataset
        if trainer.args.group_by_length:
            lengths = lengths_of(rows, trainer.args)
            drawn = LengthGroupedSampler(size, lengths=lengths, generator=generator)
        else:
            drawn = RandomSampler(rows, generator=generator)
        return cls(BatchSampler(drawn, size, drop_last=False), generator)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield every row once, a batch of row numbers at a time."""
        import torch

        batches = list(self.batches)
        for number in torch.randperm(len(batches), generator=self.generator).tolist():
            yield batches[number]


@dataclass(frozen=True)
class GradientBatches:
    """The batches that gradients are sampled from, and the precision to look at them in."""

    batches: "Iterator[Sample]"
    precision: "Callable[[], AbstractContextManager]"

    def __iter__(self) -> "Iterator[Sample]":
        """Go on where the last mask stopped, so that every mask sees other batches."""
        return self.batches


@dataclass(frozen=True)
class CalledUnder:
    """A model as far as the sampler of gradients uses one, called under a precision."""

    module: "torch.nn.Module"
    precision: "Callable[[], AbstractContextManager]"

    def zero_grad(self) -> None:
        """Forget the gradients of the last sample."""
        self.module.zero_grad()

    def __call__(self, *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - the model's own
        """Run the forward pass; the backward pass takes its precision from it."""
        with self.precision():
            return self.module(*inputs, **named)


def sample_as_in_training() -> None:
    """Let a pruner look at gradients in the precision that the Trainer trains in.

    Symptom: where training takes bf16, an OBS mask takes a quarter longer (MiniLM on SQuAD, two
    cores: 4.9 s a gradient, not 3.9). Cause: the sampler calls the model itself, past the Trainer's
    autocast. Only the forward pass goes under it here, as what is estimated from the gradients
    needs fp32.
    """
    from sparseml.pytorch.utils import GradSampler

    sample = GradSampler.iter_module_backwards
    if hasattr(sample, "__wrapped__"):
        return

    @functools.wraps(sample)
    def sample_in_precision(
        sampler: GradSampler, module: "torch.nn.Module", *args: Any, **options: Any
    ) -> Iterator[int]:
        batches = sampler._data_loader
        if isinstance(batches, GradientBatches):
            module = CalledUnder(module, batches.precision)
        return sample(sampler, module, *args, **options)

    GradSampler.iter_module_backwards = sample_in_precision


def add_outer_products_by_elements() -> None:
    """Take a gradient into the estimate of the loss's curvature in a quarter of the time.

    Symptom: on a CPU half a second of each gradient that an OBS mask looks at. Cause: SparseML adds
    the outer products as products of matrices one wide, 660,000 for MiniLM's matrices in blocks of
    16. By elements they are one pass over the estimate. It is the rank-one update by Sherman and
    Morrison, see "The Optimal BERT Surgeon", https://arxiv.org/abs/2203.07259, section 3.
    """
    from sparseml.pytorch.sparsification.pruning import modifier_pruning_obs as obs

    add_grad = obs.EmpiricalBlockFisherInverse.add_grad
    if hasattr(add_grad, "__wrapped__"):
        return

    @functools.wraps(add_grad)
    def add_gradient(fisher: obs.EmpiricalBlockFisherInverse, gradient: "torch.Tensor") -> None:
        blocks = gradient.new_zeros(fisher.num_blocks * fisher.B)
        blocks[: gradient.numel()] = gradient.flatten()
        blocks = blocks.view(fisher.num_blocks, fisher.B)
        change = (fisher.f_inv @ blocks.unsqueeze(2)).squeeze(2)
        change /= (fisher.m + (blocks * change).sum(dim=1, keepdim=True)).sqrt()
        fisher.f_inv.addcmul_(change.unsqueeze(2), change.unsqueeze(1), value=-1)

    obs.EmpiricalBlockFisherInverse.add_grad = add_gradient


def select_instead_of_sorting() -> None:
    """Find the threshold of a mask by selection; on a CPU it is ten times faster than sorting.

    Symptom: a new mask for MiniLM's 36 matrices takes over a second, four to five steps. Cause:
    SparseML sorts each matrix to read one value, unless it is told that memory is short. The value
    is the same.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("MEMORY_BOUNDED", "true")


def keep_constant_masks() -> None:
    """Let ConstantPruningModifier make its masks when it starts, and not at every step.

    Symptom: holding zeros that never change costs a fifth of a step. Cause: the modifier reads its
    masks off the weights anew after every step, and compares them with the old ones. They can
    only be the same, as masked weights are zero.
    """
    from sparseml.pytorch.sparsification.pruning import ConstantPruningModifier as Modifier

    make_masks = Modifier.check_mask_update
    if hasattr(make_masks, "__wrapped__"):
        return

    @functools.wraps(make_masks)
    def make_once(
        modifier: Modifier,
        module: "torch.nn.Module",
        epoch: float,
        steps_per_epoch: int,
        **options: Any,
    ) -> None:
        starts = modifier.start_pending(epoch, steps_per_epoch)
        if starts or modifier.end_pending(epoch, steps_per_epoch):
            make_masks(modifier, module, epoch, steps_per_epoch, **options)

    Modifier.check_mask_update = make_once
