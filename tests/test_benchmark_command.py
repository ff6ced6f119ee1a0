"""`python -m helpers benchmark`: the table, the JSON line, and what is refused."""

import json
from pathlib import Path

import pytest
from test_engines import onnx_file  # noqa: F401 - a fixture
from tiny_graphs import encoder

from helpers import engines, roofline
from helpers.__main__ import main
from helpers.benchmark import file_for
from helpers.commands.timing import named
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


def test_times_are_kept_whatever_becomes_of_the_roof(
    onnx_file: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(cores: int) -> None:
        raise UserError("no roof today")

    monkeypatch.setattr(roofline, "measure_peaks", fails)
    places = ["--output", str(tmp_path / "s.json"), "--roofline", str(tmp_path / "r.png")]
    assert main(["benchmark", str(onnx_file), "--engines", "onnxruntime", *QUICK, *places]) == 2
    assert "no roof today" in capsys.readouterr().err
    assert all(row.median_ms for row in load(tmp_path / "s.json"))


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


def test_a_cpu_without_vnni_is_said_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    old = {"cpu": "Old CPU", "cores": 2, "vnni": False, "amx": False, "avx512": False}
    monkeypatch.setattr("helpers.benchmark.cpu_features", lambda: old)
    assert main(["benchmark", "nowhere.onnx"]) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Old CPU, 2 cores: AVX512 no, VNNI no, AMX no"
    assert said[1] == "warning: without VNNI int8 saves memory, hardly time."


@pytest.mark.parametrize("fault", ["data is missing", "other inputs", "truncated", "other folder"])
def test_a_wrong_model_is_refused_in_a_line_before_an_engine_is_started(
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("helpers.benchmark.open_engine", None)
    file = tmp_path / "m" / "model.onnx"
    if fault == "data is missing":
        encoder(file, save_as_external_data=True, location="model.data")
        file.with_name("model.data").unlink()
        reason = "needs model.data beside it, which is missing"
    elif fault == "other inputs":
        encoder(file, ("pixel_values",), shape=("b", 3, 8, 8))
        reason = "takes pixel_values int64 [?, 3, 8, 8]. Expected an encoder of texts"
    elif fault == "truncated":
        file.write_bytes(encoder(file).read_bytes()[:500])
        reason = "model.onnx is not an ONNX file, or damaged"
    else:
        file = tmp_path
        reason = "holds neither model.onnx nor a checkpoint (config.json)"
    good = encoder(tmp_path / "good.onnx")
    output = ["--output", str(tmp_path / "speed.json")]
    assert main(["benchmark", f"good={good}", f"bad={file}", *QUICK, *output]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "speed.json").exists()


def test_rows_that_fail_have_words_and_the_others_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(engines.ENGINES, "deepsparse", ("x:Y", "no_such_package_here"))
    fixed = encoder(tmp_path / "fixed.onnx", shape=(1, 8))
    free = encoder(tmp_path / "free.onnx")
    asked = ["--engines", "deepsparse,onnxruntime", "--json"]
    assert main(["benchmark", f"{fixed},{free}", *asked, *QUICK]) == 0
    text = capsys.readouterr().out
    found = json.loads(text.splitlines()[-1])["measurements"]
    rows = {(one["model"], one["engine"], one["batch_size"]): one["error"] for one in found}
    assert sum(error is None for error in rows.values()) == 3
    absent = "The package no_such_package_here is not installed. Run `make setup`."
    assert rows["free.onnx", "deepsparse", 1] == absent
    one_shape = rows["fixed.onnx", "onnxruntime", 2]
    assert one_shape.startswith("It takes input_ids as int64 [1, 8] only, not [2, 8].")
    table, _, below = text.partition("\n\n")[2].partition("\n\n")
    assert table.count("failed, see below") == 8 - 3
    assert one_shape in below and absent in below
    assert absent not in table, "a sentence in a cell would widen every row"


def test_a_benchmark_in_which_nothing_ran_fails_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = encoder(tmp_path / "fixed.onnx", shape=(4, 8))
    output = ["--output", str(tmp_path / "speed.json"), "--plot", str(tmp_path / "speed.png")]
    assert main(["benchmark", str(model), "--engines", "onnxruntime", *output, *QUICK]) == 2
    said = capsys.readouterr()
    assert "It takes input_ids as int64 [4, 8] only" in said.out
    assert "Nothing could be timed" in said.err
    assert [file.name for file in tmp_path.iterdir()] == ["fixed.onnx"]


def test_pairs_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = encoder(tmp_path / "free.onnx")
    assert main(["benchmark", str(model), "--engines", "onnxruntime,torch", *QUICK]) == 0
    text = capsys.readouterr().out
    assert "left out, as the engine does not run such a model: free.onnx on torch" in text


def test_a_picture_of_accuracies_is_refused_before_anything_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = encoder(tmp_path / "free.onnx")
    assert main(["benchmark", str(model), "--bubbles", str(tmp_path / "b.png"), *QUICK]) == 2
    said = capsys.readouterr()
    assert "tells an accuracy" in said.err and not said.out


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
        (["m.onnx", "--batch_sizes", "1,16,1"], "--batch_sizes has 1 twice"),
        (["m.onnx", "--engines", "openvino,openvino"], "--engines has openvino twice"),
        (["m.onnx", "--max_seconds", "-3"], "--max_seconds is -3.0"),
        (["m.onnx", "--rounds", "0"], "--rounds is 0"),
        (["m.onnx", "--warmup", "-1"], "--warmup is -1"),
        (["m.onnx", "--sequence_length", "-8"], "--sequence_length has '-8'"),
        (["m.onnx", "--plot", "speed.jpeg2"], "expected a name that ends in .png"),
        (["m.onnx", "--scenario", "offline"], "No scenario 'offline'"),
        (["m.onnx", "--num_cores", "4096"], "4096 cores were asked for"),
        (["m.onnx"], "There is no model m.onnx"),
        (["m.onnx", "--output", "."], "--output . is a folder"),
        (["m.onnx", "--output", "afile/new/x.json"], "afile is no folder to write in"),
        (["m.onnx", "--output", "/proc/x.json"], "/proc is no folder to write in"),
        (["m.onnx", "--plot", "afile/x.png"], "afile is no folder to write in"),
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
    (tmp_path / "afile").write_text("")
    assert main(["benchmark", *flags]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert len(message.splitlines()) <= 2
    assert [file.name for file in tmp_path.iterdir()] == ["afile"]
