"""In which order rows come: by seed and epoch alone, so alike in every process and after a kill."""

import math
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from helpers.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import Dataset
    from transformers import Trainer, TrainingArguments


class RowOrder(Sampler):
    """The rows of each epoch in an order that follows from seed and epoch.

    Transformers' own samplers draw from the state that dropout draws from. Two processes drop
    different things, so from the second epoch on each would go through an order of its own, and a
    quarter of the rows be in no batch; a run that goes on after a kill would see another order.

    Rows too few for a last update are left out, other ones in each epoch: the Trainer would carry
    them over into the next epoch, while it and SparseML count epochs by whole updates.
    """

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer = trainer
        self.rows = len(trainer.train_dataset)
        self.kept = min(self.rows, rows_of_updates(trainer.args, self.rows))
        grouped = trainer.args.group_by_length
        self.lengths = lengths_of(trainer.train_dataset, trainer.args) if grouped else None
        if self.kept < self.rows:
            left = self.rows - self.kept
            print(f"{left} of {self.rows} rows are left out of each epoch: too few for an update.")

    def __len__(self) -> int:
        """Return the rows of an epoch."""
        return self.kept

    def __iter__(self) -> "Iterator[int]":
        """Yield the numbers of an epoch's rows, those of like length side by side if asked."""
        args = self.trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        chance = torch.Generator().manual_seed(seed + int(self.trainer.state.epoch or 0))
        if self.lengths is None:
            order = torch.randperm(self.rows, generator=chance).tolist()
        else:
            size = args.train_batch_size * args.gradient_accumulation_steps
            order = get_length_grouped_indices(self.lengths, size, generator=chance)
        return iter(order[: self.kept])


def lengths_of(rows: "Dataset", args: "TrainingArguments") -> list[int]:
    """Return the tokens of each row, by its column of lengths or counted."""
    if args.length_column_name in rows.column_names:
        return rows[args.length_column_name]
    return [len(ids) for ids in rows["input_ids"]]


def rows_of_updates(args: "TrainingArguments", rows: int) -> int:
    """Return the rows that an epoch's whole updates have room for; its last batch may be smaller.

    Where every batch is an update, as without `gradient_accumulation_steps`, that is all of them.
    """
    summed = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    return updates_an_epoch(args, rows) * summed


def updates_an_epoch(args: "TrainingArguments", rows: int) -> int:
    """Return how often the optimizer steps in an epoch of so many rows, as the Trainer counts.

    Raises:
        UserError: an epoch has fewer batches than are summed up. The Trainer would make an update
            of those that it has, and leave out that processes share their gradients.
    """
    share = rows / (args.train_batch_size * args.world_size)
    batches = math.floor(share) if args.dataloader_drop_last else math.ceil(share)
    if batches >= args.gradient_accumulation_steps:
        return batches // args.gradient_accumulation_steps
    raise UserError(
        f"--gradient_accumulation_steps {args.gradient_accumulation_steps} sums up more batches "
        f"than the {batches} of an epoch ({rows} rows). Give fewer, smaller batches or more rows."
    )
