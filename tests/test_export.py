"""Exports: the proof passes on real exports, and fails when the file is not the model."""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset
from onnx import numpy_helper
from transformers import BertConfig, BertForSequenceClassification

import helpers
from helpers import (
    compat,
    environment,
    export,
    export_proof,
    models,
    portable,
    sparsity,
    token_batches,
    weights,
)
from helpers.errors import ProofError, UserError
from helpers.models import load_tokenizer
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task
from helpers.text_tasks import Regression


def test_the_folder_is_complete(both: OnnxModel) -> None:
    names = {file.name for file in both.folder.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "proof.json"} <= names
    assert OnnxModel.load(both.folder).proof == both.proof


def test_an_export_of_other_weights_is_not_taken_for_it(
    both: OnnxModel, sparse_int8: Checkpoint, pruned: Checkpoint
) -> None:
    assert export.reuse(both.folder, sparse_int8).proof == both.proof
    assert export.reuse(both.folder, pruned) is None


def test_a_dense_export_is_proven(dense: Checkpoint, tiny_task: Task, tmp_path: Path) -> None:
    made = export.export_onnx(dense, tiny_task, tmp_path / "dense")
    graph = onnx.load(str(made.file)).graph
    assert sparsity.int8_products(graph) == 0
    assert {i.name for i in graph.input} == set(export.INPUTS)


def test_a_six_layer_classifier_has_fifty_int8_products(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        hidden_size=32, num_hidden_layers=6, num_attention_heads=2, intermediate_size=64
    )
    model = compat.make_attention_quantizable(BertForSequenceClassification(config))
    recipe = helpers.load_recipe("minilm-6layers_quant")
    recipe.manager().apply(model)
    ids = torch.arange(2000, 2032).reshape(2, 16)
    model.train()(input_ids=ids)
    export.write_graph(model.eval(), tmp_path / "m.onnx", quantized=True)
    assert sparsity.int8_products(onnx.load(str(tmp_path / "m.onnx")).graph) == 50


def test_without_quantizable_attention_the_count_falls_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take the fix out of compat and 12 of 50 products stay fp32, without a word."""
    from transformers import BertConfig, BertForSequenceClassification

    monkeypatch.setattr(compat, "make_attention_quantizable", lambda model: model)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=6, num_attention_heads=2, intermediate_size=64
    )
    model = compat.make_attention_quantizable(BertForSequenceClassification(config))
    helpers.load_recipe("minilm-6layers_quant").manager().apply(model)
    model.train()(input_ids=torch.arange(2000, 2032).reshape(2, 16))
    export.write_graph(model.eval(), tmp_path / "m.onnx", quantized=True)
    graph = onnx.load(str(tmp_path / "m.onnx")).graph
    assert sparsity.int8_products(graph) == 38
    with pytest.raises(ProofError, match="int8 products: expected 50, found 38"):
        export_proof.check_int8(sparsity.int8_products(graph), model)


def spoiled(file: Path, change: str) -> None:
    """Write another model into an ONNX file, as a failed reload would."""
    graph = onnx.load(str(file))
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim != 2 or array.dtype == np.int64 or array.shape[0] > 1000:
            continue
        if change == "dense":
            array = np.where(array == 0, 1, array).astype(array.dtype)
        else:
            array = np.random.default_rng(0).permuted(array, axis=None)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(graph, str(file))


@pytest.mark.parametrize(
    ("change", "check"), [("dense", "zeros"), ("random", "onnxruntime logits")]
)
def test_a_file_with_other_weights_fails_its_proof(
    change: str,
    check: str,
    pruned: Checkpoint,
    tiny_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = export.write_graph

    def write_spoiled(model: torch.nn.Module, file: Path, *outputs: tuple, quantized: bool) -> None:
        real(model, file, *outputs, quantized=quantized)
        spoiled(file, change)

    monkeypatch.setattr(export, "write_graph", write_spoiled)
    with pytest.raises(ProofError, match=check):
        export.export_onnx(pruned, tiny_task, tmp_path / "out")
    assert not any(tmp_path.iterdir()), "a failed proof leaves no folder behind"


def test_lost_quantization_fails_its_proof(
    sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.write_graph
    monkeypatch.setattr(
        export, "write_graph", lambda *graph, quantized: real(*graph, quantized=False)
    )
    with pytest.raises(ProofError, match=r"int8 products: expected 18, found 0"):
        export.export_onnx(sparse_int8, tiny_task, tmp_path / "out")


def test_both_forms_are_written_and_each_is_proven(both: OnnxModel) -> None:
    assert sorted(f.name for f in both.folder.glob("*.onnx")) == ["model.onnx", "model_qdq.onnx"]
    found = {row["check"]: row["found"] for row in both.proof["checks"]}
    assert found["int8 products"] == found["qdq: int8 products"] == 18
    assert found["qdq: openvino runs int8"] >= 18 - export_proof.may_stay_float(18)
    # 2 layers x (6 matrices + 2 attention products) + pooler + classifier.
    plain = {"zeros", "onnxruntime logits", "deepsparse logits", "deepsparse accuracy"}
    assert plain | {"qdq: openvino logits", "qdq: onnxruntime accuracy"} <= set(found)


def test_one_form_alone_is_the_model_and_another_is_not_taken_for_it(
    both: OnnxModel, sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    made = export.export_onnx(sparse_int8, tiny_task, tmp_path / "qdq", form="qdq")
    assert sparsity.int8_products(onnx.load(str(made.file)).graph) == 18
    assert "MatMulInteger" not in {n.op_type for n in onnx.load(str(made.file)).graph.node}
    again = export.export_onnx(sparse_int8, tiny_task, made.folder, form="qdq")
    assert again.proof == made.proof
    with pytest.raises(UserError, match="already holds something"):
        export.export_onnx(sparse_int8, tiny_task, made.folder)


def test_an_unknown_form_is_refused(dense: Checkpoint, tiny_task: Task, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected one of deepsparse, qdq, both"):
        export.export_onnx(dense, tiny_task, tmp_path / "out", form="tflite")


def test_int8_that_an_engine_does_not_run_is_noticed(
    sparse_int8: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SparseML's own form has the right logits on OpenVINO, and is computed in float."""
    monkeypatch.setattr(portable, "to_qdq", lambda model: model)
    least = 18 - export_proof.may_stay_float(18)
    with pytest.raises(ProofError, match=f"runs int8: expected {least} products or more, found 0"):
        export.export_onnx(sparse_int8, tiny_task, tmp_path / "out", form="qdq")
    assert not any(tmp_path.iterdir())


def test_a_metric_that_drops_is_noticed() -> None:
    with pytest.raises(ProofError, match="deepsparse accuracy"):
        export_proof.check_metric("deepsparse", {"accuracy": 0.70}, {"accuracy": 0.80})


def test_logits_of_another_model_are_noticed() -> None:
    ours = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(ProofError, match="onnxruntime logits"):
        export_proof.check_logits("onnxruntime", ours + 0.5, ours, quantized=True)


def test_int8_scores_may_differ_by_a_share_of_their_own_spread() -> None:
    labels = {"text": ["a", "b"], "label": [0.0, 0.2]}
    scores = Regression("r", Dataset.from_dict(labels), Dataset.from_dict(labels), ["score"], 16)
    ours = np.array([[0.0], [0.2]], dtype=np.float32)
    size = scores.spread
    for gap, passes in ((0.01, True), (0.14, False)):
        with nullcontext() if passes else pytest.raises(ProofError, match="onnxruntime logits"):
            export_proof.check_logits("onnxruntime", ours + gap, ours, quantized=True, size=size)


def test_only_checks_that_were_made_have_passed() -> None:
    made = [{"check": "zeros", "found": 0.8}, {"check": "x logits", "found": export_proof.NOT_HERE}]
    assert export_proof.passed(made) == "1 checks passed, not made here: x logits"
    assert export_proof.passed(made[:1]) == "1 checks passed"


def test_texts_without_token_types_are_proven_with_zeros(
    dense: Checkpoint, tiny_task: Task
) -> None:
    rows = tiny_task.encode(load_tokenizer(dense.folder), tiny_task.validation)
    (batch, *_) = token_batches.equal_batches(dense, tiny_task, rows)
    (bare, *_) = token_batches.equal_batches(
        dense, tiny_task, rows.remove_columns("token_type_ids")
    )
    for name in models.INPUTS:
        assert np.array_equal(batch[name], bare[name])


@pytest.mark.parametrize("classes", [16, 17])
def test_classes_are_no_axis_of_tokens(classes: int, tmp_path: Path) -> None:
    sizes = {"vocab_size": 30, "hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1}
    network = BertForSequenceClassification(BertConfig(num_labels=classes, **sizes))
    export.write_graph(network, tmp_path / "m.onnx", ("logits",), quantized=False)
    (output,) = onnx.load(str(tmp_path / "m.onnx")).graph.output
    shape = [dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim]
    assert shape == ["batch", classes]


def test_an_export_is_not_proven_on_another_task(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    other = replace(tiny_task, labels=["yes", "no"])
    with pytest.raises(UserError, match="the proof would mean nothing"):
        export.export_onnx(dense, other, tmp_path / "out")


def test_an_engine_that_refuses_the_graph_fails_the_proof(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.write_graph

    def write_unknown(model: torch.nn.Module, file: Path, *outputs: tuple, quantized: bool) -> None:
        real(model, file, *outputs, quantized=quantized)
        graph = onnx.load(str(file))
        next(n for n in graph.graph.node if n.op_type == "Tanh").op_type = "NoSuchOperator"
        onnx.save(graph, str(file))

    monkeypatch.setattr(export, "write_graph", write_unknown)
    with pytest.raises(ProofError, match="onnxruntime runs it"):
        export.export_onnx(dense, tiny_task, tmp_path / "out")


def test_an_export_folder_that_is_a_file_is_refused(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        export.export_onnx(dense, tiny_task, tmp_path / "taken")


def test_a_tampered_export_is_not_opened(both: OnnxModel, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(both.folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_size": 1}))
    with pytest.raises(UserError, match="changed after the run ended"):
        OnnxModel.load(copy)


def test_weights_that_do_not_fit_are_refused(dense: Checkpoint, sparse_int8: Checkpoint) -> None:
    model = models.load_model(dense)
    with pytest.raises(UserError, match="do not fit"):
        weights.load(model, sparse_int8.folder)


def test_an_export_never_replaces_its_own_checkpoint(dense: Checkpoint, tiny_task: Task) -> None:
    for place in (dense.folder, dense.folder.parent):
        with pytest.raises(UserError, match="is or holds the checkpoint"):
            export.export_onnx(dense, tiny_task, place, overwrite=True)
    assert Checkpoint.load(dense.folder).run == dense.run


def test_only_int8_over_few_rows_may_differ_by_more() -> None:
    answers, others = np.zeros(400), np.zeros(400)
    assert export_proof.metric_tolerance(answers, others) == export_proof.METRIC_TOLERANCE
    others[:16] = 1
    assert export_proof.metric_tolerance(answers, others) == pytest.approx(3 * 4 / 400)
    others[:200] = 1
    assert export_proof.metric_tolerance(answers, others) == 0.05, "never more than that"


def test_without_vnni_a_layers_scores_may_stay_float(monkeypatch: pytest.MonkeyPatch) -> None:
    for vnni, allowed in ((True, 2), (False, 8)):
        monkeypatch.setattr(environment, "machine", lambda vnni=vnni: {"vnni": vnni})
        assert export_proof.may_stay_float(50) == allowed
