"""The roof is measured, and times are held to the roof of what really ran."""

from pathlib import Path

import pytest
from test_benchmark import row
from test_engines import onnx_file  # noqa: F401 - a fixture

from helpers import arithmetic, roofline
from helpers.arithmetic import Work
from helpers.errors import UserError

PEAKS = roofline.Peaks(fp32=100.0, int8=400.0, memory=10.0, threads=2)
# Two billion operations of which a fifth is needed; reading its weights takes 0.1 ms.
WORK = Work(all=10**9, needed=2 * 10**8, weight_bytes=10**6)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the measured products small enough for a test."""
    monkeypatch.setattr(roofline, "ROWS", 64)
    monkeypatch.setattr(roofline, "WIDTH", 128)
    monkeypatch.setattr(roofline, "COPIED_BYTES", 2**20)


def test_the_peaks_are_measured_on_real_engines(small: None) -> None:
    found = roofline.measure_peaks(1)
    assert found.threads == 1
    assert min(found.fp32, found.int8, found.memory) > 0.1
    assert "1 core" in str(found)
    assert "1 cores" not in str(found)


@pytest.mark.parametrize("engine", roofline.ENGINES)
def test_the_int8_products_really_run_in_int8(small: None, tmp_path: Path, engine: str) -> None:
    import onnx

    onnx.save(roofline.chain(int8=True), str(tmp_path / "int8.onnx"))
    assert roofline.pace_on(engine, tmp_path / "int8.onnx", 1, int8=True) > 0
    onnx.save(roofline.chain(int8=False), str(tmp_path / "fp32.onnx"))
    assert roofline.pace_on(engine, tmp_path / "fp32.onnx", 1, int8=False) > 0
    # A float product that passed for int8 would lower the roof in silence.
    assert roofline.pace_on(engine, tmp_path / "fp32.onnx", 1, int8=True) == 0


def test_no_engine_no_roof(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "available_engines", lambda: ["deepsparse"])
    with pytest.raises(UserError, match="no roof to show"):
        roofline.measure_peaks(1)


def test_the_least_time_is_arithmetic_or_memory() -> None:
    fp32 = roofline.held_against(row("dense", "onnxruntime", 40.0), WORK, PEAKS)
    assert (fp32["operations"], fp32["needed"], fp32["operations_a_byte"]) == (2.0, 0.4, 2000.0)
    assert fp32["least_ms"] == pytest.approx(4.0)
    assert fp32["of_needed"] == pytest.approx(0.1)
    assert fp32["of_all"] == pytest.approx(0.5)
    heavy = Work(all=10**6, needed=10**6, weight_bytes=10**8)
    assert roofline.held_against(row("d", "openvino", 20.0), heavy, PEAKS)["least_ms"] == 10.0


def test_an_engine_above_the_roof_has_skipped_zeros() -> None:
    int8 = row("sparse", "deepsparse", 2.5, precision="int8", sparsity=0.8)
    found = roofline.held_against(int8, WORK, PEAKS)
    assert (found["runs_in"], found["of_all"]) == ("int8", 2.0)
    assert found["of_needed"] == pytest.approx(0.4)


def test_int8_that_runs_in_float_has_the_roof_of_float() -> None:
    wrong = row("sparse", "openvino", 20.0, precision="int8", int8_run=0)
    assert roofline.held_against(wrong, WORK, PEAKS)["runs_in"] == "fp32"
    right = row("sparse", "openvino", 20.0, precision="int8", int8_run=50)
    assert roofline.held_against(right, WORK, PEAKS)["runs_in"] == "int8"


def test_failed_rows_and_checkpoints_are_left_out(
    onnx_file: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    rows = [
        row("tiny", "onnxruntime", 1.0, sequence_length=8),
        row("tiny", "openvino", 1.0, sequence_length=8, error="gone"),
        row("before", "torch", 1.0, sequence_length=8),
    ]
    table = roofline.table(rows, {"tiny": onnx_file, "before": tmp_path}, PEAKS)
    assert list(table.engine) == ["onnxruntime"]
    assert table.operations.item() == 2 * arithmetic.count(onnx_file, 1, 8).all / 1e9
