"""One scale for each output: trained, stored, exported in both forms, and run by three engines."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import helpers
from helpers import (
    compat,
    engines,
    environment,
    export,
    export_proof,
    int8_scales,
    models,
    sparsity,
    token_batches,
)
from helpers.errors import ProofError
from helpers.int8_scales import check_biases, check_scales, scales
from helpers.onnx_weights import values
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task

RECIPE = "minilm-6layers_quant_per_channel"
# 2 layers x 6 matrices, pooler and classifier; all have more than one output.
MATRICES = 14


@dataclass(frozen=True)
class Trained:
    """The pruned tiny model after the recipe, and its export in both forms."""

    checkpoint: Checkpoint
    onnx: OnnxModel

    @property
    def qdq(self) -> Path:
        """The second form."""
        return self.onnx.folder / "model_qdq.onnx"


@pytest.fixture(scope="module")
def trained(
    pruned: Checkpoint, tiny_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """Return the pruned tiny model, trained in int8 with a scale for each output."""
    folder = tmp_path_factory.mktemp("per_channel")
    checkpoint = helpers.fine_tune(
        tiny_task,
        pruned,
        folder / "int8",
        recipe=helpers.load_recipe(RECIPE, num_epochs=4),
        per_device_train_batch_size=8,
        disable_tqdm=True,
    )
    return Trained(
        checkpoint, export.export_onnx(checkpoint, tiny_task, folder / "onnx", form="both")
    )


def matrices(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the quantized matrices of a model by name."""
    return {name: m for name, m in model.named_modules() if int8_scales.is_int8_matrix(m)}


def test_every_output_has_learnt_a_scale_of_its_own(trained: Trained) -> None:
    model = models.load_model(trained.checkpoint)
    assert len(matrices(model)) == MATRICES
    for name, module in matrices(model).items():
        rounding = module.weight_fake_quant
        assert rounding.scale.shape == (module.out_features,), name
        # The largest weight of each row is its last step, so it is the row's own scale.
        largest = module.weight.detach().abs().amax(1) / rounding.scale
        assert largest.median() == pytest.approx(127, rel=0.05), name
        assert not rounding.zero_point.any(), name
    tables = sparsity.quantized_modules(model).query("kind == 'Embedding'").module
    assert [model.get_submodule(name).weight_fake_quant.scale.numel() for name in tables] == [1] * 3


def test_the_zeros_of_the_start_are_kept(trained: Trained, pruned: Checkpoint) -> None:
    before, after = (
        sparsity.sparse_parameters(models.load_model(c)) for c in (pruned, trained.checkpoint)
    )
    assert len(before) == 12
    assert all(after[name] >= share for name, share in before.items())


@pytest.mark.parametrize(
    ("form", "names"),
    [("", ("onnxruntime", "deepsparse")), ("qdq: ", ("onnxruntime", "openvino"))],
)
def test_a_form_is_proven_on_its_engines(
    form: str, names: tuple[str, str], trained: Trained
) -> None:
    checks = {row["check"]: row["found"] for row in trained.onnx.proof["checks"]}
    assert checks[f"{form}scales"] == f"{MATRICES} matrices have one an output"
    assert checks[f"{form}int8 products"] == 18
    # Without VNNI, ONNX Runtime adds two products of a QDQ graph in 16 bits, which may overflow.
    tolerance = 1e-3 if environment.machine()["vnni"] else export_proof.INT8_MEAN_TOLERANCE
    for engine in names:
        assert checks[f"{form}{engine} logits"] < tolerance
        assert not form or checks[f"{form}{engine} runs int8"] >= 18 - export_proof.may_stay_float(
            18
        )


def test_deepsparse_supports_every_operator(trained: Trained) -> None:
    with engines.open_engine(trained.onnx.file, "deepsparse") as process:
        assert process.prepare(1, 16, 1)["supported_fraction"] == 1.0


def test_the_stored_weights_are_those_of_training_number_by_number(trained: Trained) -> None:
    graph = onnx.load(str(trained.qdq)).graph
    stored = {tensor.name: values(tensor) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        weights = stored.get(node.input[0])
        # Tables are stored as uint8.
        if node.op_type == "DequantizeLinear" and getattr(weights, "dtype", None) == np.int8:
            assert {a.name: a.i for a in node.attribute} == {"axis": 1}
            found.append((weights * stored[node.input[1]]).T)
    model = models.load_model(trained.checkpoint)
    learnt = [m.weight_fake_quant(m.weight).detach().numpy() for m in matrices(model).values()]
    assert len(found) == MATRICES

    for group in (found, learnt):
        # Names are lost on the way.
        group.sort(key=lambda array: (array.shape, float(np.abs(array).sum())))
    for one, other in zip(found, learnt, strict=True):
        assert np.allclose(one, other, atol=1e-7)


def with_scales(file: Path, folder: Path, change: str) -> Path:
    """Write a copy of a QDQ file whose square matrices have their scales otherwise."""
    model = onnx.load(str(file))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        weights = stored.get(node.input[0])
        if node.op_type != "DequantizeLinear" or weights is None or weights.dims != [32, 32]:
            continue
        if change == "other side":
            node.attribute[0].i = 0
            continue
        for name in node.input[1:3]:
            array = values(stored[name])
            stored[name].CopyFrom(numpy_helper.from_array(array.mean(dtype=array.dtype), name))
    changed = folder / "changed.onnx"
    onnx.save(model, str(changed))
    return changed


@pytest.mark.parametrize(
    ("change", "found"), [("other side", "9 have one an input"), ("a mean", "9 matrices have one")]
)
def test_scales_that_training_did_not_learn_fail_the_proof(
    change: str, found: str, trained: Trained, tmp_path: Path
) -> None:
    model = models.load_model(trained.checkpoint)
    check_scales(onnx.load(str(trained.qdq)).graph, model)
    changed = with_scales(trained.qdq, tmp_path, change)
    with pytest.raises(ProofError, match=f"expected 14 matrices .* output, found .*{found}"):
        export_proof.check_graph(changed, model, "qdq")


def test_one_scale_a_matrix_is_counted_as_one(sparse_int8: Checkpoint, tmp_path: Path) -> None:
    model = models.load_model(sparse_int8)
    export.write_graph(model, tmp_path / "m.onnx", quantized=True)
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert scales(graph) == {"one": MATRICES, "one an output": 0, "one an input": 0}
    assert check_scales(graph, model)["found"] == "14 matrices have one"


def with_a_dead_row(trained: Trained, weight: float, bias: float) -> torch.nn.Module:
    """Return the model with a row of one tiny weight, scaled as training would, and a bias."""
    model = models.load_model(trained.checkpoint)
    layer = model.bert.encoder.layer[0].output.dense.module
    rounding = layer.weight_fake_quant
    with torch.no_grad():
        layer.weight[3] = 0
        layer.weight[3, 5] = weight
        layer.bias[3] = bias
        eps = rounding.activation_post_process.eps.item()
        rounding.scale[3] = max(weight / 127, eps)
    return model


def logits_of(model: torch.nn.Module, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of PyTorch and of the ONNX file for the same words."""
    ids = np.random.default_rng(0).integers(1000, 5000, (4, 16))
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    return token_batches.run_torch(model, [batch]), engines.predict(file, "onnxruntime", [batch])


def test_a_row_of_zeros_keeps_its_bias(trained: Trained, tmp_path: Path) -> None:
    model = with_a_dead_row(trained, 0.0, 50.0)
    export.write_graph(model, tmp_path / "m.onnx", quantized=True)
    expected, found = logits_of(model, tmp_path / "m.onnx")
    assert np.abs(expected - found).max() < 1e-3


def test_without_the_fix_it_is_cut_off(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SparseML writes it as if it were well; only a look at the number tells."""
    monkeypatch.setattr(compat, "scale_dead_rows", lambda model: None)
    model = with_a_dead_row(trained, 0.0, 50.0)
    with pytest.raises(ProofError, match="at most 1,073,741,824 steps, found 2,147,48"):
        export.write_graph(model, tmp_path / "m.onnx", quantized=True)
    expected, found = logits_of(model, tmp_path / "m.onnx")
    assert np.abs(expected - found).max() > 0.01


def test_a_row_next_to_zero_is_refused(trained: Trained, tmp_path: Path) -> None:
    model = with_a_dead_row(trained, 1e-9, 50.0)
    with pytest.raises(ProofError, match="next to zero: train with one scale a matrix"):
        export.write_graph(model, tmp_path / "m.onnx", quantized=True)


def test_a_graph_without_integer_biases_has_none_to_check(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = helper.make_graph([node], "nothing", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), str(tmp_path / "m.onnx"))
    check_biases(tmp_path / "m.onnx")
