"""Preview: all that is wrong with a recipe is said at once, and nothing where nothing is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import helpers
from helpers import models, recipe_findings, recipe_preview, recipe_text, schedule_plot
from helpers.__main__ import main
from helpers.commands import preview
from helpers.errors import UserError
from helpers.recipes import Recipe, check_against
from helpers.stops import Checkpoint

NAME = "minilm-6layers_prune80_quant"
HEAD = """num_epochs: 4.0
modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
"""
RATE = """  - !LearningRateFunctionModifier
      start_epoch: {start}
      end_epoch: {end}
      lr_func: linear
      init_lr: {rate}
      final_lr: 0.0
"""
PRUNE = """  - !GMPruningModifier
      start_epoch: {start}
      end_epoch: {end}
      update_frequency: 0.1
      init_sparsity: {init}
      final_sparsity: 0.5
      leave_enabled: {leave}
      params: ['{pattern}']
"""
KEEP = """  - !ConstantPruningModifier
      start_epoch: 0.0
      end_epoch: {end}
      params: ['{pattern}']
"""
QUANT = """  - !QuantizationModifier
      start_epoch: 2.0
      quantize_embeddings: true
      {more}
"""
DROP = """  - !LayerPruningModifier
      layers: [{layers}]
"""
ACDC = """  - !ACDCPruningModifier
      start_epoch: 1.0
      end_epoch: 3.0
      update_frequency: 1.0
      compression_sparsity: 0.9
      params: ['re:.*query.weight']
"""
CYCLES = """  - !LearningRateFunctionModifier
      start_epoch: 0.5
      end_epoch: 4.0
      lr_func: cyclic_linear
      cycle_epochs: 1.5
      init_lr: 0.001
      final_lr: 0.0
"""
ALL = "re:.*encoder.*weight"
QUERY = "re:.*self.query.weight"


def rate(start: float = 0.0, end: float = 4.0, rate: float = 1e-3) -> str:
    """Return a learning-rate modifier."""
    return RATE.format(start=start, end=end, rate=rate)


def prune(pattern: str = QUERY, start: float = 0.5, end: float = 2.0, **other: object) -> str:
    """Return a pruning modifier."""
    settings = {"init": 0.0, "leave": "true", **other}
    return PRUNE.format(pattern=pattern, start=start, end=end, **settings)


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that writes modifiers into a recipe and loads it."""

    def write(*modifiers: str) -> Recipe:
        (tmp_path / "mine.yaml").write_text(HEAD + "".join(modifiers))
        return helpers.load_recipe(tmp_path / "mine.yaml")

    return write


@pytest.fixture
def network(tiny_model: Path) -> torch.nn.Module:
    """Return the tiny model with a classification head."""
    return preview.open_model(str(tiny_model), "SequenceClassification")


@pytest.mark.parametrize("name", recipe_text.names())
def test_nothing_is_wrong_with_the_recipes_of_this_project(name: str) -> None:
    assert recipe_findings.schedule_findings(helpers.load_recipe(name)) == []


def test_a_schedule_without_fault_has_no_findings(written: Callable[..., Recipe]) -> None:
    fixed = QUANT.format(more="disable_quantization_observer_epoch: 3.0")
    recipe = written(rate(), prune(), KEEP.format(end=-1.0, pattern=ALL), fixed)
    assert recipe_findings.schedule_findings(recipe) == []


@pytest.mark.parametrize(
    ("modifiers", "expected"),
    [
        ((rate(end=6.0),), "has end_epoch=6, the run ends at epoch 4"),
        ((rate(end=3.0),), "The learning rate is 0 from epoch 3 to 4"),
        ((rate(rate=0.0),), "The learning rate is 0 from epoch 0 to 4"),
        ((prune(end=4.0),), "at the run's end, epoch 4"),
        ((prune(leave="false"),), "GMPruningModifier lets its zeros go at epoch 2"),
        ((KEEP.format(end=3.0, pattern=ALL),), "ConstantPruningModifier lets its zeros go"),
        ((QUANT.format(more=""),), "int8 ranges are never fixed"),
        ((prune(start=1.0, end=1.0),), "starts at epoch 1 and has end_epoch 1. Expected a later"),
        ((prune(end=-1.0),), "has end_epoch -1. Expected a later one"),
        ((QUANT.format(more="disable_quantization_observer_epoch: 2.0"),), "before any text was"),
        ((ACDC,), "ACDCPruningModifier has no final_sparsity"),
        ((QUANT.format(more="disable_quantization_observer_epoch: 4.0"),), "never fixed"),
        (
            (
                prune(end=3.0),
                QUANT.format(more="disable_quantization_observer_epoch: 3.5"),
            ),
            "still prunes until epoch 3, int8 training starts at 2",
        ),
    ],
)
def test_each_fault_of_a_schedule_is_the_one_finding(
    modifiers: tuple[str, ...], expected: str, written: Callable[..., Recipe]
) -> None:
    (found,) = recipe_findings.schedule_findings(written(*modifiers))
    assert expected in found


def test_a_pruner_without_a_final_share_is_refused(
    written: Callable[..., Recipe], network: torch.nn.Module
) -> None:
    with pytest.raises(UserError, match="ACDCPruningModifier has no final_sparsity"):
        check_against(written(ACDC), network)


def test_cycles_of_the_learning_rate_are_drawn_as_sparseml_takes_them(
    written: Callable[..., Recipe],
) -> None:
    recipe, steps = written(CYCLES), 10_000
    (real,) = (m for m in recipe.manager().iter_modifiers() if hasattr(m, "lr_func"))
    for epoch in (0.6, 1.0, 1.9, 2.1, 3.4, 3.7, 3.9):
        planned = recipe_preview.learning_rate_at(recipe, epoch)
        assert planned == pytest.approx(real._cyclic_linear(epoch, steps), abs=1e-6)


def test_a_rate_that_is_set_is_drawn(written: Callable[..., Recipe]) -> None:
    fixed = "  - !SetLearningRateModifier\n      start_epoch: 1.0\n      learning_rate: 0.002\n"
    curve = written(rate(end=1.0), fixed).schedule(9).learning_rate
    assert list(curve[2:]) == [0.002] * 7


def test_a_second_pruner_goes_on_from_the_first(written: Callable[..., Recipe]) -> None:
    recipe = written(
        prune(end=1.0),
        prune(start=2.0, end=3.0, init=0.5).replace("final_sparsity: 0.5", "final_sparsity: 0.9"),
    )
    curve = recipe.schedule(5).sparsity
    assert curve[1] == curve[2] != curve[3]
    assert curve[4] == max(t.final_sparsity for t in recipe.pruning_targets().values())


def test_the_mean_is_over_patterns_whatever_they_share(written: Callable[..., Recipe]) -> None:
    levels = "{0.9: ['re:.*query.weight'], 0.5: ['re:.*key.weight', 're:.*value.weight']}"
    named = prune().replace(f"['{QUERY}']", "[]")
    recipe = written(named.replace("final_sparsity: 0.5", f"final_sparsity: {levels}"))
    assert recipe.schedule(3).sparsity.tolist()[-1] == pytest.approx((0.9 + 0.5 + 0.5) / 3)
    zeros = schedule_plot.schedule(recipe).axes[0]
    assert [text.get_text() for text in zeros.texts] == ["50 to 90 % of every matrix"]


def test_a_stage_of_another_length_gives_no_zeros_back(written: Callable[..., Recipe]) -> None:
    """Stages keep the epochs of their own runs, so the later one may seem to start first."""
    ninety = prune(start=0.2, init=0.5).replace("final_sparsity: 0.5", "final_sparsity: 0.9")
    recipe = written(prune(start=0.4), ninety)
    (target,) = recipe.pruning_targets().values()
    assert target.final_sparsity == recipe.schedule(3).sparsity.iloc[-1] == 0.9


def test_zeros_that_were_let_go_are_not_promised(written: Callable[..., Recipe]) -> None:
    first = prune(end=1.0, leave="false").replace("final_sparsity: 0.5", "final_sparsity: 0.9")
    recipe = written(first, prune(start=2.0, end=3.0))
    (target,) = recipe.pruning_targets().values()
    curve = recipe.schedule(5).sparsity
    assert (curve[1], curve[4]) == (0.9, 0.5)
    assert target.final_sparsity == 0.5


def test_a_pruner_without_patterns_is_held_to_all(
    written: Callable[..., Recipe], network: torch.nn.Module
) -> None:
    recipe = written(prune().replace(f"['{QUERY}']", ""))
    (found,) = recipe_findings.matches(recipe, network).to_dict("records")
    assert (found["pattern"], found["matrices"]) == ("__ALL_PRUNABLE__", 14)


def test_ranges_that_are_never_fixed_are_drawn_so(written: Callable[..., Recipe]) -> None:
    assert schedule_plot.ranges_fixed(written(QUANT.format(more=""))) == 4.0
    fixed = QUANT.format(more="disable_quantization_observer_epoch: 3.0")
    assert schedule_plot.ranges_fixed(written(fixed)) == 3.0


def test_all_faults_are_found_at_once(
    written: Callable[..., Recipe], network: torch.nn.Module
) -> None:
    recipe = written(
        rate(end=6.0),
        prune("re:nothing", start=5.0, end=6.0),
        prune("re:[", leave="false"),
        DROP.format(layers="bert.encoder.layer.7"),
    )
    report = preview.describe(recipe, network)
    for expected in (
        "LearningRateFunctionModifier has end_epoch=6",
        "GMPruningModifier has start_epoch=5",
        "lets its zeros go at epoch 2",
        "re:nothing matches nothing in BertForSequenceClassification",
        "re:[ is no regular expression",
        "drops bert.encoder.layer.7, which the model does not have",
    ):
        assert any(expected in text for text in report["warnings"]), expected


def test_what_a_recipe_matches_and_quantizes_is_counted(network: torch.nn.Module) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = preview.describe(helpers.load_recipe(NAME), network)
    assert report["warnings"] == []
    assert [row["matrices"] for row in report["matches"]] == [2] * 6
    assert report["matches"][0]["names"][0] == "bert.encoder.layer.0.attention.self.query.weight"
    assert report["matches"][0]["promise"] == "80.0% zeros, unstructured"
    # Two layers of six matrices and two attention products, pooler and classifier, three tables.
    found = {kind: len(names) for kind, names in report["int8"].items()}
    assert found == {"Embedding": 3, "Linear": 14, "MatMul": 4}
    after = network.state_dict()
    assert before.keys() == after.keys(), "the model is left as it was"
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_dropped_layers_do_not_count(
    written: Callable[..., Recipe], network: torch.nn.Module
) -> None:
    recipe = written(DROP.format(layers="bert.encoder.layer.1"), prune())
    report = preview.describe(recipe, network)
    assert report["dropped_layers"] == ["bert.encoder.layer.1"]
    (row,) = report["matches"]
    assert row["names"] == ["bert.encoder.layer.0.attention.self.query.weight"]
    lost = written(DROP.format(layers="bert.encoder.layer.1"), prune("re:.*layer.1.*query.weight"))
    assert "matches nothing" in recipe_findings.model_findings(lost, network)[0]


def test_a_sparse_start_is_told_what_becomes_of_its_zeros(
    pruned: Checkpoint, written: Callable[..., Recipe]
) -> None:
    model = models.load_model(pruned)
    keep = KEEP.format(end=-1.0, pattern="re:.*encoder.*(query|key|value|dense).weight")
    assert recipe_findings.model_findings(written(keep), model) == []
    (restart,) = recipe_findings.model_findings(written(prune(), keep), model)
    assert "starts its mask anew on 2 matrices that are sparse already" in restart
    assert recipe_findings.model_findings(written(prune(init="__FROM_PARAM__"), keep), model) == []
    (free,) = recipe_findings.model_findings(written(rate()), model)
    assert "12 matrices are sparse and nothing keeps their zeros" in free


def test_a_quantized_start_is_refused_beforehand(sparse_int8: Checkpoint) -> None:
    model = preview.open_model(str(sparse_int8.folder), "")
    (found,) = recipe_findings.model_findings(helpers.load_recipe(NAME), model)
    assert "quantized already" in found


def test_quantization_that_fails_here_is_a_finding(
    written: Callable[..., Recipe], network: torch.nn.Module
) -> None:
    newer = "  - !QuantizationModifier\n      start_epoch: 2.0\n"
    newer += "      disable_quantization_observer_epoch: 3.0\n"
    report = preview.describe(written(newer), network)
    assert any("int8 training fails on this model" in text for text in report["warnings"])
    assert report["int8"] == {}


def test_a_scale_for_each_output_and_compared_states_are_said(
    network: torch.nn.Module, capsys: pytest.CaptureFixture
) -> None:
    name = "minilm-6layers_quant_per_channel"
    report = preview.describe(helpers.load_recipe(name), network)
    assert report["warnings"] == [] and len(report["int8"]["Linear"]) == 14
    assert report["modifiers"][-1]["settings"].endswith("weights=per channel")
    states = preview.describe(helpers.load_recipe("minilm-6layers_quant_states"), network)
    shown = next(row["settings"] for row in states["modifiers"] if "PerLayer" in row["modifier"])
    assert shown == "gain=1, normalize=True, student_layer_names=7 modules"
    assert main(["preview", name, "--recipe_args", "weights_strategy=chanel"]) == 2
    assert "got chanel" in capsys.readouterr().err


def test_the_command_prints_schedule_matches_and_one_json_line(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    picture = tmp_path / "schedule.png"
    asked = ["--model_name_or_path", str(tiny_model), "--recipe_args", "num_epochs=3"]
    assert main(["preview", NAME, *asked, "--plot", str(picture), "--json"]) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    assert report["num_epochs"] == 3.0
    assert report["last_event_epoch"] == pytest.approx(0.88 * 3)
    assert report["plot"] == str(picture)
    assert f"{NAME}: 3 epochs, last change of zeros or int8 at epoch 2.64" in printed
    assert "2 x 80.0% zeros, unstructured: re:.*encoder[.]layer" in printed
    for row in report["modifiers"]:
        assert row["modifier"] in printed
        assert row["settings"].split(", ")[0] in printed
        assert row["why"].split()[0] in printed
    assert printed.splitlines()[-2] == "no warnings"


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")]
)
def test_the_suffix_chooses_the_kind_of_picture(suffix: str, start: bytes, tmp_path: Path) -> None:
    picture = tmp_path / "new" / f"schedule{suffix}"
    assert main(["preview", NAME, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(start)


def test_a_recipe_file_stands_first_and_is_not_taken_for_flags(
    written: Callable[..., Recipe], capsys: pytest.CaptureFixture
) -> None:
    recipe = written(rate(end=3.0), prune())
    assert main(["preview", str(recipe.path)]) == 0
    printed = capsys.readouterr().out
    assert "50.0% zeros, unstructured, each matrix: re:.*self.query.weight" in printed
    assert "warning: The learning rate is 0 from epoch 3 to 4" in printed


def test_a_recipe_without_modifiers_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "plain.yaml").write_text(HEAD)
    assert main(["preview", str(tmp_path / "plain.yaml")]) == 0
    assert "EpochRangeModifier" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "No recipe is given"),
        (["no-such-recipe"], "No recipe no-such-recipe"),
        ([NAME, "--recipe_args", "num_epoch=3"], "has no variable num_epoch"),
        ([NAME, "--plot", "schedule.bmp"], "expected a name that ends in .png, .svg, .pdf"),
        ([NAME, "--plot", "schedule"], "expected a name that ends in .png, .svg, .pdf"),
        ([NAME, "--plot", "/dev/null/schedule.png"], "/dev/null is no folder to write in"),
        ([NAME, "--model_name_or_path", "./absent"], "no model folder ./absent"),
        ([NAME, "--model_name_or_path", "minilm", "--head", "Vision"], "--head Vision is unknown"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    argv: list[str], expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["preview", *argv]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert len(message.splitlines()) == 1
    assert not any(tmp_path.iterdir())


def test_help_explains_the_flags(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["preview", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "may stand first" in " ".join(shown.split())
    assert all(name in shown for name in ("--recipe_args", "--plot", "--model_name_or_path"))
