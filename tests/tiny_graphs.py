"""A small encoder written node by node: an ONNX file of any form in a millisecond."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
WIDTH, LABELS = 8, 3


def encoder(
    file: Path,
    inputs: tuple[str, ...] = INPUTS,
    *,
    dtype: int = TensorProto.INT64,
    shape: tuple[int | str, int | str] = ("batch", "tokens"),
    words: int = 30522,
    positions: int = 0,
    broken: bool = False,
    **saving: Any,
) -> Path:
    """Write an encoder whose logits [batch, labels] depend on every one of its inputs.

    Args:
        file: where to.
        inputs: their names; `position_ids` are looked up in a table.
        dtype: type of the inputs.
        shape: of the inputs; a word is a free axis.
        words: rows of the table of words.
        positions: rows of a table of positions that the graph counts itself.
        broken: put NaN among the weights.
        saving: how `onnx.save_model` keeps external data.
    """
    rng = np.random.default_rng(0)
    weights = {"words": rng.normal(size=(words, WIDTH)), "w": rng.normal(size=(WIDTH, LABELS))}
    if broken:
        weights["w"][0, 0] = np.nan
    nodes, last = [helper.make_node("Gather", ["words", inputs[0]], ["looked_up"])], "looked_up"
    for name in inputs[1:]:
        more, tensors = another(name, last, rng)
        nodes, weights, last = [*nodes, *more], weights | tensors, f"with_{name}"
    stored = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    if positions:
        more, tensors = counted(inputs[0], last, positions)
        nodes, stored, last = [*nodes, *more], [*stored, *tensors], "placed"
    nodes.append(helper.make_node("MatMul", [last, "w"], ["scores"]))
    nodes.append(helper.make_node("ReduceMean", ["scores"], ["logits"], axes=[1], keepdims=0))
    given = [helper.make_tensor_value_info(name, dtype, shape) for name in inputs]
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], LABELS])
    graph = helper.make_graph(nodes, "encoder", given, [answer], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(model, str(file), **saving)
    return file


def another(name: str, last: str, rng: np.random.Generator) -> tuple[list, dict[str, np.ndarray]]:
    """Return nodes that work one more input into the hidden states, and their weights."""
    target = f"with_{name}"
    if name.endswith("_mask"):
        nodes = [
            helper.make_node("Cast", [name], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "axes"], ["wide"]),
            helper.make_node("Mul", [last, "wide"], [target]),
        ]
        axes = numpy_helper.from_array(np.array([-1]))
        return [helper.make_node("Constant", [], ["axes"], value=axes), *nodes], {}
    nodes = [
        helper.make_node("Gather", [f"table_{name}", name], [f"row_{name}"]),
        helper.make_node("Add", [last, f"row_{name}"], [target]),
    ]
    return nodes, {f"table_{name}": rng.normal(size=(64, WIDTH))}


def counted(words: str, last: str, positions: int) -> tuple[list, list]:
    """Return nodes that look positions up in a list of all, as exporters write it."""
    table = np.random.default_rng(1).normal(size=(positions, WIDTH)).astype(np.float32)
    stored = {"places": table, "all": np.arange(positions)[None], "0": np.array([0])}
    stored |= {"1": np.array([1])}
    nodes = [
        helper.make_node("Shape", [words], ["sizes"]),
        helper.make_node("Gather", ["sizes", "1"], ["tokens"]),
        helper.make_node("Slice", ["all", "0", "tokens", "1"], ["first"]),
        helper.make_node("Gather", ["places", "first"], ["place"]),
        helper.make_node("Add", [last, "place"], ["placed"]),
    ]
    return nodes, [numpy_helper.from_array(v, n) for n, v in stored.items()]


def texts(
    batch: int = 2, tokens: int = 8, inputs: tuple[str, ...] = INPUTS
) -> dict[str, np.ndarray]:
    """Return random words, the second half of the first text masked, as int64 [batch, tokens]."""
    found = {name: np.zeros((batch, tokens), dtype=np.int64) for name in inputs}
    found[inputs[0]] = np.random.default_rng(2).integers(5, 400, (batch, tokens))
    if "attention_mask" in found:
        found["attention_mask"][:] = 1
        found["attention_mask"][0, tokens // 2 :] = 0
    if "position_ids" in found:
        found["position_ids"][:] = np.arange(tokens)
    return found


def logits(file: Path) -> np.ndarray:
    """Return ONNX Runtime's logits for two fixed texts."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(0).integers(1000, 5000, (2, 12))
    ones = np.ones_like(ids)
    feed = {"input_ids": ids, "attention_mask": ones, "token_type_ids": 0 * ones}
    return session.run(None, feed)[0]
