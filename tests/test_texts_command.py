"""`python -m helpers texts`: the table, the file, the picture, and what is refused."""

import json
from pathlib import Path

import pytest
from test_real_texts import export, mixed  # noqa: F401 - fixtures

from helpers import text_measurements
from helpers.__main__ import main
from helpers.stops import Checkpoint

QUICK = ["--timed_texts", "4", "--passes", "1", "--num_cores", "1", "--engines", "onnxruntime"]


def test_the_table_the_file_and_the_last_line_say_the_same(
    export: Path,  # noqa: F811
    tiny_files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    file, plot = tmp_path / "out" / "texts.json", tmp_path / "out" / "texts.png"
    data = [*tiny_files, "--max_seq_length", "16", "--buckets", "8,12", "--batch_size", "4"]
    flags = [*data, *QUICK, "--output", str(file), "--plot", str(plot), "--json"]
    assert main(["texts", str(export), *flags]) == 0
    text = capsys.readouterr().out
    report = json.loads(text.splitlines()[-1])
    lengths, rows = text_measurements.load(file)
    assert [row["mean_ms"] for row in report["measurements"]] == [row.mean_ms for row in rows]
    assert [(row.padding, row.lengths) for row in rows] == [
        ("one length", [16]), ("buckets", lengths.buckets)
    ]  # fmt: skip
    assert report["lengths"]["texts"] == rows[0].texts == 48
    assert report["verdict"] in text
    assert (
        lengths.buckets != [8, 12]
        and f"buckets used: {', '.join(map(str, lengths.buckets))}" in text
    )
    stored = json.loads(file.read_text())
    assert stored["command"].startswith("python -m helpers texts ")
    assert {"python", "versions", "machine"} <= set(stored)
    assert plot.stat().st_size > 5000


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "Expected: python -m helpers texts MODEL"),
        (["m.onnx", "--engines", "tensorrt"], "No engine 'tensorrt'"),
        (["m.onnx", "--buckets", "8,x"], "--buckets has 'x'"),
        (["m.onnx", "--batch_size", "0"], "--batch_size is 0"),
        (["m.onnx", "--passes", "0"], "--passes is 0"),
        (["m.onnx", "--timed_texts", "1"], "--timed_texts is 1"),
        (["m.onnx", "--plot", "speed.doc"], "expected a name that ends in .png"),
        (["m.onnx", "--output", "."], "--output . is a folder"),
        (["m.onnx", "--output", "/dev/null/x.json"], "/dev/null is no folder to write in"),
        (["m.onnx", "--num_cores", "4096"], "4096 cores were asked for"),
        (["m.onnx", "--buckets"], "--buckets"),
        (["m.onnx", "--task_name", "no/such-data"], "no/such-data"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value) or "nothing",
)
def test_bad_input_is_two_lines_and_exit_code_2(
    flags: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["texts", *flags]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert len(message.splitlines()) <= 2
    assert not any(tmp_path.iterdir())


def test_data_and_models_that_do_not_go_are_refused(
    export: Path,  # noqa: F811
    tiny_files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    for flags, reason in (
        ([tmp_path / "absent"], "There is no model"),
        ([export, "--buckets", ","], "No length to pad to"),
        ([export, "--buckets", "65"], "longer than the model takes, which is 64"),
        ([export, "--max_seq_length", "65"], "at most 64 tokens"),
    ):
        data = ["--max_seq_length", "16", *tiny_files, *QUICK]
        assert main(["texts", str(flags[0]), *data, *flags[1:]]) == 2
        message = capsys.readouterr().err
        assert reason in message
        assert len(message.splitlines()) <= 2


def test_texts_of_which_nothing_could_be_timed_fail_and_nothing_is_written(
    dense: Checkpoint, tiny_files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = ["--output", str(tmp_path / "t.json")]
    data = ["--max_seq_length", "16", *tiny_files, *QUICK]
    assert main(["texts", str(dense.folder), *data, *places]) == 2
    assert "Nothing could be timed" in capsys.readouterr().err
    assert not (tmp_path / "t.json").exists()
