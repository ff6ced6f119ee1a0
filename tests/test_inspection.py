"""Inspection: every figure is counted in the file, and what looks wrong there is said."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from helpers import export, inspection, models, onnx_weights, sparsity, structure
from helpers.__main__ import main
from helpers.errors import UserError
from helpers.inspection import Inspection
from helpers.recipes import load_recipe
from helpers.stops import Checkpoint

QUERY = "bert.encoder.layer.0.attention.self.query"
MATRIX = np.arange(-12, 20, dtype=np.float32).reshape(4, 8)  # [inputs, outputs], one zero


def at(found: Inspection, layer: str) -> dict:
    """Return the row of a layer."""
    (row,) = found.weights[found.weights.weight == layer].to_dict("records")
    return row


def test_tied_matrices_count_once() -> None:
    words = torch.arange(12.0).reshape(3, 4)
    others = [words.clone(), words + 1, torch.zeros(4), torch.zeros(4)]
    assert [t.shape for t in inspection.untied([words, *others])] == [(3, 4), (3, 4), (4,), (4,)]


@pytest.fixture
def copied(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies a checkpoint without its seal, and changes one weight."""

    def copy(checkpoint: Checkpoint, name: str = "", value: float = 0.0) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(checkpoint.folder, folder, ignore=shutil.ignore_patterns("run.json"))
        if name:
            # Cloned, because the file that is written anew may still be mapped into memory.
            stored = load_file(folder / "model.safetensors")
            state = {key: tensor.clone() for key, tensor in stored.items()}
            state[name].fill_(value)
            save_file(state, folder / "model.safetensors")
        return folder

    return copy


def test_a_dense_checkpoint_is_fp32_without_zeros(dense: Checkpoint) -> None:
    found = inspection.inspect(dense.folder)
    model = models.load_model(dense)
    assert found.kind == "checkpoint"
    assert found.totals["parameters"] == sum(p.numel() for p in model.parameters())
    assert found.totals["encoder_zeros"] < 0.01
    assert found.totals["int8_products"] == 0
    file = dense.folder / "model.safetensors"
    assert found.totals["file_bytes"] == file.stat().st_size > found.totals["zipped_bytes"] > 0
    assert found.weights.part.value_counts().to_dict() == {
        "encoder": 12,
        "embeddings": 3,
        "head": 2,
    }
    assert set(found.weights.precision) == {"fp32"}
    assert at(found, QUERY)["shape"] == (32, 32)
    assert at(found, QUERY)["bytes"] == 32 * 32 * 4
    assert found.warnings == []


def test_a_pruned_checkpoint_shows_the_zeros_of_its_layers(pruned: Checkpoint) -> None:
    found = inspection.inspect(pruned.folder)
    expected = sparsity.layer_sparsity(models.load_model(pruned))
    for row in expected[expected.layer >= 0].itertuples():
        layer = f"bert.encoder.layer.{row.layer}.{row.matrix}"
        assert at(found, layer)["zeros"] == pytest.approx(row.sparsity)
    assert found.totals["encoder_zeros"] == pytest.approx(0.8, abs=0.01)
    assert found.warnings == []


def test_int8_is_counted_as_in_the_rebuilt_model(sparse_int8: Checkpoint) -> None:
    found = inspection.inspect(sparse_int8.folder)
    kinds = sparsity.quantized_modules(models.load_model(sparse_int8)).kind.value_counts()
    assert found.totals["int8_products"] == kinds["Linear"] + kinds["MatMul"] == 18
    assert set(found.weights.precision) == {"int8 by QAT"}
    assert found.warnings == []


@pytest.mark.parametrize("kind", ["dense", "sparse_int8"])
def test_an_onnx_file_has_the_zeros_of_its_checkpoint(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(kind)
    quantized = kind == "sparse_int8"
    model = models.load_model(checkpoint)
    export.write_graph(model, tmp_path / "m.onnx", quantized=quantized)
    found, source = inspection.inspect(tmp_path), inspection.inspect(checkpoint.folder)
    assert found.kind == "onnx"
    assert found.totals["parameters"] == source.totals["parameters"]
    assert found.totals["int8_products"] == source.totals["int8_products"]
    assert set(found.weights.precision) == {"int8" if quantized else "fp32"}
    # An exporter may store a shared or a renamed matrix, but no other shapes and no other zeros.
    for row in source.weights.to_dict("records"):
        same = at(found, row["weight"])
        assert same["shape"] == row["shape"]
        assert same["zeros"] >= row["zeros"] - sparsity.TOLERANCE, "rounding only adds zeros"
        assert same["blocks"] >= row["blocks"] - sparsity.TOLERANCE, "and blocks lie as in Torch"
    assert found.warnings == []


def test_blocks_are_told_from_single_zeros() -> None:
    zero = np.zeros((2, 10), dtype=bool)
    zero[0, 2:6] = True  # four in a row, but across two blocks
    assert inspection.in_blocks(zero) == 0.0
    zero[0, 0:8] = True
    assert inspection.in_blocks(zero) == 8 / 20
    assert inspection.in_blocks(zero.T) == 0.0
    assert inspection.in_blocks(np.ones((3, 2), dtype=bool)) == 0.0, "too narrow for a block"
    assert inspection.in_blocks(np.ones((0, 4), dtype=bool)) == 0.0


def test_a_plain_hugging_face_folder_in_parts_and_half_precision(tmp_path: Path) -> None:
    weight = torch.ones(8, 8)
    weight[:, :4] = 0
    parts = [
        {"h.0.mlp.weight": weight.bfloat16(), "h.0.norm.weight": torch.ones(8)},
        {"wte.embeddings.weight": torch.ones(5, 8), "ids": torch.zeros(1, 8, dtype=torch.int64)},
    ]
    for number, part in enumerate(parts, 1):
        save_file(part, tmp_path / f"model-0000{number}-of-00002.safetensors")
    found = inspection.inspect(tmp_path)
    assert found.totals["parameters"] == 64 + 8 + 40
    row = at(found, "h.0.mlp")
    assert (row["zeros"], row["blocks"], row["precision"]) == (0.5, 0.5, "bf16")
    assert row["bytes"] == 64 * 2
    assert found.totals["encoder_zeros"] == 0.5
    assert found.warnings == []


def test_a_pickled_folder_is_read_and_code_in_it_never_run(tmp_path: Path) -> None:
    torch.save({"h.0.mlp.weight": torch.ones(4, 4)}, tmp_path / "pytorch_model.bin")
    assert inspection.inspect(tmp_path).totals["parameters"] == 16

    class Hostile:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "owned",)

    with (tmp_path / "pytorch_model.bin").open("wb") as stream:
        pickle.dump({"h.0.mlp.weight": Hostile()}, stream)
    with pytest.raises(UserError, match=r"pytorch_model.bin in .* cannot be read"):
        inspection.inspect(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_dense_encoder_under_a_pruning_recipe_is_noticed(
    dense: Checkpoint, pruned: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(dense)
    shutil.copy(pruned.folder / "recipe.yaml", folder)
    (warning,) = inspection.inspect(folder).warnings
    assert "promises 80.0% zeros, 12 of 12 matrices have fewer" in warning


def test_qat_in_the_recipe_and_none_in_the_weights_is_noticed(
    dense: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(dense)
    (folder / "recipe.yaml").write_text(load_recipe("minilm-6layers_quant").text)
    assert inspection.inspect(folder).warnings == ["recipe.yaml has QAT, but no weight is int8."]


def test_a_recipe_of_two_stages_is_held_to_both(
    dense: Checkpoint, copied: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copied(dense)
    (tmp_path / "first.yaml").write_text(load_recipe("minilm-6layers_prune80").text)
    second = load_recipe("minilm-6layers_quant").text
    structure.write_recipe(tmp_path / "first.yaml", second, folder / "recipe.yaml")
    dense_one, float_one = inspection.inspect(folder).warnings
    assert "12 of 12 matrices have fewer" in dense_one
    assert "no weight is int8" in float_one


def test_single_zeros_where_blocks_were_promised_are_noticed(
    pruned: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(pruned)
    text = (folder / "recipe.yaml").read_text()
    assert "mask_type: unstructured" in text
    blocks = text.replace("mask_type: unstructured", "mask_type: [1, 4]")
    (folder / "recipe.yaml").write_text(blocks)
    (warning,) = inspection.inspect(folder).warnings
    assert "promises zeros in blocks of four, 12 of 12 matrices have others" in warning


def test_a_recipe_for_other_layers_or_no_recipe_at_all_is_noticed(
    pruned: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(pruned)
    text = (folder / "recipe.yaml").read_text()
    other = text.replace("encoder[.]layer", "decoder[.]layer")
    (folder / "recipe.yaml").write_text(other)
    assert all("no matrix here has such a name" in w for w in inspection.inspect(folder).warnings)
    assert len(inspection.inspect(folder).warnings) == 6
    (folder / "recipe.yaml").write_text("num_epochs: [")
    (warning,) = inspection.inspect(folder).warnings
    assert warning.startswith("recipe.yaml cannot be read: recipe.yaml is not YAML")


def test_int8_without_the_recipe_that_made_it_is_noticed(
    sparse_int8: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(sparse_int8)
    (folder / "recipe.yaml").unlink()
    (warning,) = inspection.inspect(folder).warnings
    assert "nothing can rebuild the model" in warning


def test_attention_left_in_float_is_noticed(
    sparse_int8: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(sparse_int8)
    file = folder / "pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save({k: v for k, v in state.items() if "_matmul." not in k}, file)
    found = inspection.inspect(folder)
    assert found.totals["int8_products"] == 14
    assert found.warnings[0].startswith("4 products of two activations (attention) stay in float")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("classifier.weight", 0.0, "Nothing but zeros in 1 matrices (first: classifier)."),
        ("bert.pooler.dense.bias", float("nan"), "NaN or infinity in 1 tensors"),
        (f"{QUERY}.weight", float("inf"), f"NaN or infinity in 1 tensors (first: {QUERY}.weight)"),
    ],
)
def test_weights_that_no_healthy_model_has_are_noticed(
    name: str, value: float, expected: str, dense: Checkpoint, copied: Callable[..., Path]
) -> None:
    (warning,) = inspection.inspect(copied(dense, name, value)).warnings
    assert expected in warning


def test_a_checkpoint_changed_after_its_run_is_still_shown(
    dense: Checkpoint, copied: Callable[..., Path]
) -> None:
    folder = copied(dense, "classifier.weight", 1.0)
    shutil.copy(dense.folder / "run.json", folder)
    found = inspection.inspect(folder)
    assert len(found.weights) == 17
    assert "was changed after the run ended" in found.warnings[0]


def graph(
    nodes: list[onnx.NodeProto], stored: dict[str, np.ndarray], file: Path, **saving: object
) -> Inspection:
    """Write a graph x -> y, and look into it."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(made), str(file), **saving)
    return inspection.inspect(file)


def test_qdq_weights_are_int8_around_their_own_zero_point(tmp_path: Path) -> None:
    stored = np.full((8, 4), 7, dtype=np.int8)  # [inputs, outputs]
    stored[:4] = 3
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    small = {"s": np.float32(0.1), "z": np.uint8(128), "wz": np.int8(3)}
    found = graph(nodes, {"w": stored, **small}, tmp_path / "m.onnx")
    (row,) = found.weights.to_dict("records")
    assert (row["precision"], row["zeros"], row["blocks"]) == ("int8", 0.5, 0.5)
    assert (row["shape"], row["bytes"]) == ((4, 8), 32)
    assert found.totals["int8_products"] == 1
    assert found.totals["encoder_zeros"] is None


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_has_its_own_zero_point(axis: int, tmp_path: Path) -> None:
    stored = np.array([[1, 1], [2, 5]], dtype=np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "wz"], ["wd"], axis=axis),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    small = {"s": np.ones(2, np.float32), "wz": np.array([1, 2], dtype=np.uint8)}
    found = graph(nodes, {"w": stored, **small}, tmp_path / "m.onnx")
    assert list(found.weights.zeros) == [{0: 0.75, 1: 0.25}[axis]]
    assert found.totals["int8_products"] == 0, "activations stay in float"


def test_the_integer_operators_and_tables_are_listed(tmp_path: Path) -> None:
    table = np.full((5, 8), 128, dtype=np.uint8)
    weight = np.full((8, 4), 130, dtype=np.uint8)
    weight[:, 0] = 128
    nodes = [
        helper.make_node("Gather", ["emb.embeddings.weight_quant", "x"], ["e"]),
        helper.make_node("DequantizeLinear", ["e", "s", "z"], ["ed"]),
        helper.make_node("QuantizeLinear", ["ed", "s", "z"], ["eq"]),
        helper.make_node(
            "MatMulInteger", ["eq", "a", "z", "z"], ["p"], name="/layer/0/MatMul_quant"
        ),
        helper.make_node("QLinearMatMul", ["eq", "s", "z", "b", "s", "z", "s", "z"], ["y"]),
    ]
    stored = {"emb.embeddings.weight_quant": table, "a": weight, "b": weight}
    small = {"s": np.float32(0.1), "z": np.uint8(128)}
    found = graph(nodes, {**stored, **small}, tmp_path / "m.onnx")
    assert list(found.weights.weight) == ["emb.embeddings", "a", "b"]
    assert list(found.weights.zeros) == [1.0, 0.25, 0.25]
    assert list(found.weights["shape"]) == [(5, 8), (4, 8), (4, 8)]
    assert found.totals["int8_products"] == 2
    assert found.warnings == ["Nothing but zeros in 1 matrices (first: emb.embeddings)."]


def test_weights_are_found_behind_transposes_and_in_constants(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(MATRIX, "inside")
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["h"], name="/layer.1/dense/MatMul"),
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("Gemm", ["h", "c"], ["g"], transB=0),
        helper.make_node("Gemm", ["g", "onnx::Gemm_7"], ["y"], transB=1, name="/head/Gemm"),
    ]
    found = graph(nodes, {"w": MATRIX, "onnx::Gemm_7": MATRIX}, tmp_path / "m.onnx")
    assert list(found.weights.weight) == ["w", "c", "head"]
    assert list(found.weights["shape"]) == [(4, 8), (8, 4), (4, 8)]
    assert list(found.weights.zeros) == [1 / 32] * 3


def test_data_outside_the_file_counts_and_has_to_be_there(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    big = np.ones((64, 64), dtype=np.float32)
    saving = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
    found = graph(nodes, {"w": big}, tmp_path / "m.onnx", **saving)
    assert found.totals["file_bytes"] > big.nbytes
    (tmp_path / "m.data").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match="needs 16,384 bytes of m.data, which has 100"):
        inspection.inspect(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    with pytest.raises(UserError, match="needs m.data beside it, which is missing"):
        inspection.inspect(tmp_path / "m.onnx")


def test_data_of_another_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    (tmp_path / "model").mkdir()
    tensor = TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = helper.make_model(helper.make_graph([node], "g", [], [], [tensor]))
    (tmp_path / "model" / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(UserError, match="points to data outside its folder"):
        inspection.inspect(tmp_path / "model" / "m.onnx")


def test_a_graph_that_goes_round_in_circles_ends(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["b"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("MatMul", ["x", "a"], ["y"]),
    ]
    assert graph(nodes, {}, tmp_path / "m.onnx").warnings == ["No weight matrices were found."]


def test_attention_in_float_beside_int8_weights_is_noticed(tmp_path: Path) -> None:
    weight = np.full((4, 4), 3, dtype=np.int8)
    nodes = [
        helper.make_node("MatMulInteger", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "x"], ["y"]),
    ]
    found = graph(nodes, {"w": weight}, tmp_path / "m.onnx")
    assert found.warnings[0].startswith("1 products of two activations")


def test_broken_things_are_refused(dense: Checkpoint, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph(nodes, {"w": MATRIX}, tmp_path / "m.onnx")
    whole = (tmp_path / "m.onnx").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"<html>not found</html>"):
        (tmp_path / "m.onnx").write_bytes(content)
        with pytest.raises(UserError, match="not an ONNX file"):
            inspection.inspect(tmp_path / "m.onnx")
    weights = (dense.folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(UserError, match="model.safetensors in .* cannot be read"):
        inspection.inspect(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin"):
        inspection.inspect(tmp_path)
    torch.save({"epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="holds no tensors"):
        inspection.inspect(tmp_path)


def test_a_tensor_shorter_than_its_shape_is_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT, raw_data=b"\0" * 12)
    with pytest.raises(UserError, match="The tensor w is damaged"):
        onnx_weights.values(tensor)


def test_the_command_prints_rows_totals_and_one_json_line(
    pruned: Checkpoint, capsys: pytest.CaptureFixture
) -> None:
    assert main(["inspect", str(pruned.folder), "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    report = json.loads(last)
    assert report["totals"] == inspection.inspect(pruned.folder).totals
    assert len(report["weights"]) == 17
    row = next(line for line in lines if line.split()[:1] == [QUERY])
    assert row.split()[1:4] == ["encoder", "32x32", "80.0%"]
    assert "zeros in encoder   80.0%" in lines
    assert lines[-1] == "no warnings"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "Nothing to look into"),
        (["absent"], "absent does not exist"),
        (["notes.txt"], "notes.txt is neither a folder nor an .onnx file"),
        (["."], "holds no weights and no .onnx file"),
        (["two"], "holds 2 .onnx files; name one"),
    ],
)
def test_what_cannot_be_looked_into_is_refused(
    argv: list[str], expected: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.onnx").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *argv]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert len(message.splitlines()) == 1
