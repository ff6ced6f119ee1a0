"""Recipes: refused when they are bad, and driven through SparseML to see that they keep their word.

The models are random and tiny, the modifiers are the real ones over the whole schedule.
"""

import ast
import math
import re
from collections import Counter, OrderedDict
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import torch
import yaml
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)
from transformers.models.bert.modeling_bert import BertLayer

import helpers
from helpers import compat, recipe_findings, recipe_text, recipes
from helpers.compat_distillation import mend_hidden_states
from helpers.encoder import Encoder
from helpers.errors import UserError
from helpers.recipes import already_sparse, check_against, load_recipe, with_distillation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from helpers.compat_pruners import Sample

STEPS = 10
LAYERS, MATRICES = 6, 36
NAMES = recipe_text.names()
# Those of the integration have twelve layers, and a file of their own: test_recipes_integration.
MINILM = [name for name in NAMES if name.startswith("minilm")]
PRUNING = [name for name in MINILM if not re.search("layers_quant|transfer", name)]
INT8 = [name for name in MINILM if "quant" in name]
DRAWN = [*MINILM, "bert-base-12layers_prune80", "bert-base-6layers_prune_quant90"]
# Those that drop no layer.
WHOLE = [name for name in NAMES if name.startswith(("minilm-6", "bert-base-12"))]
# The more gradients, the better the choice; how many are zeroed does not depend on it.
FEW_GRADIENTS = dict.fromkeys(
    ("minilm-6layers_obs90", "minilm-6layers_obs80_states"), {"num_grads": 4}
)
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 32,
}
MINIMAL = """
num_epochs: 2.0
modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
"""
PRUNE_TEN = """
  - !GMPruningModifier
      start_epoch: 0.0
      end_epoch: 10.0
      update_frequency: 0.1
      init_sparsity: 0.0
      final_sparsity: 0.5
      params: ['re:.*query[.]weight']
"""


def new_model(seed: int = 0) -> BertForSequenceClassification:
    """Return a random 6-layer BERT classifier whose attention can be quantized."""
    torch.manual_seed(seed)
    model = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3))
    return compat.make_attention_quantizable(model)


def new_encoder(seed: int = 0) -> Encoder:
    """Return the same without a head: what is pruned upstream, and who teaches it."""
    torch.manual_seed(seed)
    return compat.make_attention_quantizable(Encoder(BertConfig(**SIZES)))


def random_labels(model: "nn.Module") -> torch.Tensor:
    """Return labels for `random_batch`: classes, or for an encoder what it is to answer."""
    if isinstance(model, Encoder):
        return torch.randn(4, SIZES["hidden_size"])
    return torch.randint(0, 3, (4,))


def random_batch() -> OrderedDict[str, torch.Tensor]:
    """Return inputs of shape [4 sentences, 8 tokens]."""
    ids = torch.randint(0, SIZES["vocab_size"], (4, 8))
    return OrderedDict(
        input_ids=ids, attention_mask=torch.ones_like(ids), token_type_ids=torch.zeros_like(ids)
    )


def gradient_samples(options: dict | None) -> "Iterator[Sample]":
    """Yield what the Trainer gives to a pruner that asks for gradients of its own."""
    while True:
        yield [], {**random_batch(), "labels": torch.randint(0, 3, (4,))}, None


def drive(
    recipe: recipes.Recipe,
    model: "nn.Module",
    teacher: "nn.Module | None" = None,
    batches: "Callable[[dict | None], Iterator[Sample]]" = gradient_samples,
) -> pd.DataFrame:
    """Train `model` by the recipe's own manager; return one row a step, taken after the step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = []
    manager = recipe.manager()
    # In the Trainer's order: what is dropped is gone before a mask is made for it.
    manager.apply_structure(model, epoch=0)
    manager.initialize(
        model,
        epoch=0,
        distillation_teacher=teacher or "disable",
        grad_sampler={
            "data_loader_builder": batches,
            "loss_function": lambda outputs, _: outputs.loss,
        },
    )
    matrices = [p for n, p in model.named_parameters() if "encoder" in n and p.dim() == 2]
    stepper = manager.modify(model, optimizer, steps_per_epoch=STEPS)
    for step in range(round(recipe.num_epochs * STEPS)):
        batch = random_batch()
        outputs = model(**batch, labels=random_labels(model))
        loss = manager.loss_update(
            outputs.loss, model, optimizer, step / STEPS, STEPS,
            student_outputs=outputs, student_inputs=batch,
        )  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        stepper.step()
        rate = optimizer.param_groups[0]["lr"]
        zeros = sum((p == 0).sum().item() for p in matrices) / sum(p.numel() for p in matrices)
        rows.append((step / STEPS, zeros, rate, len(fake_quantizers(model)), loss.item()))
    manager.finalize(model)
    return pd.DataFrame(rows, columns=["epoch", "sparsity", "learning_rate", "quantizers", "loss"])


def fake_quantizers(model: "nn.Module") -> dict[str, "nn.Module"]:
    """Return the modules that round, by name."""
    kind = torch.ao.quantization.FakeQuantize
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def driven() -> dict[str, SimpleNamespace]:
    """Return every recipe driven to its end: recipe, model, what matched, and the steps."""
    runs = {}
    mend_hidden_states()
    for name in MINILM:
        new = new_encoder if "upstream" in name else new_model
        recipe, model = load_recipe(name, **FEW_GRADIENTS.get(name, {})), new()
        matched = check_against(recipe, model)
        teacher = new(seed=1) if recipe.declares_distillation else None
        steps = drive(recipe, model, teacher)
        left = {
            pattern: [parameter for parameter in parameters if parameter in weights(model)]
            for pattern, parameters in matched.items()
        }
        layers = sum(isinstance(layer, BertLayer) for layer in model.modules())
        runs[name] = SimpleNamespace(
            recipe=recipe, model=model, matched=left, steps=steps, layers=layers
        )
    return runs


def weights(model: "nn.Module") -> dict[str, torch.Tensor]:
    """Return the model's matrices under the names they had before QAT wrapped their layers."""
    return {n.replace(".module.", "."): p.detach() for n, p in model.named_parameters()}


# The recipes that come with the project


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_commented(name: str) -> None:
    text = load_recipe(name).text
    bare = [line for line in text.splitlines() if ":" in line and "#" not in line]
    assert [line for line in bare if not line.endswith("modifiers:")] == []


@pytest.mark.parametrize("name", NAMES)
def test_num_epochs_alone_rescales_the_schedule(name: str) -> None:
    usual = load_recipe(name)
    double = load_recipe(name, num_epochs=2 * usual.num_epochs)
    assert double.num_epochs == 2 * usual.num_epochs
    for short, long in zip(usual.modifiers, double.modifiers, strict=True):
        for key, epoch in short.epochs().items():
            assert long.epochs()[key] == pytest.approx(2 * epoch), (short.name, key)


@pytest.mark.parametrize("name", NAMES)
def test_every_epoch_is_a_share_of_num_epochs(name: str) -> None:
    epochs = re.findall(r"^\s+\w*_?(?:epoch|frequency): (\S.*?)\s+#", load_recipe(name).text, re.M)
    assert epochs
    assert {e for e in epochs if not re.match(r"eval\(num_epochs.*\)$", e)} <= {"0.0", "-1.0"}


@pytest.mark.parametrize("name", PRUNING)
def test_pruning_reaches_exactly_what_is_promised(driven: dict, name: str) -> None:
    run = driven[name]
    found = weights(run.model)
    shares = {}
    for pattern, target in run.recipe.pruning_targets().items():
        for parameter in run.matched[pattern]:
            share = shares[parameter] = (found[parameter] == 0).float().mean().item()
            near = share == pytest.approx(target.final_sparsity, abs=0.005)
            assert near or not target.per_matrix, parameter
    assert len(shares) == 6 * run.layers
    assert run.steps.sparsity.iloc[-1] == pytest.approx(target.final_sparsity, abs=0.005)
    others = set(found) & {"classifier.weight", "pooler.dense.weight", "bert.pooler.dense.weight"}
    assert others and all((found[name] == 0).sum() == 0 for name in others)


def test_global_pruning_shares_the_zeros_out(driven: dict) -> None:
    run = driven["minilm-6layers_global80"]
    assert {target.per_matrix for target in run.recipe.pruning_targets().values()} == {False}
    found = weights(run.model)
    shares = [(found[p] == 0).float().mean() for names in run.matched.values() for p in names]
    assert max(shares) - min(shares) > 0.005


@pytest.mark.parametrize("name", MINILM)
def test_layers_left(driven: dict, name: str) -> None:
    assert driven[name].layers == int(re.match(r"minilm-(\d)layers", name)[1])


def survivors(name: str) -> torch.Tensor:
    """Return which weights of one matrix a recipe leaves, on always the same model and batches."""
    recipe = load_recipe(name, num_epochs=1, **FEW_GRADIENTS.get(name, {}))
    model = new_model()
    drive(recipe, model)
    return weights(model)["bert.encoder.layer.0.intermediate.dense.weight"] != 0


@pytest.mark.parametrize(
    ("name", "by_size"),
    [
        ("minilm-6layers_movement80", "minilm-6layers_prune80"),
        ("minilm-6layers_obs90", "minilm-6layers_prune90"),
    ],
)
def test_stronger_pruners_choose_by_more_than_size(name: str, by_size: str) -> None:
    usual = survivors(by_size)
    assert torch.equal(survivors(by_size), usual)
    assert (survivors(name) & ~usual).sum() > 0.03 * usual.sum()


def test_obs_takes_its_gradients_from_the_data_for_each_of_six_masks() -> None:
    asked = []

    def counted(options: dict | None) -> "Iterator[Sample]":
        for sample in gradient_samples(options):
            asked.append(sample)
            yield sample

    drive(load_recipe("minilm-6layers_obs90", num_grads=3), new_model(), batches=counted)
    assert len(asked) == 6 * 3


@pytest.mark.parametrize("name", PRUNING)
def test_four_block_zeros_come_in_fours_and_others_do_not(driven: dict, name: str) -> None:
    run = driven[name]
    block = {target.mask_type for target in run.recipe.pruning_targets().values()} == {"[1, 4]"}
    for parameters in run.matched.values():
        for parameter in parameters:
            zeros = (weights(run.model)[parameter] == 0).reshape(-1, 4)
            whole = (zeros.all(dim=1) | ~zeros.any(dim=1)).all().item()
            assert whole == block, parameter


def test_one_variable_makes_the_zeros_come_in_fours() -> None:
    recipe, model = load_recipe("minilm-6layers_prune90", mask_type="block4"), new_model()
    assert all(target.in_blocks for target in recipe.pruning_targets().values())
    matched = check_against(recipe, model)
    drive(recipe, model)
    for parameter in chain.from_iterable(matched.values()):
        zeros = (weights(model)[parameter] == 0).reshape(-1, 4)
        assert zeros.all(dim=1).any() and (zeros.all(dim=1) | ~zeros.any(dim=1)).all(), parameter


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("block5", "Unknown mask_type"),
        ("[1, 5]", "must divide"),
        ("[0, 4]", "zero"),
        ("'2:4'", "sparsity"),
    ],
)
def test_zeros_in_a_shape_that_does_not_fit_are_refused(
    written: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.md"
    text = recipe_text.find_recipe("minilm-6layers_prune80").read_text()
    file.write_text(text.replace("mask_type: unstructured", f"mask_type: {written}"))
    recipe, model = load_recipe(file), new_model()
    with pytest.raises(UserError, match=reason) as refused:
        check_against(recipe, model)
    assert "Write unstructured or block4" in str(refused.value)
    assert recipe_findings.model_findings(recipe, model) == [str(refused.value)]


def test_a_pattern_is_held_to_tied_weights_too(tmp_path: Path) -> None:
    text = recipe_text.find_recipe("minilm-6layers_upstream80_block4").read_text()
    head, marker, rest = text.partition("  - !GMPruning")
    settings, _, _ = rest.partition("      params:")
    file = tmp_path / "all.md"
    file.write_text(f"{head}{marker}{settings}      params: __ALL_PRUNABLE__\n---\n")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = BertConfig(vocab_size=64, num_hidden_layers=2, **sizes)
    matched = check_against(load_recipe(file), BertForMaskedLM(config))
    assert "cls.predictions.decoder.weight" in matched["__ALL_PRUNABLE__"]


def test_nothing_is_promised_of_layers_that_go(tmp_path: Path) -> None:
    text = recipe_text.find_recipe("minilm-3layers_prune80").read_text()
    file = tmp_path / "all.md"
    file.write_text(f"{text.partition('      params:')[0]}      params: __ALL_PRUNABLE__\n---\n")
    found = check_against(load_recipe(file), new_model())["__ALL_PRUNABLE__"]
    assert any(".layer.0." in name for name in found)
    assert not any(".layer.1." in name for name in found)


@pytest.mark.parametrize("name", INT8)
def test_int8_is_where_the_export_folds_it(driven: dict, name: str) -> None:
    names = fake_quantizers(driven[name].model)
    layers = driven[name].layers
    # Six matrices a layer, pooler and head: input and weight each; embeddings: weight only.
    assert sum(n.endswith("quant.activation_post_process") for n in names) == 6 * layers + 2
    assert sum(n.endswith("weight_fake_quant") for n in names) == 6 * layers + 2 + 3
    # Two products of attention a layer, two inputs and one output each.
    assert sum("_matmul." in n for n in names) == layers * 2 * 3
    assert len(names) == {6: 115, 3: 61}[layers]
    assert not [n for n in names if "LayerNorm" in n]


@pytest.mark.parametrize("name", INT8)
def test_int8_ranges_are_fixed_in_the_end(driven: dict, name: str) -> None:
    quantizers = fake_quantizers(driven[name].model).values()
    assert {int(module.observer_enabled) for module in quantizers} == {0}
    assert {int(module.fake_quant_enabled) for module in quantizers} == {1}


@pytest.mark.parametrize("name", MINILM)
def test_preview_is_what_happens(driven: dict, name: str) -> None:
    from helpers.recipe_preview import learning_rate_at, sparsity_at

    recipe, steps = driven[name].recipe, driven[name].steps
    between = [m.params["update_frequency"] for m in recipe.modifiers if m.prunes]
    late = max(between, default=0) + 1.01 / STEPS
    for row in steps.itertuples():
        assert row.learning_rate == pytest.approx(learning_rate_at(recipe, row.epoch), abs=1e-9)
        # The masks follow the curve in steps, each at the level of its own epoch.
        assert sparsity_at(recipe, row.epoch - late) - 0.01 <= row.sparsity
        assert row.sparsity <= sparsity_at(recipe, row.epoch) + 0.01
    first = steps[steps.quantizers > 0].epoch.min()
    if recipe.has_quantization:
        assert first == pytest.approx(recipe.quantization_start, abs=1.01 / STEPS)
    else:
        assert pd.isna(first)


def test_learning_rate_corners(driven: dict) -> None:
    rate = driven["minilm-6layers_prune80_quant"].steps.set_index("epoch").learning_rate
    assert rate[0.0] == pytest.approx(4e-4)
    assert rate[2.9] == pytest.approx(4e-4 * 0.1 / 3.0)
    assert rate[3.0] == pytest.approx(2e-4)
    assert rate[3.9] == pytest.approx(2e-4 * 0.1 / 1.0)
    pruning = driven["minilm-6layers_prune80"].steps.learning_rate
    assert (pruning.iloc[0], pruning.iloc[-1]) == pytest.approx((4e-4, 4e-4 / 40))


def test_quantizing_a_pruned_model_keeps_every_zero() -> None:
    model = new_model()
    chosen = [n for n, p in model.named_parameters() if "encoder" in n and p.dim() == 2]
    with torch.no_grad():
        for parameter in chosen:
            weights(model)[parameter].mul_(torch.rand(weights(model)[parameter].shape) > 0.8)
    before = {name: weights(model)[name] == 0 for name in chosen}
    assert set(already_sparse(model)) == set(chosen)
    drive(load_recipe("minilm-6layers_quant"), model)
    assert len(chosen) == MATRICES
    assert len(fake_quantizers(model)) == 115
    for name in chosen:
        assert torch.equal(weights(model)[name] == 0, before[name]), name


def test_quantizing_a_dense_model_makes_no_zeros(driven: dict) -> None:
    assert already_sparse(driven["minilm-6layers_quant"].model) == []
    assert driven["minilm-6layers_quant"].steps.sparsity.max() == 0


def test_export_has_fifty_int8_products(driven: dict, tmp_path: Path) -> None:
    import onnx
    from sparseml.pytorch.utils import ModuleExporter

    model = driven["minilm-6layers_prune80_quant"].model.eval()
    batch = random_batch()
    ModuleExporter(model, str(tmp_path)).export_onnx(
        batch, convert_qat=True, input_names=list(batch), output_names=["logits"], dynamo=False
    )
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    counts = Counter(node.op_type for node in graph.node)
    assert counts["MatMulInteger"] == 50
    assert counts["MatMul"] + counts["Gemm"] == 0
    tables = [t for t in graph.initializer if "embeddings.weight_quant" in t.name]
    assert {t.data_type for t in tables} == {onnx.TensorProto.UINT8}
    assert len(tables) == 3


def test_declared_distillation_changes_the_loss(driven: dict) -> None:
    recipe = driven["minilm-6layers_prune80_quant_distill"].recipe
    short = load_recipe(recipe.path, num_epochs=0.5, distill_hardness=1.0)
    # A model that is its own teacher has nothing to learn: hardness 1 leaves no label loss.
    own = drive(short, new_model().eval(), teacher=new_model())
    other = drive(short, new_model().eval(), teacher=new_model(seed=1))
    assert own.loss[0] == pytest.approx(0, abs=1e-6)
    assert other.loss[0] > 1e-6


@pytest.mark.parametrize("name", [name for name in WHOLE if not load_recipe(name).compares_states])
def test_patterns_fit_other_heads_and_prefixes(name: str) -> None:
    recipe = load_recipe(name)
    roberta = RobertaForSequenceClassification(RobertaConfig(**SIZES))
    for model in (BertForQuestionAnswering(BertConfig(**SIZES)), roberta, new_model().bert):
        matched = check_against(recipe, model)
        assert sum(map(len, matched.values())) == MATRICES
        assert len({p for names in matched.values() for p in names}) == MATRICES


def test_hidden_states_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match=r"no module embeddings.LayerNorm to compare.*bert.encoder"):
        check_against(load_recipe("minilm-6layers_upstream80"), new_model())


def test_hidden_states_are_let_go_after_the_loss() -> None:
    mend_hidden_states()
    student, teacher, batch = new_encoder(), new_encoder(seed=1).eval(), random_batch()
    manager = load_recipe("minilm-6layers_upstream80").manager()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    manager.initialize(student, epoch=0, distillation_teacher=teacher)
    outputs = student(**batch, labels=random_labels(student))
    (comparing,) = (m for m in manager.iter_modifiers() if "PerLayer" in type(m).__name__)
    assert len(comparing._cached_student_output) == 7
    both = {"student_outputs": outputs, "student_inputs": batch, "teacher_inputs": batch}
    loss = manager.loss_update(outputs.loss, student, optimizer, 0.0, STEPS, **both)
    assert loss > outputs.loss, "the states have been compared"
    assert comparing._cached_student_output == comparing._cached_teacher_output == {}
    assert len(optimizer.param_groups) == 1
    loss.backward()


def test_projected_hidden_states_are_refused(tmp_path: Path) -> None:
    text = load_recipe("minilm-6layers_upstream80").text.replace(
        "project_features: false", "project_features: true"
    )
    with pytest.raises(UserError, match="project_features is true.*Set it to false"):
        check_against(load_recipe(write(tmp_path, text)), new_encoder())


# Loading and overriding


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    """Write a recipe a reader might have written."""
    file = folder / name
    file.write_text(text)
    return file


def test_load_by_name_with_suffix_and_by_path(tmp_path: Path) -> None:
    by_name = load_recipe("minilm-6layers_prune80")
    assert load_recipe("minilm-6layers_prune80.md") == by_name
    assert load_recipe(by_name.path) == by_name
    assert by_name.name == "minilm-6layers_prune80"
    for suffix in ("yaml", "yml"):
        copy = load_recipe(write(tmp_path, by_name.text, f"copy.{suffix}"))
        assert (copy.sha256, copy.modifiers) == (by_name.sha256, by_name.modifiers)


def test_overrides_change_values_and_keep_comments() -> None:
    usual = load_recipe("minilm-6layers_prune80")
    other = load_recipe("minilm-6layers_prune80", num_epochs=1, final_sparsity="0.5", init_lr=3e-5)
    assert other.variables == {
        **usual.variables,
        "num_epochs": 1,
        "final_sparsity": 0.5,
        "init_lr": 3e-5,
    }
    assert {t.final_sparsity for t in other.pruning_targets().values()} == {0.5}
    assert other.sha256 != usual.sha256
    assert len(other.text.splitlines()) == len(usual.text.splitlines())
    assert "num_epochs: 1.0  # length of the whole run" in other.text
    assert usual.manager(num_epochs=1).max_epochs == 1


def test_whole_number_is_written_as_a_float_where_one_stood() -> None:
    """SparseML takes an int sparsity for a mapping and fails at the first step."""
    assert "init_sparsity: 0.0 " in load_recipe("minilm-6layers_prune80", init_sparsity=0).text


def test_true_or_false_stays_one(tmp_path: Path) -> None:
    file = write(tmp_path, f"rounded: true\n{MINIMAL}")
    for word in ("false", "False", False):
        assert load_recipe(file, rounded=word).variables["rounded"] is False
    for other in ("abc", 1, "eval(1)"):
        with pytest.raises(UserError, match="Expected true or false, as true is"):
            load_recipe(file, rounded=other)


def test_unquoted_exponent_of_yaml_is_a_number_after_an_override() -> None:
    assert load_recipe("minilm-6layers_quant", init_lr="5e-5").variables["init_lr"] == 5e-5


def test_yaml_may_start_with_a_document_line(tmp_path: Path) -> None:
    text = "---\n" + MINIMAL + "# a comment --- with dashes\n"
    assert load_recipe(write(tmp_path, text)).num_epochs == 2


@pytest.mark.parametrize(
    ("name", "last"),
    [("prune80", 2.4), ("quant", 1.6), ("prune80_quant", 3.52), ("prune90_quant", 3.52)],
)
def test_last_event(name: str, last: float) -> None:
    assert load_recipe(f"minilm-6layers_{name}").last_event_epoch == pytest.approx(last)


def test_facts_of_a_recipe() -> None:
    recipe = load_recipe("minilm-6layers_prune90_quant")
    assert recipe.has_quantization and not recipe.declares_distillation and not recipe.keeps_zeros
    assert recipe.quantization_start == pytest.approx(3.0)
    assert set(recipe.pruning_targets().values()) == {recipes.PruningTarget(0.9, "[1, 4]", True)}
    quant = load_recipe("minilm-6layers_quant")
    assert quant.keeps_zeros and quant.pruning_targets() == {}


def test_explain_has_a_sentence_for_every_modifier() -> None:
    for name in NAMES:
        recipe = load_recipe(name)
        table = recipe.explain()
        assert list(table.columns) == ["modifier", "what", "epochs", "settings", "why"]
        assert len(table) == len(recipe.modifiers)
        assert table.modifier[0] == "EpochRangeModifier"
        assert table.why.str.len().min() > 10


def test_schedule_has_the_asked_points() -> None:
    table = load_recipe("minilm-6layers_prune80_quant").schedule(5)
    assert table.epoch.tolist() == [0, 1, 2, 3, 4]
    assert table.quantized.tolist() == [0, 0, 0, 1, 1]
    assert table.sparsity.iloc[-1] == pytest.approx(0.8)


@pytest.mark.parametrize("name", DRAWN)
def test_schedule_is_drawn(name: str) -> None:
    from helpers.schedule_plot import schedule

    recipe = load_recipe(name)
    figure = schedule(recipe)
    figure.canvas.draw()
    zeros, rate, int8 = figure.axes
    assert (zeros.get_ylabel(), rate.get_ylabel()) == ("zeros (%)", "learning rate")
    assert int8.get_xlabel() == "epoch"
    assert int8.get_xlim() == (0, recipe.num_epochs)
    assert bool(int8.patches) == recipe.has_quantization


# Distillation: flags or recipe, never both


def test_flags_add_distillation_once() -> None:
    recipe = load_recipe("minilm-6layers_prune80")
    taught = with_distillation(recipe, hardness=0.7, temperature=5)
    added = taught.modifiers[-1] if taught.declares_distillation else None
    found = next(m for m in taught.modifiers if m.name == "DistillationModifier")
    assert added is not None
    assert (found.params["hardness"], found.params["temperature"]) == (0.7, 5)
    assert found.params["distill_output_keys"] == ["logits"]
    assert taught.sha256 != recipe.sha256
    with pytest.raises(UserError, match="Expected one of them"):
        with_distillation(taught, 1.0, 2.0)
    with pytest.raises(UserError, match="Expected one of them"):
        with_distillation(load_recipe("minilm-6layers_prune80_quant_distill"), 1.0, 2.0)


def test_stages_are_not_lost_to_a_teacher_by_flags(tmp_path: Path) -> None:
    """SparseML reads only the lists at the top of a recipe that has any."""
    text = "num_epochs: 2.0\n" + MINIMAL.replace("modifiers:", "stage:\n  modifiers:").replace(
        "\n  - ", "\n    - "
    ).replace("\n      ", "\n        ")
    staged = load_recipe(write(tmp_path, text))
    assert [m.name for m in staged.modifiers] == ["EpochRangeModifier"]
    with pytest.raises(UserError, match=r"has stages, where.*Write a DistillationModifier"):
        with_distillation(staged)


@pytest.mark.parametrize(
    ("hardness", "temperature"), [(1.1, 2), (-0.1, 2), (1, 0), (1, float("inf"))]
)
def test_flags_out_of_range(hardness: float, temperature: float) -> None:
    with pytest.raises(UserError, match="hardness"):
        with_distillation(load_recipe("minilm-6layers_prune80"), hardness, temperature)


# Bad input


def test_zoo_stub_names_what_is_there_instead() -> None:
    with pytest.raises(UserError, match=r"minilm-6layers_prune80.*huggingface\.co/neuralmagic"):
        load_recipe("zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90-none")


def test_missing_recipe_names_near_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Near: .*minilm-6layers_prune80"):
        load_recipe("minilm-6layer_prune80")
    with pytest.raises(UserError, match="No recipe"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("file_name", "text", "said"),
    [
        ("a.yaml", "a: [1\nb: }", "is not YAML"),
        ("a.yaml", "just words", "is not a recipe"),
        ("a.yaml", "", "is not a recipe"),
        ("a.yaml", "num_epochs: 2", "any modifiers"),
        ("a.md", "# no front matter\n", "front matter"),
        ("a.txt", MINIMAL, "is no recipe"),
        (
            "a.yaml",
            MINIMAL.replace("!EpochRange", "!EpochRanges"),
            "unknown modifier.*EpochRangeModifier",
        ),
        ("a.yaml", MINIMAL + "      colour: red\n", "colour"),
        ("a.yaml", MINIMAL.replace("(num_epochs)", "(epochs)"), "SparseML refuses"),
        ("a.yaml", MINIMAL.replace("2.0", "0.0"), "above zero|refuses"),
        ("a.yaml", MINIMAL.replace("2.0", ".inf"), "above zero|refuses"),
        ("a.yaml", MINIMAL.replace("2.0", "eval(1 / 0)"), "ZeroDivision"),
        ("a.yaml", MINIMAL + "note: |\n  ---\n  modifiers: []\n  ---\n", "a line of ---"),
        ("a.yaml", "a: &x [1]\nb: *x\n" + MINIMAL, "reference"),
    ],
)
def test_broken_recipe(tmp_path: Path, file_name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_recipe(write(tmp_path, text, file_name))


def test_binary_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="is not text"):
        load_recipe(tmp_path / "a.yaml")


def test_a_modifier_without_a_name_is_said(tmp_path: Path) -> None:
    text = MINIMAL + "  - start_epoch: 0.0\n"
    with pytest.raises(UserError, match="a modifier has no name"):
        load_recipe(write(tmp_path, text))


def test_a_minus_in_front_is_refused_as_sparseml_would_fail_on_it(tmp_path: Path) -> None:
    text = MINIMAL.replace("eval(num_epochs)", "eval(-num_epochs)")
    with pytest.raises(UserError, match=r"eval\(-num_epochs\) refused"):
        load_recipe(write(tmp_path, text))


def test_unknown_variable_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no variable sparsity\. It has: final_sparsity, init_lr"):
        load_recipe("minilm-6layers_prune80", sparsity=0.5)
    with pytest.raises(UserError, match="no variable sparsity"):
        load_recipe("minilm-6layers_prune80").manager(sparsity=0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, [1], "two\nlines"])
def test_value_that_is_none(value: object) -> None:
    with pytest.raises(UserError, match="num_epochs="):
        load_recipe("minilm-6layers_prune80", num_epochs=value)


@pytest.mark.parametrize(
    "line", ["update_frequency: often", "final_sparsity: most", "start_epoch: '1e'"]
)
def test_a_setting_that_is_no_number_is_named(tmp_path: Path, line: str) -> None:
    setting = line.split(":")[0]
    whole = recipe_text.find_recipe("minilm-6layers_prune80").read_text()
    text = re.sub(rf"(?<=      ){setting}: .*", line, whole)
    with pytest.raises(UserError, match=rf"{setting} is .*\. Expected a number"):
        load_recipe(write(tmp_path, text, "a.md"))


def test_a_setting_left_to_its_default_is_not_what_is_wrong() -> None:
    absent = "      disable_quantization_observer_epoch: null\n      freeze_bn_stats_epoch: ~\n"
    assert recipes.no_number(absent) is None
    assert recipes.no_number(absent + "      end_epoch: null\n").startswith("end_epoch is 'null'")


def test_a_word_where_a_number_stood_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"num_epochs='abc'\. Expected a number, as 4\.0 is"):
        load_recipe("minilm-6layers_prune80", num_epochs="abc")
    blocks = load_recipe("minilm-6layers_prune80", mask_type="block4", num_epochs="2")
    assert (blocks.num_epochs, blocks.variables["mask_type"]) == (2.0, "block4")


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').system('touch {0}')",
        "__import__('pathlib').Path('{0}').touch()",
        "open('{0}', 'w')",
        "[open('{0}', 'w') for _ in (1,)][0]",
        "(lambda: open('{0}', 'w'))()",
        "max(1, 2, key=lambda _: open('{0}', 'w'))",
        "num_epochs.__class__.__mro__[-1].__subclasses__()",
        "1); open('{0}', 'w').close(",
        "exec('1')",
        "'a' * 9",
        "9 ** 9 ** 9 ** 9",
        "",
    ],
)
def test_hostile_eval_is_refused_and_not_run(tmp_path: Path, attack: str) -> None:
    victim = tmp_path / "created"
    expression = yaml.safe_dump(f"eval({attack.format(victim)})", width=1000).removesuffix("...\n")
    in_variable = MINIMAL.replace("2.0", expression.rstrip())
    in_modifier = MINIMAL.replace("eval(num_epochs)", expression.rstrip())
    for text in (in_variable, in_modifier):
        with pytest.raises(UserError, match="nothing was run"):
            load_recipe(write(tmp_path, text))
    with pytest.raises(UserError, match="nothing was run"):
        load_recipe(write(tmp_path, MINIMAL), num_epochs=f"eval({attack.format(victim)})")
    assert not victim.exists()


@pytest.mark.parametrize(
    "attack",
    [
        "a: !!python/object/apply:os.system ['touch {0}']",
        "a: !!python/object/new:pathlib.Path ['{0}']",
        "a: !!python/name:os.system",
        "a: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch {0}']",
        "%TAG !s! tag:yaml.org,2002:python/\n---\na: !s!object/apply:os.system ['touch {0}']",
    ],
)
def test_python_tags_are_refused_and_not_run(tmp_path: Path, attack: str) -> None:
    victim = tmp_path / "created"
    with pytest.raises(UserError, match="refused|not YAML"):
        load_recipe(write(tmp_path, attack.format(victim) + MINIMAL))
    assert not victim.exists()


def test_only_the_restricted_loader_is_used() -> None:
    """The newer loader, `sparseml.core.recipe`, evaluates with Python's own eval."""
    for file in Path(recipes.__file__).parent.glob("recipe*.py"):
        tree = ast.parse(file.read_text())
        calls = {
            n.func.id for n in ast.walk(tree) if isinstance(getattr(n, "func", None), ast.Name)
        }
        modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not calls & {"eval", "exec", "compile", "__import__"}
        assert not [name for name in modules if name.startswith("sparseml.core")]


def test_schedule_past_the_end(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL + PRUNE_TEN))
    with pytest.raises(
        UserError, match="GMPruningModifier has end_epoch=10, the run ends at epoch 2"
    ):
        check_against(recipe, new_model())
    never = PRUNE_TEN.replace("start_epoch: 0.0", "start_epoch: 2.0").replace("10.0", "2.0")
    with pytest.raises(UserError, match="has start_epoch=2"):
        check_against(load_recipe(write(tmp_path, MINIMAL + never)), new_model())


def test_observers_past_the_end(tmp_path: Path) -> None:
    late = (
        "  - !QuantizationModifier\n      start_epoch: 1.0\n      quantize_embeddings: true\n"
        "      disable_quantization_observer_epoch: 3.0\n"
    )
    recipe = load_recipe(write(tmp_path, MINIMAL + late))
    with pytest.raises(UserError, match="disable_quantization_observer_epoch=3"):
        check_against(recipe, new_model())


def test_pattern_that_matches_nothing_names_the_layers(tmp_path: Path) -> None:
    text = (MINIMAL + PRUNE_TEN).replace("10.0", "1.0").replace("query", "qurey")
    with pytest.raises(UserError, match=r"qurey.*matches nothing in Bert.*layer\.0\.attention"):
        check_against(load_recipe(write(tmp_path, text)), new_model())


def test_pattern_that_is_no_expression(tmp_path: Path) -> None:
    text = (MINIMAL + PRUNE_TEN).replace("10.0", "1.0").replace(".*query[.]weight", "(")
    with pytest.raises(UserError, match="no regular expression"):
        check_against(load_recipe(write(tmp_path, text)), new_model())


SCHEME = """
  - !QuantizationModifier
      start_epoch: 1.0
      ignore: [LayerNorm, Dropout, Tanh, GELUActivation]
      scheme:
        input_activations: {{{activations}}}
        weights: {{symmetric: true, {weights}}}
      scheme_overrides:
        {table}: {{input_activations: null, weights: {{{rows}}}}}
"""
WORKS = {"activations": "", "weights": "strategy: channel", "table": "Embedding", "rows": ""}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"table": "Linear"}, "not implemented for 'Long'"),
        ({"rows": "strategy: channel"}, "doesn't match the broadcast shape"),
        ({"activations": "strategy: channel"}, "not consistent with input tensor"),
        ({"weights": "num_bits: 4"}, "is rounded to -8 .. 7, which is not 8 bits"),
        ({"table": "Embeding"}, "unmatched values: .'Embeding'"),
    ],
)
def test_schemes_of_int8_that_would_fail_later(
    change: dict[str, str], reason: str, tmp_path: Path
) -> None:
    """SparseML takes them all, and stops when QAT starts or at the export."""
    model = new_model()
    before, draws = model.state_dict().keys(), torch.get_rng_state()
    check_against(load_recipe(write(tmp_path, MINIMAL + SCHEME.format(**WORKS))), model)
    recipe = load_recipe(write(tmp_path, MINIMAL + SCHEME.format(**{**WORKS, **change})))
    with pytest.raises(UserError, match=f"int8 training fails on this model .*{reason}.*Write the"):
        check_against(recipe, model)
    assert model.state_dict().keys() == before, "it was tried out on a copy"
    assert torch.equal(torch.get_rng_state(), draws), "training draws as if nothing had been tried"


def int8_logits(recipe: recipes.Recipe) -> torch.Tensor:
    """Return what a random model says after a recipe's QAT has seen a few texts."""
    model = compat.make_attention_quantizable(new_model())
    recipe.manager().apply_structure(model, epoch=math.inf)
    model.apply(torch.ao.quantization.enable_observer)
    ids = torch.arange(4, 84).reshape(5, 16)
    with torch.no_grad():
        model.eval()(input_ids=ids)
        return model.apply(torch.ao.quantization.disable_observer)(input_ids=ids).logits


def test_one_scale_a_matrix_is_the_older_recipe() -> None:
    """So that comparing the two strategies compares nothing else."""
    older = int8_logits(load_recipe("minilm-6layers_quant"))
    newer = load_recipe("minilm-6layers_quant_per_channel", weights_strategy="tensor")
    gap = (int8_logits(newer) - older).abs().max()
    finer = (int8_logits(load_recipe("minilm-6layers_quant_per_channel")) - older).abs().max()
    assert 20 * gap < finer, "ties of rounding at most"


def test_a_strategy_that_there_is_none_of() -> None:
    with pytest.raises(UserError, match="must be one of .'tensor', 'channel'., got chanel"):
        load_recipe("minilm-6layers_quant_per_channel", weights_strategy="chanel")


def test_submodule_that_is_not_there(tmp_path: Path) -> None:
    text = MINIMAL + "  - !QuantizationModifier\n      start_epoch: 1.0\n      submodules: [{0}]\n"
    with pytest.raises(UserError, match="bert.nowhere matches nothing"):
        check_against(load_recipe(write(tmp_path, text.format("bert.nowhere"))), new_model())
    found = check_against(load_recipe(write(tmp_path, text.format("bert.encoder"))), new_model())
    assert found == {"bert.encoder": ["bert.encoder"]}


# The index


def index() -> dict[str, list[str]]:
    """Return the rows of the table in recipes/README.md by recipe name."""
    text = (recipe_text.RECIPES / "README.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| [")]
    return {re.match(r"\[(.+?)\]\((.+?)\.md\)", row[0])[1]: row for row in rows}


def test_index_lists_every_recipe() -> None:
    assert set(index()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_index_says_what_the_file_does(name: str) -> None:
    recipe, row = load_recipe(name), index()[name]
    targets = set(recipe.pruning_targets().values())
    sparsity = f"{100 * next(iter(targets)).final_sparsity:g} %" if targets else "-"
    mask = next(iter(targets)).mask_type if targets else "-"
    yes = {True: "yes", False: "no"}
    assert row[0] == f"[{name}]({name}.md)"
    assert row[2:7] == [
        sparsity,
        mask,
        yes[recipe.has_quantization],
        yes[recipe.declares_distillation],
        f"{recipe.num_epochs:g}",
    ]


def test_index_explains_every_key() -> None:
    explained = set(re.findall(r"`(\w+)`", (recipe_text.RECIPES / "README.md").read_text()))
    for name in NAMES:
        keys = re.findall(r"^\s*(\w+):", load_recipe(name).text, re.M)
        assert set(keys) <= explained, name


def test_public_name() -> None:
    assert helpers.load_recipe is load_recipe
