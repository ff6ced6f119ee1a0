"""The pruner that asks for gradients of its own, run through SparseML's Trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from datasets import Dataset
from sparseml.transformers.sparsification import Trainer
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import BertConfig, BertForSequenceClassification

from helpers import compat
from helpers.compat_pruners import gradient_batches
from helpers.recipes import load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS, BATCH = 20, 2
RECIPE = load_recipe("minilm-6layers_obs90", num_epochs=1, num_grads=3)


class Mended(Trainer):
    """SparseML's Trainer with the workaround."""

    def _data_loader_builder(self, kwargs: dict | None = None) -> "Iterator":
        return gradient_batches(self, kwargs)


def make_trainer(kind: type[Trainer], folder: Path, **settings: object) -> Trainer:
    """Return a Trainer of a random 2-layer BERT, ten batches an epoch."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    network = BertForSequenceClassification(
        BertConfig(**sizes, num_hidden_layers=2, vocab_size=100)
    )
    columns = {
        "input_ids": torch.randint(0, 100, (ROWS, 4)).tolist(),
        "labels": [0, 1] * (ROWS // 2),
        "length": [4] * ROWS,
    }
    args = TrainingArguments(
        compat.absolute(folder),
        per_device_train_batch_size=BATCH,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    return kind(
        model=network,
        model_state_path=compat.absolute(folder),
        recipe=RECIPE.text,
        teacher="disable",
        args=args,
        train_dataset=Dataset.from_dict(columns),
    )


def test_obs_runs_a_whole_training(tmp_path: Path) -> None:
    trainer = make_trainer(Mended, tmp_path)
    trainer.train(resume_from_checkpoint=False)
    assert trainer.state.global_step == ROWS // BATCH
    encoder = trainer.model.bert.encoder
    shares = [(p == 0).float().mean().item() for p in encoder.parameters() if p.dim() == 2]
    assert shares == pytest.approx([0.9] * 12, abs=0.005)


def test_without_the_workaround_it_stops_at_the_first_mask(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="gradient_state"):
        make_trainer(Trainer, tmp_path).train(resume_from_checkpoint=False)


def test_batches_never_end_and_hold_what_the_model_takes(tmp_path: Path) -> None:
    trainer = make_trainer(Mended, tmp_path, remove_unused_columns=False)
    batches = gradient_batches(trainer)
    for _ in range(ROWS // BATCH + 1):
        positional, inputs, target = next(batches)
        assert (positional, target) == ([], None)
        assert set(inputs) == {"input_ids", "labels"}
        assert inputs["input_ids"].shape == (BATCH, 4)
    assert next(gradient_batches(trainer, {"batch_size": 5}))[1]["labels"].shape == (5,)


def test_training_draws_the_same_numbers_as_without(tmp_path: Path) -> None:
    trainer = make_trainer(Mended, tmp_path)
    torch.manual_seed(1)
    usual = torch.rand(1)
    torch.manual_seed(1)
    next(gradient_batches(trainer))
    assert torch.equal(torch.rand(1), usual)
