"""The seventeen recipes of the integration, driven through SparseML over all of their epochs.

The BERT is random, narrow and twelve layers deep; the modifiers are the real ones, and the
schedules have their published length with two optimizer steps an epoch.
"""

import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import torch
import transformers
from transformers import BertConfig, BertForQuestionAnswering
from transformers.models.bert.modeling_bert import BertLayer

from helpers import compat, models, recipe_text, structure
from helpers.recipes import Recipe, load_recipe
from helpers.sparsity import quantized_modules, whole_blocks
from helpers.stops import Checkpoint

if TYPE_CHECKING:
    from torch import nn

STEPS = 2
FLAG_LR = 1e-3
LEFT = {12: list(range(12)), 6: [0, 2, 4, 6, 8, 11], 3: [0, 6, 11]}
PRUNED = {
    f"bert-base-{layers}layers_prune{level}"
    for layers in LEFT
    for level in (70, 80, 90, 95)
    if (layers, level) != (12, 70)
}
INT8 = {f"bert-base-{layers}layers_prune_quant{level}" for layers in LEFT for level in (70, 90)}
NAMES = sorted(PRUNED | INT8)
# Those of other levels are the same text but for the level, which a test sees to.
DRIVEN = [name for name in NAMES if name.endswith(("prune80", "prune_quant90"))]
MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
CONFIG = BertConfig(
    hidden_size=32,
    num_hidden_layers=12,
    num_attention_heads=2,
    intermediate_size=64,
    vocab_size=100,
    max_position_embeddings=16,
)


def new_model() -> BertForQuestionAnswering:
    """Return a random 12-layer BERT for question answering whose attention can be quantized."""
    torch.manual_seed(0)
    return compat.make_attention_quantizable(BertForQuestionAnswering(CONFIG))


def random_batch() -> OrderedDict[str, torch.Tensor]:
    """Return inputs of shape [2 questions, 4 tokens]."""
    ids = torch.randint(0, CONFIG.vocab_size, (2, 4))
    return OrderedDict(input_ids=ids, attention_mask=torch.ones_like(ids))


def layers_left(recipe_name: str) -> list[int]:
    """Return the numbers of the layers that a recipe's name promises to keep."""
    return LEFT[int(re.search(r"(\d+)layers", recipe_name)[1])]


def promised(recipe_name: str) -> float:
    """Return the sparsity in a recipe's name, 0 to 1."""
    return int(recipe_name[-2:]) / 100


def matrices(model: "nn.Module") -> dict[str, torch.Tensor]:
    """Return the matrices of the encoder under the names they had before QAT wrapped them."""
    return {
        name.replace(".module.", "."): parameter.detach()
        for name, parameter in model.named_parameters()
        if "encoder.layer" in name and parameter.dim() == 2
    }


def fake_quantizers(model: "nn.Module") -> dict[str, "nn.Module"]:
    """Return the modules that round, by name."""
    kind = torch.ao.quantization.FakeQuantize
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def drive(recipe: Recipe, model: "nn.Module") -> SimpleNamespace:
    """Train by the recipe's own manager; return the steps, and the zeros when pruning was over."""
    manager = recipe.manager()
    # In the Trainer's order: what is dropped is gone before a mask is made for it.
    manager.apply_structure(model, epoch=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=FLAG_LR)
    manager.initialize(model, epoch=0)
    stepper = manager.modify(model, optimizer, steps_per_epoch=STEPS)
    pruned, rows, zeros = list(matrices(model).values()), [], {}
    for step in range(round(recipe.num_epochs * STEPS)):
        answers = torch.randint(0, 4, (2, 2))
        loss = model(**random_batch(), start_positions=answers[0], end_positions=answers[1]).loss
        optimizer.zero_grad()
        loss.backward()
        stepper.step()
        share = sum((p == 0).sum().item() for p in pruned) / sum(p.numel() for p in pruned)
        rate, epoch = optimizer.param_groups[0]["lr"], step / STEPS
        rows.append((epoch, share, rate, len(fake_quantizers(model))))
        if epoch == 20:
            zeros = {name: matrix == 0 for name, matrix in matrices(model).items()}
    manager.finalize(model)
    columns = ["epoch", "sparsity", "learning_rate", "quantizers"]
    steps = pd.DataFrame(rows, columns=columns).set_index("epoch")
    return SimpleNamespace(recipe=recipe, model=model, steps=steps, zeros=zeros)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def driven() -> dict[str, SimpleNamespace]:
    """Return recipes driven to their end: recipe, model, steps, zeros at epoch 20."""
    return {name: drive(load_recipe(name), new_model()) for name in DRIVEN}


def modifier(recipe: Recipe, name: str) -> SimpleNamespace:
    """Return the settings of the only modifier of a kind."""
    (found,) = [m for m in recipe.modifiers if m.name == name]
    return SimpleNamespace(**found.params)


# As published


def test_there_are_the_seventeen() -> None:
    assert len(NAMES) == 17
    others = ("bert-base-12layers_transfer", "bert-base-12layers_transfer_quant")
    found = {name for name in recipe_text.names() if name.startswith("bert-base")}
    assert found == {*NAMES, *others}


@pytest.mark.parametrize("name", NAMES)
def test_published_epochs_are_exact(name: str) -> None:
    """Shares of a float could miss them by a rounding; SparseML's evaluator must not."""
    recipe = load_recipe(name)
    pruning = modifier(recipe, "GMPruningModifier")
    assert (pruning.start_epoch, pruning.end_epoch) == (2.0, 20.0)
    assert pruning.update_frequency == 0.01
    assert (pruning.init_sparsity, pruning.final_sparsity) == (0.0, promised(name))
    assert (pruning.inter_func, pruning.leave_enabled) == ("cubic", True)
    assert pruning.mask_type == ([1, 4] if name in INT8 else "unstructured")
    assert recipe.num_epochs == (40.0 if name in INT8 else 30.0)


@pytest.mark.parametrize("name", sorted(INT8))
def test_published_int8_epochs_and_learning_rates_are_exact(name: str) -> None:
    recipe = load_recipe(name)
    int8 = modifier(recipe, "QuantizationModifier")
    assert int8.start_epoch == 30.0
    assert int8.disable_quantization_observer_epoch == int8.freeze_bn_stats_epoch == 35.0
    lines = [m for m in recipe.modifiers if m.name == "LearningRateFunctionModifier"]
    corners = [(m.start_epoch, m.end_epoch, m.params["init_lr"]) for m in lines]
    assert corners == [(0.0, 30.0, 5e-5), (30.0, 40.0, 5e-5)]
    assert {(m.params["lr_func"], m.params["final_lr"]) for m in lines} == {("linear", 0.0)}


def test_recipes_of_a_kind_differ_in_level_and_layers_only() -> None:
    for names in (PRUNED, INT8):
        rest = set()
        for name in names:
            text = re.sub(r"#.*", "", load_recipe(name).text)
            text = re.sub(r"(?s)structure_modifiers:.*?(?=pruning_modifiers:)", "", text)
            rest.add(re.sub(r"final_sparsity: 0[.]\d+", "", text))
        assert len(rest) == 1


# Driven


@pytest.mark.parametrize("name", DRIVEN)
def test_layers_left(driven: dict, name: str) -> None:
    encoder = driven[name].model.bert.encoder
    left = [i for i, layer in enumerate(encoder.layer) if isinstance(layer, BertLayer)]
    assert left == layers_left(name)
    in_state = {int(re.search(r"layer\.(\d+)", key)[1]) for key in encoder.state_dict()}
    assert sorted(in_state) == left


@pytest.mark.parametrize("name", DRIVEN)
def test_every_matrix_has_the_promised_zeros(driven: dict, name: str) -> None:
    found = matrices(driven[name].model)
    assert set(found) == {
        f"bert.encoder.layer.{i}.{matrix}.weight" for i in layers_left(name) for matrix in MATRICES
    }
    for parameter, weights in found.items():
        share = (weights == 0).float().mean().item()
        assert share == pytest.approx(promised(name), abs=0.005), parameter
        assert whole_blocks(weights.numpy()) == (name in INT8), parameter
    assert (driven[name].model.state_dict()[head(name)] == 0).sum() == 0


def head(name: str) -> str:
    """Return the key of the head's weights, which QAT wraps."""
    return "qa_outputs.module.weight" if name in INT8 else "qa_outputs.weight"


@pytest.mark.parametrize("name", DRIVEN)
def test_zeros_rise_from_epoch_2_to_20_and_stay_where_they_are(driven: dict, name: str) -> None:
    run = driven[name]
    share = run.steps.sparsity
    assert share[:1.5].max() == 0
    assert share[11.0] == pytest.approx(promised(name) * (1 - 0.5**3), abs=0.005)
    assert share[14.0] < share[20.0]
    assert share[20.0:].nunique() == 1
    for parameter, weights in matrices(run.model).items():
        assert torch.equal(weights == 0, run.zeros[parameter]), parameter


@pytest.mark.parametrize("name", sorted(INT8 & {*DRIVEN}))
def test_what_is_int8(driven: dict, name: str) -> None:
    model, layers = driven[name].model, len(layers_left(name))
    table = quantized_modules(model)
    weights = set(table.module[table.kind != "MatMul"])
    embeddings = {f"bert.embeddings.{k}_embeddings" for k in ("word", "position", "token_type")}
    encoder = {parameter.removesuffix(".weight") for parameter in matrices(model)}
    assert weights == embeddings | encoder | {"qa_outputs"}
    assert (table.kind == "MatMul").sum() == 2 * layers
    quantizers = fake_quantizers(model)
    # Besides the weights: an input of every Linear, two inputs and one output of every MatMul.
    assert len(quantizers) - len(weights) == (6 * layers + 1) + 3 * 2 * layers
    assert {int(module.observer_enabled) for module in quantizers.values()} == {0}
    assert driven[name].steps.quantizers[:29.5].max() == 0
    assert driven[name].steps.quantizers[30.0:].min() == len(quantizers)


@pytest.mark.parametrize("name", sorted(INT8 & {*DRIVEN}))
def test_learning_rate_falls_twice(driven: dict, name: str) -> None:
    rate = driven[name].steps.learning_rate
    assert rate[[0.0, 15.0, 29.5]].tolist() == pytest.approx([5e-5, 2.5e-5, 5e-5 / 60])
    assert rate[[30.0, 35.0, 39.5]].tolist() == pytest.approx([5e-5, 2.5e-5, 5e-5 / 20])


@pytest.mark.parametrize("name", sorted(PRUNED & {*DRIVEN}))
def test_learning_rate_is_left_to_the_flags(driven: dict, name: str) -> None:
    assert not load_recipe(name).manager().learning_rate_modifiers
    assert set(driven[name].steps.learning_rate) == {FLAG_LR}


# Layers that are gone


@pytest.mark.parametrize("head", models.HEADS)
@pytest.mark.parametrize("name", ["bert-base-6layers_prune80", "bert-base-3layers_prune_quant90"])
def test_layer_names_fit_every_head(name: str, head: str) -> None:
    model = getattr(transformers, f"BertFor{head}")(CONFIG)
    load_recipe(name).manager().apply_structure(model, epoch=0)
    assert sum(isinstance(layer, BertLayer) for layer in model.bert.encoder.layer) == len(
        layers_left(name)
    )
    assert model(**random_batch())[0].isfinite().all()


@pytest.mark.parametrize("name", ["bert-base-6layers_prune80", "bert-base-3layers_prune_quant90"])
def test_checkpoint_with_dropped_layers_reloads_the_same(
    driven: dict, name: str, tmp_path: Path
) -> None:
    run = driven[name]
    models.save_model(run.model, tmp_path, quantized=run.recipe.has_quantization)
    structure.write_recipe(None, run.recipe.text, tmp_path / "recipe.yaml")
    reloaded = models.load_model(Checkpoint(tmp_path, {}))
    assert sum(isinstance(layer, BertLayer) for layer in reloaded.bert.encoder.layer) == len(
        layers_left(name)
    )
    batch = random_batch()
    with torch.no_grad():
        trained, stored = run.model.eval()(**batch), reloaded(**batch)
    assert torch.allclose(trained.start_logits, stored.start_logits, atol=1e-6)
    assert torch.allclose(trained.end_logits, stored.end_logits, atol=1e-6)


def test_transformers_alone_would_fill_the_gaps(driven: dict, tmp_path: Path) -> None:
    """Why the recipe must lie beside the weights, and why loading is strict."""
    run = driven["bert-base-6layers_prune80"]
    models.save_model(run.model, tmp_path, quantized=False)
    model, info = BertForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert {int(re.search(r"layer\.(\d+)", key)[1]) for key in info["missing_keys"]} == {
        1, 3, 5, 7, 9, 10
    }  # fmt: skip
    batch = random_batch()
    with torch.no_grad():
        answers = model.eval()(**batch).start_logits, run.model.eval()(**batch).start_logits
    assert not torch.allclose(*answers, atol=1e-3)


# The index


def test_index_says_which_layers_are_left() -> None:
    text = (recipe_text.RECIPES / "README.md").read_text()
    rows = [
        line.strip("| ").split(" | ")
        for line in text.splitlines()
        if re.match(r"\| \[bert-base\S+prune", line)
    ]
    found = {re.match(r"\[(.+?)\]", row[0])[1]: int(row[7]) for row in rows}
    assert found == {name: len(layers_left(name)) for name in NAMES}
