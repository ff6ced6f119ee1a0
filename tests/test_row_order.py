"""The order of rows: by seed and epoch, in whole updates, all rows of every epoch."""

from itertools import product
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from helpers.errors import UserError
from helpers.row_order import RowOrder, updates_an_epoch


def trainer(folder: Path, rows: int, **settings: bool | int) -> Trainer:
    """Return a real Trainer of rows of one to seven tokens."""
    args = TrainingArguments(str(folder), use_cpu=True, report_to=[], **settings)
    ids = [[row] * (1 + row % 7) for row in range(rows)]
    return Trainer(torch.nn.Linear(1, 1), args, train_dataset=Dataset.from_dict({"input_ids": ids}))


def test_the_trainer_counts_the_same_updates(tmp_path: Path) -> None:
    """It counts batches of what the order yields; the recipe's epochs are counted by ours."""
    for rows, size, summed, drop in product((62, 63, 64, 100), (3, 8), (1, 4, 5), (True, False)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": summed}
        one = trainer(tmp_path, rows, **settings, dataloader_drop_last=drop)
        loader = DataLoader(range(rows), batch_size=size, sampler=RowOrder(one), drop_last=drop)
        batches = len(loader)
        assert batches == len(list(loader))
        assert batches % summed == 0
        assert batches // summed == updates_an_epoch(one.args, rows)


def test_a_smaller_last_batch_counts(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = trainer(tmp_path, 62, per_device_train_batch_size=8, gradient_accumulation_steps=4)
    assert sorted(RowOrder(one)) == list(range(62))
    assert not capsys.readouterr().out
    one = trainer(tmp_path, 62, per_device_train_batch_size=8, gradient_accumulation_steps=5)
    assert len(list(RowOrder(one))) == 40
    assert "22 of 62 rows are left out of each epoch" in capsys.readouterr().out


@pytest.mark.parametrize("grouped", [True, False])
def test_seed_and_epoch_alone_make_the_order(grouped: bool, tmp_path: Path) -> None:
    one = trainer(tmp_path, 60, group_by_length=grouped, seed=1)
    one.state.epoch = 1.0
    torch.manual_seed(5)
    second = list(RowOrder(one))
    one.state.epoch = 1.4
    torch.manual_seed(6)
    assert list(RowOrder(one)) == second, "a run that goes on in the middle of an epoch"
    one.state.epoch = 0.0
    assert list(RowOrder(one)) != second
    assert sorted(second) == list(range(60))
    other = trainer(tmp_path, 60, group_by_length=grouped, seed=2)
    other.state.epoch = 1.0
    assert list(RowOrder(other)) != second
    other.args.data_seed = 1
    assert list(RowOrder(other)) == second


def test_more_to_sum_up_than_there_is_is_refused(tmp_path: Path) -> None:
    one = trainer(tmp_path, 20, per_device_train_batch_size=8, gradient_accumulation_steps=4)
    with pytest.raises(UserError, match="sums up more batches than the 3 of an epoch"):
        updates_an_epoch(one.args, 20)
