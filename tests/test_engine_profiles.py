"""Where the time goes: every engine's own profiler, its steps added up by part of the model."""

import json
from pathlib import Path

import pytest
from test_arithmetic import exports  # noqa: F401 - a fixture
from test_engines import needs_deepsparse

from helpers import engine_profiles
from helpers.__main__ import main
from helpers.engine_process import EngineError
from helpers.errors import UserError
from helpers.stops import Checkpoint

LAYER = "/bert/encoder/layer.3"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (f"{LAYER}/attention/self/query/MatMul", "query, key, value"),
        (f"{LAYER}/attention/self/MatMul_1_kernel_time", "attention scores, softmax, sum"),
        (f"{LAYER}/attention/self/Softmax", "attention scores, softmax, sum"),
        (f"{LAYER}/attention/output/dense/MatMul", "attention output, norm"),
        (f"{LAYER}/intermediate/dense/MatMul", "intermediate, GELU"),
        ("BiasGelu_token_5_kernel_time", "intermediate, GELU"),
        (f"{LAYER}/output/dense/MatMul,{LAYER}/intermediate/x", "output, norm"),
        ("/bert/embeddings/Add", "embeddings, norm"),
        ("/bert/pooler/dense/Gemm", "head"),
        ("/qa_outputs/MatMul", "head"),
        ("<none>", engine_profiles.OTHER),
    ],
)
def test_a_step_belongs_to_the_part_of_its_first_name(name: str, part: str) -> None:
    assert engine_profiles.part_of(name) == part


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize(
    "engine", [pytest.param("deepsparse", marks=needs_deepsparse), "onnxruntime", "openvino"]
)
def test_every_engine_tells_its_parts(
    exports: dict[str, Path],  # noqa: F811
    engine: str,
    kind: str,
) -> None:
    found = engine_profiles.profile(exports[kind], engine, 1, 16, 1)
    assert list(found.index) == [*engine_profiles.PARTS, engine_profiles.OTHER]
    # Products this small are fused with their neighbours, so not every part has a step.
    assert (found.drop(engine_profiles.OTHER) > 0).sum() >= 3


def test_layers_of_other_names_are_not_added_up(
    exports: dict[str, Path],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = [("/distilbert/transformer/layer.0/attention/q_lin/MatMul", 1.0)]
    monkeypatch.setattr(engine_profiles, "steps_of", lambda *asked: named)
    table, failed = engine_profiles.profiles([("some", exports["dense"], "onnxruntime", 1)], 16, 1)
    assert table.empty
    assert "not named as BERT's layers are" in failed["some, onnxruntime, batch 1"]


def test_what_has_no_profiler(exports: dict[str, Path]) -> None:  # noqa: F811
    with pytest.raises(UserError, match="No profile of 'torch'"):
        engine_profiles.profile(exports["dense"], "torch")


def test_the_command_prints_stores_and_draws(
    exports: dict[str, Path],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = engine_profiles.profile

    def refuses(model: Path, engine: str, batch_size: int, *rest: object) -> object:
        if engine == "openvino" or batch_size == 1:
            raise EngineError("OpenVino refused (prepare): no")
        return real(model, engine, batch_size, *rest)

    monkeypatch.setattr(engine_profiles, "profile", refuses)
    places = ["--output", str(tmp_path / "p.json"), "--plot", str(tmp_path / "p.png")]
    engines = ["--engines", "onnxruntime,openvino", "--num_cores", "1", "--sequence_length", "16"]
    engines += ["--batch_sizes", "1,2"]
    assert main(["profile", str(exports["sparse"]), *engines, *places, "--json"]) == 0
    text = capsys.readouterr().out
    report, stored = (
        json.loads(text.splitlines()[-1]),
        json.loads((tmp_path / "p.json").read_text()),
    )
    assert report["ms"] == stored["ms"]
    assert list(stored["ms"]) == ["sparse, onnxruntime, batch 2"]
    assert set(stored["errors"].values()) == {"OpenVino refused (prepare): no"}
    assert len(stored["errors"]) == 3
    assert {"command", "machine", "versions"} <= set(stored)
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_a_checkpoint_is_to_be_exported_first(
    dense: Checkpoint, capsys: pytest.CaptureFixture
) -> None:
    assert main(["profile", str(dense.folder), "--engines", "onnxruntime"]) == 2
    assert "is: checkpoint. Export it first." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "Nothing to profile"),
        (["m", "--engines", "torch"], "No profile of engine 'torch'"),
        (["m", "--batch_sizes", "0"], "--batch_sizes has '0'"),
        (["m", "--sequence_length", "0"], "--sequence_length has '0'"),
        (["m", "--plot", "x.txt"], "--plot x.txt"),
        (["no-such-folder"], "There is no model no-such-folder"),
    ],
)
def test_bad_input(flags: list[str], reason: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["profile", *flags]) == 2
    assert reason in capsys.readouterr().err
