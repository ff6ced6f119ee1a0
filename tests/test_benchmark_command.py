"""`python -m helpers benchmark`: the table, the JSON line, and what is refused."""

import json
from pathlib import Path

import pytest
from test_engines import onnx_file  # noqa: F401 - a fixture
from tiny_graphs import encoder

from helpers import roofline
from helpers.__main__ import main
from helpers.benchmark import file_for
from helpers.commands.benchmark import named
from helpers.errors import UserError
from helpers.measurements import load

PEAKS = roofline.Peaks(fp32=200.0, int8=800.0, memory=30.0, threads=1)
QUICK = ["--batch_sizes", "1,2", "--sequence_length", "8", "--rounds", "3", "--num_cores", "1"]


def test_the_table_the_file_and_the_last_line_say_the_same(
    onnx_file: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = ["--output", str(tmp_path / "out" / "speed.json"), "--json"]
    output += ["--plot", str(tmp_path / "out" / "speed.png")]
    output += ["--roofline", str(tmp_path / "out" / "roof.png")]
    monkeypatch.setattr(roofline, "measure_peaks", lambda cores: PEAKS)
    engines = ["--engines", "onnxruntime,openvino"]
    assert main(["benchmark", f"tiny={onnx_file}", *engines, *QUICK, *output]) == 0
    text = capsys.readouterr().out
    report = json.loads(text.splitlines()[-1])
    stored = load(tmp_path / "out" / "speed.json")
    assert [row["median_ms"] for row in report["measurements"]] == [m.median_ms for m in stored]
    assert [(m.batch_size, m.engine) for m in stored] == [
        (1, "onnxruntime"), (1, "openvino"), (2, "onnxruntime"), (2, "openvino")
    ]  # fmt: skip
    for picture in ("speed.png", "roof.png"):
        assert (tmp_path / "out" / picture).stat().st_size > 5000
    written = json.loads((tmp_path / "out" / "speed.json").read_text())
    assert written["roofline"] == report["roofline"]
    assert report["roofline"]["peaks"]["int8"] == PEAKS.int8
    assert [row["engine"] for row in report["roofline"]["rows"]].count("openvino") == 2
    assert "VNNI" in text.splitlines()[0]
    assert text.count("tiny") >= 4
    assert report["verdict"] in text


def test_models_are_called_by_their_folder_unless_they_are_named() -> None:
    assert named(["runs/a", "b=runs/c/model.onnx,runs/d/model.onnx"]) == {
        "a": Path("runs/a"), "b": Path("runs/c/model.onnx"), "d": Path("runs/d/model.onnx")
    }  # fmt: skip
    with pytest.raises(UserError, match="Two models are called x"):
        named(["x=a.onnx", "x=b.onnx"])


def test_a_path_may_have_commas_and_equals_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("a,b", "lr=5e-5,2", "plain"):
        encoder(tmp_path / folder / "model.onnx")
    assert named(["a,b", "lr=5e-5,2/model.onnx", "x=lr=5e-5,2", "y=z=a,b"]) == {
        "a,b": Path("a,b"),
        "lr=5e-5,2": Path("lr=5e-5,2/model.onnx"),
        "x": Path("lr=5e-5,2"),
        "y=z": Path("a,b"),
    }
    assert named(["plain,b=plain/model.onnx"]) == {
        "plain": Path("plain"), "b": Path("plain/model.onnx")
    }  # fmt: skip
    # What is not there is called as it was most likely meant.
    assert named(["x=no/lr=5.onnx"]) == {"x": Path("no/lr=5.onnx")}
    assert named(["no/lr=5.onnx"]) == {"lr=5.onnx": Path("no/lr=5.onnx")}
    monkeypatch.chdir(tmp_path / "plain")
    assert named(["model.onnx"]) == {"plain": Path("model.onnx")}
    assert named(["."]) == {"plain": Path()}


def test_of_an_export_in_both_forms_every_engine_gets_its_own(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    for name in ("model.onnx", "model_qdq.onnx"):
        save(helper.make_model(graph), tmp_path / name)
    given = {engine: file_for(engine, tmp_path).name for engine in ("deepsparse", "openvino")}
    assert given == {"deepsparse": "model.onnx", "openvino": "model_qdq.onnx"}
    (tmp_path / "model_qdq.onnx").unlink()
    assert file_for("openvino", tmp_path).name == "model.onnx"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "Expected: python -m helpers benchmark MODEL"),
        (["m.onnx", "--engines", "tensorrt"], "No engine 'tensorrt'"),
        (["m.onnx", "--batch_sizes", "1,x"], "--batch_sizes has 'x'"),
        (["m.onnx", "--batch_sizes", "0"], "--batch_sizes has '0'"),
        (["m.onnx", "--rounds", "0"], "--rounds is 0"),
        (["m.onnx", "--warmup", "-1"], "--warmup is -1"),
        (["m.onnx", "--sequence_length", "-8"], "--sequence_length has '-8'"),
        (["m.onnx", "--plot", "speed.jpeg2"], "expected a name that ends in .png"),
        (["m.onnx", "--scenario", "offline"], "No scenario 'offline'"),
        (["m.onnx", "--num_cores", "4096"], "4096 cores were asked for"),
        (["m.onnx"], "There is no model m.onnx"),
        (["m.onnx", "--output", "."], "--output . is a folder"),
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
    assert main(["benchmark", *flags]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert len(message.splitlines()) <= 2
    assert not any(tmp_path.iterdir())
