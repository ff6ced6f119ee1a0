"""Dense int8 without training: real quantizers, the engines they are made for, what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import openvino
import pytest
from tiny_graphs import encoder

from helpers import engines, peers, sparsity
from helpers.__main__ import main
from helpers.benchmark import measure
from helpers.errors import ProofError, UserError
from helpers.stops import Checkpoint
from helpers.tasks import Task


@pytest.mark.parametrize("method", peers.METHODS)
def test_a_dense_model_in_int8_is_nearly_as_good_and_runs_in_int8(
    method: str, dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    note = peers.quantize_after_training(dense, tiny_task, tmp_path / "int8", method=method)
    assert note["metrics"]["accuracy"] >= dense.metrics["accuracy"] - 0.1
    written = json.loads((tmp_path / "int8" / peers.NOTE).read_text())
    assert written["metrics"] == note["metrics"]
    (row,) = measure(
        {"int8": tmp_path / "int8"}, [note["engine"]], (1,), 16, num_cores=1, rounds=2, warmup=0
    )
    assert row.error is None
    assert row.precision == "int8"
    assert row.int8_run >= 10
    assert peers.is_made(tmp_path / "int8", dense)
    assert not peers.is_made(tmp_path, dense)
    other = Checkpoint(dense.folder, dense.run | {"files": {"model.safetensors": "of others"}})
    assert not peers.is_made(tmp_path / "int8", other)


def test_both_products_of_attention_are_quantized(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    peers.quantize_after_training(dense, tiny_task, tmp_path / "int8")
    graph = onnx.load(str(tmp_path / "int8" / "model.onnx")).graph
    assert sparsity.int8_products(graph) == 18


def test_int8_and_fp32_are_measured_at_the_same_length(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    noted = Checkpoint(dense.folder, dense.run | {"metrics": {"accuracy": -1.0}})
    for length, taken_over in ((16, True), (12, False)):
        task = replace(tiny_task, max_seq_length=length)
        note = peers.quantize_after_training(noted, task, tmp_path / str(length))
        assert (note["fp32"]["accuracy"] == -1.0) == taken_over


def test_fp32_is_measured_on_the_rows_of_int8(dense: Checkpoint, tiny_task: Task) -> None:
    assert peers.measured_alike(dense, tiny_task)
    others = tiny_task.validation.map(lambda row: {"text": f"{row['text']} again"})
    assert not peers.measured_alike(dense, replace(tiny_task, validation=others))


def test_an_openvino_model_is_for_openvino_only(tmp_path: Path) -> None:
    file = encoder(tmp_path / "m.onnx")
    openvino.save_model(openvino.Core().read_model(file), tmp_path / "model.xml")
    assert engines.kind_of(tmp_path) == "OpenVINO model"
    assert engines.takes("openvino", tmp_path)
    assert not engines.takes("torch", tmp_path)
    (row,) = measure({"x": tmp_path}, ["torch"], (1,), 8, num_cores=1, rounds=1)
    assert row.error == f"torch runs: checkpoint. {tmp_path} is: OpenVINO model."


def test_what_cannot_be_quantized_is_refused(
    dense: Checkpoint,
    sparse_int8: Checkpoint,
    tiny_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = replace(tiny_task, labels=["a", "b", "c"])
    monkeypatch.setattr(engines, "missing_engines", lambda: {"openvino": "Not for this platform."})
    for source, task, method, reason in (
        (dense, tiny_task, "gptq", "No method 'gptq'. Expected one of onnxruntime, nncf"),
        (sparse_int8, tiny_task, "nncf", "is int8 already"),
        (dense, tiny_task, "nncf", "nncf cannot be used here. Not for this platform."),
        (dense, other, "onnxruntime", "Give the task it was trained on"),
    ):
        with pytest.raises(UserError, match=reason):
            peers.quantize_after_training(source, task, tmp_path / "out", method=method)
    assert not any(tmp_path.iterdir())


def test_the_checkpoint_is_never_written_over(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    source = Checkpoint.load(shutil.copytree(dense.folder, tmp_path / "runs" / "dense"))
    for place in (source.folder, source.folder.parent):
        with pytest.raises(UserError, match="is or holds the checkpoint itself"):
            peers.quantize_after_training(source, tiny_task, place, overwrite=True)
    Checkpoint.load(source.folder)


def test_an_engine_that_cannot_run_it_is_a_failed_proof(
    dense: Checkpoint, tiny_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        engines.ENGINES, "onnxruntime", ("padding_engines:RefusesLongTexts", "onnxruntime")
    )
    with pytest.raises(ProofError, match="onnxruntime runs it"):
        peers.quantize_after_training(dense, tiny_task, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_from_the_shell(
    dense: Checkpoint, tiny_files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = str(tmp_path / "int8")
    assert main(["quantize", str(dense.folder), "--output_dir", out, *tiny_files, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["fp32"] == dense.metrics
    assert (tmp_path / "int8" / "model.onnx").is_file()
    few = ["--max_eval_samples", "16", "--overwrite_output_dir", "--json"]
    assert main(["quantize", str(dense.folder), "--output_dir", out, *tiny_files, *few]) == 0
    fewer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["rows"], fewer["rows"]) == (dense.run["rows"]["validation"], 16)
    # Sixteenths: both halves of the comparison are over the same rows.
    assert fewer["fp32"]["accuracy"] * 16 == int(fewer["fp32"]["accuracy"] * 16)
    for wrong, reason in (
        ([], "Give the checkpoint's folder and --output_dir"),
        ([str(dense.folder)], "Give the checkpoint's folder and --output_dir"),
        ([str(tmp_path / "none"), "--output_dir", out], "none"),
    ):
        assert main(["quantize", *wrong]) == 2
        said = capsys.readouterr().err
        assert reason in said and len(said.splitlines()) <= 2
