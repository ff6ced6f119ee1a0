"""Models with random weights: sparse and int8 as the recipe says, and proven like others."""

import json
from pathlib import Path

import pytest

from helpers import load_recipe, shapes, sparsity
from helpers.__main__ import main
from helpers.errors import ProofError, UserError

TINY = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 30522,
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a shape that a test can afford."""
    monkeypatch.setitem(shapes.SHAPES, "tiny", TINY)


def test_a_recipe_makes_a_random_model_sparse_and_int8(tmp_path: Path) -> None:
    recipe = load_recipe("minilm-6layers_prune90_quant")
    made = shapes.export_random("tiny", tmp_path / "out", recipe=recipe, form="both")
    found = {row["check"] for row in made.proof["checks"]}
    assert {"int8 products", "zeros", "deepsparse logits", "openvino logits"} <= found
    assert {"openvino runs int8", "onnxruntime runs int8"} <= found
    assert made.proof["source"] == "random weights, tiny"
    for name in ("model.onnx", "model_qdq.onnx"):
        matrices = sparsity.onnx_sparsity(made.folder / name)
        pruned = matrices[matrices.sparsity > 0.5]
        assert len(pruned) == 12
        # Rounding to int8 adds zeros; a range that was never set would leave nothing else.
        assert pruned.sparsity.between(0.89, 0.95).all()


def test_without_a_recipe_it_is_dense(tmp_path: Path) -> None:
    made = shapes.export_random("tiny", tmp_path / "out", form="both")
    assert [file.name for file in made.folder.glob("*.onnx")] == ["model.onnx"]
    assert sparsity.onnx_sparsity(made.file).sparsity.max() < 0.01


def test_ranges_that_were_not_set_fail_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "observe", lambda model: None)
    with pytest.raises(ProofError, match="their ranges were never set"):
        shapes.export_random("tiny", tmp_path / "out", recipe=load_recipe("minilm-6layers_quant"))
    assert not any(tmp_path.iterdir())


def test_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--onnx_export_path", str(tmp_path / "out")]
    flags = ["--recipe", "minilm-6layers_prune80", "--recipe_args", "final_sparsity=0.5", "--json"]
    assert main(["shape", "tiny", *out, *flags]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert sparsity.onnx_sparsity(Path(report["onnx"])).sparsity.max() == pytest.approx(
        0.5, abs=0.01
    )
    for wrong, reason in (
        (["tiny"], "Give a shape and --onnx_export_path"),
        (["gpt", "--onnx_export_path", str(tmp_path / "x")], "No shape 'gpt'"),
        (["tiny", *out], "already holds something"),
        (["tiny", *out, "--recipe_args", "a=1"], "no recipe to change"),
        (["tiny", *out, "--recipe", "nope"], "No recipe nope"),
    ):
        assert main(["shape", *wrong]) == 2
        message = capsys.readouterr().err
        assert reason in message and len(message.splitlines()) <= 2


def test_an_unknown_shape_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="Expected one of minilm, bert-base"):
        shapes.random_model("bert-huge")
