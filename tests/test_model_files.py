"""Models in one file and in several: all of it is found, held to, hashed and copied."""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from test_engines import HERE as ENGINE_TESTS
from test_engines import needs_deepsparse
from tiny_graphs import encoder, texts

from helpers import engines, environment, model_files
from helpers.errors import ProofError, UserError
from helpers.inspection import inspect

EXTERNAL = {"save_as_external_data": True, "size_threshold": 100}
FORMS = {
    "one file": {"location": "model.data"},
    "one file in a subfolder": {"location": "weights/model.data"},
    "a file for each": {"all_tensors_to_one_file": False},
}


def external(folder: Path, form: str = "one file") -> Path:
    """Write an encoder with its weights in other files."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    return encoder(folder / "model.onnx", **EXTERNAL, **FORMS[form])


def moved(file: Path, location: str) -> Path:
    """Let a model look for its data elsewhere."""
    model = onnx.load(str(file), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    file.write_bytes(model.SerializeToString())
    return file


@pytest.mark.parametrize("form", FORMS)
def test_data_outside_of_the_file_is_hashed_copied_and_counted(form: str, tmp_path: Path) -> None:
    file = external(tmp_path / "m", form)
    files = model_files.files_of(file)
    data = files[1:]
    assert files[0] == file
    assert len(data) == (3 if form == "a file for each" else 1)
    assert inspect(file).totals["file_bytes"] == sum(f.stat().st_size for f in files) > 900_000
    copy = model_files.private_copy(file, files, tmp_path / "private")
    copies = model_files.files_of(copy)
    assert [f.relative_to(copy.parent) for f in copies] == [
        f.relative_to(file.parent) for f in files
    ]
    assert model_files.fingerprint(copy) == model_files.fingerprint(file)
    data[-1].write_bytes(data[-1].read_bytes()[:-1] + b"\x01")
    assert model_files.fingerprint(copy) != model_files.fingerprint(file)


@pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino", pytest.param("deepsparse", marks=needs_deepsparse)]
)
def test_every_engine_takes_such_a_model_and_leaves_it_alone(engine: str, tmp_path: Path) -> None:
    whole = encoder(tmp_path / "whole.onnx")
    file = external(tmp_path / "m", "one file in a subfolder")
    before = {f: f.read_bytes() for f in model_files.files_of(file)}
    expected = engines.predict(whole, "onnxruntime", [texts()], num_threads=1)
    found = engines.predict(file, engine, [texts()], num_threads=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert {f: f.read_bytes() for f in model_files.files_of(file)} == before


@pytest.mark.parametrize("gone", [False, True])
def test_data_that_is_changed_or_removed_meanwhile_is_noticed(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = external(tmp_path)
    data = tmp_path / "model.data"
    monkeypatch.setenv("TEST_ORIGINAL", str(data))
    with (
        pytest.raises(ProofError, match="unchanged"),
        engines.open_engine(file, f"{ENGINE_TESTS}:Rewrites") as process,
    ):
        process.prepare(2, 8, 1)
        if gone:
            data.unlink()


def test_data_that_is_missing_short_or_elsewhere_is_refused_by_its_name(tmp_path: Path) -> None:
    file = external(tmp_path / "m")
    data, other = file.with_name("model.data"), tmp_path / "other.data"
    shutil.copy(data, other)
    for location in ("../other.data", "x/../../other.data", str(other)):
        with pytest.raises(UserError, match="points to data outside its folder"):
            model_files.files_of(moved(file, location))
    moved(file, "./model.data")
    assert model_files.files_of(file) == [file, data]
    os.truncate(data, 5000)
    with pytest.raises(UserError, match="bytes of ./model.data, which has 5,000: it is damaged"):
        model_files.files_of(file)
    data.unlink()
    with pytest.raises(UserError, match=r"m/model.onnx needs ./model.data beside it.*missing"):
        engines.predict(file, "onnxruntime", [texts()])


def test_a_hubs_cache_of_links_is_followed(tmp_path: Path) -> None:
    file = external(tmp_path / "blobs")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for one in model_files.files_of(file):
        (snapshot / one.name).symlink_to(one)
    assert model_files.fingerprint(snapshot / "model.onnx") == model_files.fingerprint(file)
    assert inspect(snapshot).totals["parameters"] > 30522 * 8


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    whole = encoder(tmp_path / "whole.onnx").read_bytes()
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90\n"
    file = tmp_path / "m.onnx"
    for content, reason in {
        b"this is not a model": "not an ONNX file",
        b"": "or an empty one",
        whole[: len(whole) // 2]: "or damaged",
        b"PK\3\4" + bytes(range(256)): "not an ONNX file",
        pointer: "git lfs pull",
    }.items():
        file.write_bytes(content)
        with pytest.raises(UserError, match=reason):
            engines.predict(file, "onnxruntime", [texts()])
    file.write_bytes(whole)
    assert model_files.files_of(file) == [file]


def test_an_openvino_model_needs_both_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(UserError, match="model.xml needs model.bin beside it"):
        model_files.files_of(tmp_path)


def test_a_disk_without_room_for_the_data_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = external(tmp_path)
    room = shutil.disk_usage(tmp_path)._replace(free=900_000)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: room)
    with pytest.raises(UserError, match="No space"):
        engines.open_engine(file, "onnxruntime")
