"""The arithmetic of a model: known by its shape, less its zeros, the same by two counts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_engines import onnx_file  # noqa: F401 - a fixture

from helpers import arithmetic, engines, load_recipe, shapes, sparsity
from helpers.errors import UserError

LAYERS, WIDTH, HEADS, INNER = 2, 64, 2, 128
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "vocab_size": 30522,
}
BATCH, TOKENS = 3, 16


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Return the folders of a dense model and a sparse int8 one of the same shape."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(shapes.SHAPES, "tiny", SHAPE)
        place = tmp_path_factory.mktemp("shapes")
        shapes.export_random("tiny", place / "dense")
        recipe = load_recipe("minilm-6layers_prune90_quant")
        shapes.export_random("tiny", place / "sparse", recipe=recipe, form="both")
        yield {name: place / name for name in ("dense", "sparse")}


def test_the_arithmetic_of_bert_is_that_of_its_shape(exports: dict[str, Path]) -> None:
    work = arithmetic.count(exports["dense"] / "model.onnx", BATCH, TOKENS)
    weights = LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)
    attention = LAYERS * 2 * TOKENS * WIDTH
    head = WIDTH**2 + WIDTH * 2  # once a text, not once a token
    assert work.all == work.needed == BATCH * (TOKENS * (weights + attention) + head)
    assert work.weight_bytes == 4 * (weights + head)


@pytest.mark.parametrize("name", ["model.onnx", "model_qdq.onnx"])
def test_zeros_are_not_needed_and_int8_takes_a_quarter_of_the_bytes(
    exports: dict[str, Path], name: str
) -> None:
    dense = arithmetic.count(exports["dense"] / "model.onnx", BATCH, TOKENS)
    sparse = arithmetic.count(exports["sparse"] / name, BATCH, TOKENS)
    assert (sparse.all, 4 * sparse.weight_bytes) == (dense.all, dense.weight_bytes)
    matrices = sparsity.onnx_sparsity(exports["sparse"] / name)
    # In the order of use: the encoder's for every token, pooler and classifier once a text.
    calls = [BATCH * TOKENS] * (len(matrices) - 2) + [BATCH] * 2
    zeros = matrices.sparsity * [rows * columns for rows, columns in matrices["shape"]]
    assert zeros.sum() > 0.8 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)
    assert sparse.all - sparse.needed == round((zeros * calls).sum())


def test_openvino_counts_the_same(exports: dict[str, Path]) -> None:
    for file in (exports["dense"] / "model.onnx", exports["sparse"] / "model_qdq.onnx"):
        with engines.open_engine(file, "openvino") as process:
            found = process.prepare(BATCH, TOKENS, 1)["multiply_adds"]
        assert found == arithmetic.count(file, BATCH, TOKENS).all


def test_an_exporter_of_another_kind(onnx_file: Path) -> None:  # noqa: F811
    work = arithmetic.count(onnx_file, 1, 8)
    assert work.all == work.needed > 0


def test_what_is_no_onnx_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("no model")
    with pytest.raises(UserError, match="ONNX"):
        arithmetic.count(tmp_path / "m.onnx", 1, 8)
