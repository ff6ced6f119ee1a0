"""The pruner that asks for gradients of its own, run through SparseML's Trainer."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from datasets import Dataset
from sparseml.pytorch.sparsification.pruning import ConstantPruningModifier
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.transformers.sparsification import Trainer
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import BertConfig, BertForSequenceClassification

from helpers import compat
from helpers.compat_pruners import (
    gradient_batches,
    keep_constant_masks,
    select_instead_of_sorting,
)
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


def stepped(recipe: str, start: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """Return the weights after 40 steps by a recipe with gradients that are always the same."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(**sizes, num_hidden_layers=2, vocab_size=100)
    network = BertForSequenceClassification(config)
    network.load_state_dict(start or network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    manager = load_recipe(recipe, num_epochs=2).manager()
    manager.initialize(network, epoch=0)
    stepper = manager.modify(network, optimizer, steps_per_epoch=20)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    for _ in range(40):
        stepper.step()
    return network.state_dict()


def test_selecting_gives_the_masks_that_sorting_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMORY_BOUNDED", raising=False)
    by_sorting = stepped("minilm-6layers_prune80")
    select_instead_of_sorting()
    sort = torch.sort
    asked: list[int] = []
    monkeypatch.setattr(torch, "sort", lambda *a, **k: asked.append(1) or sort(*a, **k))
    by_selecting = stepped("minilm-6layers_prune80")
    assert all(torch.equal(by_sorting[name], by_selecting[name]) for name in by_sorting)
    assert asked == [], "nothing is sorted any more"


def test_constant_masks_are_made_once_and_hold_every_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pruned = stepped("minilm-6layers_prune80")
    with monkeypatch.context() as as_it_was:
        mended = ConstantPruningModifier.check_mask_update
        as_it_was.setattr(
            ConstantPruningModifier, "check_mask_update", getattr(mended, "__wrapped__", mended)
        )
        before, made_before = counted(as_it_was, pruned)
    keep_constant_masks()
    after, made = counted(monkeypatch, pruned)
    assert (made_before, made) == (40, 1)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, weight in pruned.items():
        if "encoder.layer" in name and weight.dim() == 2:
            assert bool((after[name][weight == 0] == 0).all())


def counted(
    patch: pytest.MonkeyPatch, start: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], int]:
    """Return the weights after a transfer, and how often its masks were made."""
    calls: list[int] = []
    make = ModuleParamPruningMask.update_param_masks

    def count(masks: ModuleParamPruningMask, *args: object, **options: object) -> object:
        calls.append(1)
        return make(masks, *args, **options)

    patch.setattr(ModuleParamPruningMask, "update_param_masks", count)
    found = stepped("minilm-6layers_transfer", start)
    patch.setattr(ModuleParamPruningMask, "update_param_masks", make)
    return found, len(calls)
