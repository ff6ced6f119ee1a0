"""The pruner that asks for gradients of its own, run through SparseML's Trainer."""

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest
import torch
from datasets import Dataset
from sparseml.pytorch.sparsification.pruning import ConstantPruningModifier
from sparseml.pytorch.sparsification.pruning import modifier_pruning_obs as obs
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.utils import GradSampler
from sparseml.transformers.sparsification import Trainer
from sparseml.transformers.sparsification.training_args import TrainingArguments
from transformers import BertConfig, BertForSequenceClassification, default_data_collator

from helpers import compat
from helpers.compat_pruners import (
    GradientBatches,
    MixedBatches,
    add_outer_products_by_elements,
    gradient_batches,
    keep_constant_masks,
    sample_as_in_training,
    select_instead_of_sorting,
)
from helpers.recipes import load_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def test_gradients_of_like_lengths_are_sampled_together(tmp_path: Path) -> None:
    trainer = make_trainer(Mended, tmp_path, group_by_length=True)
    ids = [[1] * (3 if row % 3 else 9) for row in range(ROWS)]
    columns = {"input_ids": ids, "labels": [0] * ROWS, "length": [len(row) for row in ids]}
    trainer.train_dataset = Dataset.from_dict(columns)
    lengths = []

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        lengths.append({len(row["input_ids"]) for row in rows})
        return default_data_collator(rows[:1])

    trainer.data_collator = collate
    batches = gradient_batches(trainer)
    for _ in range(ROWS // BATCH):
        next(batches)
    assert [len(found) for found in lengths].count(2) == 1  # 7 long rows, 13 short ones


def test_each_mask_sees_long_and_short_batches(tmp_path: Path) -> None:
    """Transformers' groups are sorted by length: the first batches of one would be the longest."""
    trainer = make_trainer(Mended, tmp_path, group_by_length=True)
    trainer.train_dataset = Dataset.from_dict({"input_ids": [[1] * n for n in range(1, 129)]})
    mixed = MixedBatches.of(trainer, 2, torch.Generator().manual_seed(0))
    batches = [[len(trainer.train_dataset[row]["input_ids"]) for row in batch] for batch in mixed]
    assert sorted(sum(batches, [])) == list(range(1, 129)), "every row once"
    first, last = (sum(map(sum, batches[part])) for part in (slice(8), slice(-8, None)))
    assert 0.5 < first / last < 2
    grouped = [abs(one - other) for one, other in batches]
    assert median(grouped) <= 8


@pytest.mark.parametrize("bf16", [True, False])
def test_gradients_are_looked_at_in_the_precision_of_training(tmp_path: Path, bf16: bool) -> None:
    sample_as_in_training()
    trainer = make_trainer(Mended, tmp_path)
    network = trainer.model
    kinds = set()
    network.classifier.register_forward_hook(lambda *call: kinds.add(call[-1].dtype))
    batches = GradientBatches(
        gradient_batches(trainer), partial(torch.autocast, "cpu", torch.bfloat16, enabled=bf16)
    )
    sampler = GradSampler(batches, trainer._loss_function)
    for _ in sampler.iter_module_backwards(network, 2):
        kinds.add(torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype)  # what is made of the gradients
        assert {p.grad.dtype for p in network.parameters()} == {torch.float32}
    assert kinds == ({torch.bfloat16, torch.float32} if bf16 else {torch.float32})


@pytest.mark.parametrize("weights", [64, 61])
def test_the_curvature_is_that_of_all_gradients(weights: int) -> None:
    add_outer_products_by_elements()
    torch.manual_seed(0)
    gradients = torch.randn(5, weights)
    fisher = obs.EmpiricalBlockFisherInverse(5, 4, weights, 1e-2, torch.device("cpu"))
    for gradient in gradients:
        fisher.add_grad(gradient)
    padded = torch.nn.functional.pad(gradients, (0, 64 - weights)).view(5, 16, 4)
    curvature = torch.einsum("gbi,gbj->bij", padded, padded) / 5 + 1e-2 * torch.eye(4)
    assert torch.allclose(fisher.f_inv, torch.linalg.inv(curvature), rtol=1e-2, atol=1e-2)


def test_the_curvature_is_made_in_half_the_time() -> None:
    add_outer_products_by_elements()
    ours = obs.EmpiricalBlockFisherInverse.add_grad
    fisher = obs.EmpiricalBlockFisherInverse(64, 16, 384 * 384, 1e-7, torch.device("cpu"))
    gradient = torch.randn(384 * 384)

    def seconds(add: "Callable") -> float:
        start = time.perf_counter()
        add(fisher, gradient)
        return time.perf_counter() - start

    rounds = [(seconds(ours), seconds(ours.__wrapped__)) for _ in range(9)]
    assert median(mine / theirs for mine, theirs in rounds) < 0.5  # a quarter, on two cores


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
