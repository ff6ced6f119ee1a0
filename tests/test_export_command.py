"""`python -m helpers export`: what cannot be exported is refused before anything is written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from helpers import token_batches
from helpers.__main__ import main
from helpers.commands.arguments import TextArguments
from helpers.errors import UserError
from helpers.export import export_onnx
from helpers.peers import quantize_after_training
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


@pytest.fixture
def long_files(tiny_files: list[str], tmp_path: Path) -> list[str]:
    """Return the flags of the tiny task's files with texts of 9 to 27 tokens."""
    flags = []
    for name, file in zip(tiny_files[::2], tiny_files[1::2], strict=True):
        rows = pd.read_csv(file)
        rows["text"] = [f"{text} " * (1 + row % 3) for row, text in enumerate(rows["text"])]
        rows.to_csv(tmp_path / Path(file).name, index=False)
        flags += [name, str(tmp_path / Path(file).name)]
    return flags


def test_the_length_that_is_asked_for_may_be_another_than_the_trained_one(
    source: Path, long_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Checkpoint.load(source).run["max_seq_length"] == 16
    lengths, real = set(), token_batches.padded
    monkeypatch.setattr(token_batches, "padded", lambda *a: lengths.add(a[2]) or real(*a))
    longer = [*long_files, "--max_seq_length", "32"]
    assert main(["export", str(source), "--onnx_export_path", str(tmp_path / "o"), *longer]) == 0
    assert main(["quantize", str(source), "--output_dir", str(tmp_path / "int8"), *longer]) == 0
    assert lengths == {32}


def test_a_length_beyond_the_model_is_refused(
    source: Path, dense: Checkpoint, tiny_task: Task, tmp_path: Path
) -> None:
    """Its tokenizer may name no limit at all."""
    config = json.loads((source / "tokenizer_config.json").read_text())
    config["model_max_length"] = 10**30
    (source / "tokenizer_config.json").write_text(json.dumps(config))
    checkpoint, task = Checkpoint(source, dense.run), replace(tiny_task, max_seq_length=65)
    for make in (export_onnx, quantize_after_training):
        with pytest.raises(UserError, match="takes at most 64 tokens. Use --max_seq_length 64"):
            make(checkpoint, task, tmp_path / "out")
        assert not (tmp_path / "out").exists()
