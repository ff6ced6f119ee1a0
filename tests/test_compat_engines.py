"""What real engines say when they refuse a model or die of it, and what is left of that."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from test_engines import needs_deepsparse, onnx_file  # noqa: F401 - a fixture
from tiny_graphs import encoder, texts

from helpers import compat, compat_engines, engines
from helpers.engines import EngineError


def reason(file: Path, engine: str, batch: dict[str, np.ndarray]) -> str:
    """Return why an engine does not run a model."""
    with pytest.raises(EngineError) as caught:
        engines.predict(file, engine, [batch], num_threads=1)
    return str(caught.value)


@needs_deepsparse
def test_deepsparse_aborting_is_said_to_be_its_own_fault(onnx_file: Path, tmp_path: Path) -> None:  # noqa: F811
    compat.name_small_integers()
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(onnx_file), str(tmp_path / "m.onnx"))
    found = reason(tmp_path / "m.onnx", "deepsparse", texts(2, 32))
    assert found.startswith("DeepSparse died while compiling (exit code 1): Assertion at ./src/")
    assert found.endswith("That is a fault of the engine, which should refuse what it cannot run.")
    assert "Thread" not in found and "memory" not in found


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        pytest.param("deepsparse", "(prepare): Node (", marks=needs_deepsparse),
        ("onnxruntime", "(run): "),
        ("openvino", "(prepare): "),
    ],
)
def test_a_shape_that_the_graph_cannot_take_is_one_line(
    engine: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Or it would be refused before the engine can say a word.
    monkeypatch.setattr("helpers.engine_process.misfit", lambda *_: None)
    found = reason(encoder(tmp_path / "m.onnx", positions=16), engine, texts(2, 20))
    assert expected in found
    assert "\n" not in found
    for noise in ("failed at", "src/", ".cpp", ".h:", "[ONNXRuntimeError]", "NM: error"):
        assert noise not in found
    assert any(word in found for word in ("Incompatible", "inconsistent", "broadcast")), found


@needs_deepsparse
def test_types_have_names(tmp_path: Path) -> None:
    import onnx

    file = encoder(tmp_path / "m.onnx")
    model = onnx.load(str(file))
    model.graph.node[-1].output[0] = "scored"
    cast = onnx.helper.make_node("Cast", ["scored"], ["logits"], to=TensorProto.FLOAT16)
    model.graph.node.append(cast)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, str(file))
    found = reason(file, "deepsparse", texts())
    assert found.endswith("'logits' has unsupported type 'fp16'")


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (-11, "", "died while compiling (SIGSEGV): no word. That is a fault of the engine"),
        (1, "Traceback\n  File x\nImportError: no", "(exit code 1): Traceback File x ImportError"),
        (None, "facts: 1\n\nwhat was wrong\nBacktrace:\n 0# 0x0", "(exit code None): what was"),
        (1, "\n".join(f"line {i}" for i in range(9)), "(exit code 1): line 6 line 7 line 8."),
    ],
)
def test_last_words(code: int | None, said: str, expected: str) -> None:
    found = compat_engines.death("prepare", code, said)
    assert expected in found
    assert ("fault of the engine" in found) == ("Traceback" not in said)


def test_the_folder_of_the_private_copy_is_left_out() -> None:
    said = "Load model from /tmp/a.b/engine-o2e_d8yr/model.onnx failed"
    assert compat_engines.refusal(said) == "Load model from model.onnx failed"


def test_what_an_engine_did_not_say_by_itself_is_left_alone() -> None:
    plain = "ValueError: shape (2, 3) differs from a::b (see docs/x.md: 12)"
    assert compat_engines.refusal(plain) == plain
