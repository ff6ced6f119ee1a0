"""`python -m helpers export`: what cannot be exported is refused before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.__main__ import main
from helpers.commands.arguments import TextArguments
from helpers.stops import Checkpoint, OnnxModel
from helpers.tasks import Task


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Return a function that expects a refusal, before data is loaded, that changes no file."""

    def contents() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def load(self: TextArguments) -> Task:
        raise AssertionError("data was loaded before the folders were checked")

    def run(*argv: str) -> str:
        monkeypatch.setattr(TextArguments, "load", load)
        before = contents()
        assert main(["export", *argv]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert 1 <= len(message.splitlines()) <= 2
        assert contents() == before
        return message

    return run


@pytest.fixture
def source(dense: Checkpoint, tmp_path: Path) -> Path:
    """Return a copy of the dense checkpoint that a faulty export may destroy."""
    shutil.copytree(dense.folder, tmp_path / "runs" / "dense")
    return tmp_path / "runs" / "dense"


def test_both_folders_are_needed(source: Path, refused: Callable[..., str]) -> None:
    for argv in ([], [str(source)], ["--onnx_export_path", "x"]):
        assert "Give the checkpoint's folder and --onnx_export_path" in refused(*argv)


def test_a_source_that_is_no_checkpoint_is_refused(
    source: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = ["--onnx_export_path", str(tmp_path / "out")]
    assert "There is no folder" in refused(str(tmp_path / "absent"), *out)
    assert "There is no folder" in refused(str(source / "run.json.bak"), *out)
    assert "run.json is missing" in refused(str(source.parent), *out)
    (source / "model.safetensors").write_bytes(b"truncated")
    assert "missing, truncated or was changed" in refused(str(source), *out)


@pytest.mark.parametrize("extra", [[], ["--overwrite_output_dir"]])
def test_an_export_never_replaces_its_own_source(
    extra: list[str], source: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    for name in (str(source), f"{source}/../dense", ".", str(source.parent)):
        message = refused(str(source), "--onnx_export_path", name, *extra)
        assert "is or holds the checkpoint" in message
    (source.parent / "link").symlink_to(source)
    assert "is or holds" in refused(
        str(source), "--onnx_export_path", str(source.parent / "link"), *extra
    )


@pytest.mark.parametrize("extra", [[], ["--overwrite_output_dir"]])
def test_an_output_that_is_taken_is_refused(
    extra: list[str], source: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years")
    assert "holds something" in refused(
        str(source), "--onnx_export_path", str(tmp_path / "taken"), *extra
    )
    file = str(tmp_path / "taken" / "thesis.txt")
    assert "is a file" in refused(str(source), "--onnx_export_path", file, *extra)


def test_an_export_is_proven_reported_and_taken_up_again(
    source: Path, tiny_files: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    out = ["--onnx_export_path", str(tmp_path / "onnx"), "--json"]
    argv = ["export", str(source), *out, *tiny_files]
    assert main(argv) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["checks"] == OnnxModel.load(tmp_path / "onnx").proof["checks"]
    assert {"zeros", "onnxruntime logits"} <= {row["check"] for row in report["checks"]}
    assert Path(report["onnx"]) == tmp_path / "onnx" / "model.onnx"
    written = Path(report["onnx"]).stat().st_mtime_ns
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "proven export found, nothing to do" in printed
    assert json.loads(printed.splitlines()[-1]) == report
    assert Path(report["onnx"]).stat().st_mtime_ns == written
