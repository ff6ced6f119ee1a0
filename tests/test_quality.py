"""The accuracy and size of what is timed come from the notes in its folder, or not at all."""

import json
from pathlib import Path

import pandas as pd
import pytest

from helpers import quality
from helpers.errors import UserError
from helpers.exercises import zipped_size
from helpers.stops import Checkpoint, OnnxModel, write_note


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """Return the folder of an export that notes an accuracy."""
    (tmp_path / "model.onnx").write_bytes(b"weights" * 1000)
    write_note(tmp_path, "proof.json", {"metrics": {"accuracy": 0.8, "f1": 0.7}})
    return tmp_path


def test_an_export_notes_the_metrics_of_its_checkpoint(
    sparse_int8: Checkpoint, both: OnnxModel
) -> None:
    assert quality.metrics_of(both.folder) == sparse_int8.metrics
    assert quality.metrics_of(both.file) == sparse_int8.metrics
    assert quality.metrics_of(sparse_int8.folder) == sparse_int8.metrics
    assert quality.size_of(both.folder) == zipped_size(both.file)


def test_rows_without_an_accuracy_are_dropped(
    noted: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bare = tmp_path_factory.mktemp("bare")
    columns = ["model", "engine", "median_ms", "error"]
    rows = [
        ("good", "openvino", 2.0, None),
        ("good", "torch", None, "no"),
        ("bare", "x", 1.0, None),
    ]
    table = quality.with_quality(pd.DataFrame(rows, columns=columns), {"good": noted, "bare": bare})
    assert list(table.engine) == ["openvino"]
    assert table.accuracy.item() == 0.8
    assert table.zipped_mb.item() == zipped_size(noted / "model.onnx") / 1e6


def test_no_accuracy_at_all(tmp_path: Path) -> None:
    table = pd.DataFrame([("a", None)], columns=["model", "error"])
    with pytest.raises(UserError, match="tells an accuracy"):
        quality.with_quality(table, {"a": tmp_path})


def test_a_note_that_was_edited_is_refused(noted: Path) -> None:
    note = json.loads((noted / "proof.json").read_text())
    note["metrics"]["accuracy"] = 0.99
    (noted / "proof.json").write_text(json.dumps(note))
    with pytest.raises(UserError):
        quality.metrics_of(noted)


def test_the_size_of_an_int8_checkpoint_is_that_of_its_weights(sparse_int8: Checkpoint) -> None:
    assert quality.size_of(sparse_int8.folder) == zipped_size(
        sparse_int8.folder / "pytorch_model.bin"
    )


def test_the_size_of_an_openvino_model_is_that_of_its_two_files(tmp_path: Path) -> None:
    for name in ("model.xml", "model.bin", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode() * 500)
    files = (tmp_path / "model.xml", tmp_path / "model.bin")
    assert quality.size_of(tmp_path) == sum(zipped_size(file) for file in files)
