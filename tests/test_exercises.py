"""Exercises: the check computes the truth, and the solution printed in a notebook is right.

The solutions are taken out of the notebooks' folded cells and run, so that text and check cannot
drift apart.
"""

import math
import re
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

import helpers
from helpers import compat, exercises, models, notebooks, sparsity
from helpers.stops import Checkpoint, OnnxModel

SIX_LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.fixture(scope="module")
def int8(integer: Path) -> OnnxModel:
    """Return the export of the tiny sparse int8 model."""
    return OnnxModel(integer.parent, {})


@pytest.fixture
def six_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the check of 03 see a model with as many layers as MiniLM, as QAT leaves it."""
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(**SIX_LAYERS))
    compat.make_attention_quantizable(model)
    helpers.load_recipe("minilm-6layers_quant").manager().apply(model)
    monkeypatch.setattr(exercises, "load_model", lambda checkpoint: model)


def solution_text(notebook: str) -> str:
    """Return the code of the folded solution of a notebook."""
    (file,) = notebooks.ordered([notebook])
    cells = nbformat.read(file, as_version=4).cells
    (text,) = [cell.source for cell in cells if "<summary>Solution" in cell.source]
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    line = re.search(r"`(answer = [^`]+)`", text)
    return block[1] if block else line[1]


def solution(notebook: str, **names: Any) -> float:
    """Return the answer that the folded solution of a notebook computes from these names."""
    exec(solution_text(notebook), names)  # noqa: S102 - our own notebook's text
    return float(names["answer"])


def head(text: str) -> str:
    """Return the first word of a judgement: Right, Nearly or Not."""
    return re.split(r"\W", text)[0]


def test_without_an_answer_nothing_is_computed() -> None:
    nothing: Any = None
    waiting = [
        exercises.prunable_share(None, nothing),
        exercises.first_sparsity(None, nothing),
        exercises.int8_products(None, nothing),
        exercises.softened(None, nothing, 2.0),
        exercises.bits_per_weight(None, nothing, 0),
        exercises.seconds_saved(None, nothing, nothing, 1),
        exercises.windows_needed(None, nothing, 1, 1),
        exercises.rounding_error(None, nothing),
        exercises.tasks_until_cheaper(None, nothing, nothing, nothing, nothing),
        exercises.left_out(None, nothing),
    ]
    assert set(waiting) == {exercises.WAITING}
    nothing_to_count: Any = "70 %"
    assert "'70 %' is no number" in exercises.first_sparsity(nothing_to_count, nothing)


def test_01_share_of_the_encoder(dense: Checkpoint) -> None:
    table = sparsity.layer_sparsity(models.load_model(dense))
    truth = solution("01", models=models, dense=dense, table=table)
    assert 0 < truth < 1
    assert head(exercises.prunable_share(truth, dense)) == "Right"
    assert head(exercises.prunable_share(1.06 * truth, dense)) == "Nearly"
    assert "embedding" in exercises.prunable_share(0.9, dense)
    network = models.load_model(dense)
    table = sparsity.layer_sparsity(network)
    every = sum(p.numel() for p in network.parameters())
    with_head = float((table["rows"] * table["columns"]).sum()) / every
    assert "Nearly: pooler" in exercises.prunable_share(with_head, dense)
    assert "between 0 and 1" in exercises.prunable_share(100 * truth, dense)


@pytest.mark.parametrize("num_epochs", [1, 2, 4])
def test_02_sparsity_half_way(num_epochs: int) -> None:
    recipe = helpers.load_recipe("minilm-6layers_prune80", num_epochs=num_epochs)
    assert head(exercises.first_sparsity(solution("02"), recipe)) == "Right"
    assert head(exercises.first_sparsity(73, recipe)) == "Nearly"
    assert "straight line" in exercises.first_sparsity(40, recipe)
    assert "asks for percent" in exercises.first_sparsity(0.7, recipe)


@pytest.mark.usefixtures("six_layers")
def test_03_the_printed_solution_fits_six_layers(sparse_int8: Checkpoint) -> None:
    assert head(exercises.int8_products(solution("03"), sparse_int8)) == "Right"


def test_03_int8_products(sparse_int8: Checkpoint) -> None:
    modules = sparsity.quantized_modules(models.load_model(sparse_int8))
    # 2 layers x (6 matrices + 2 attention products) + pooler + classifier.
    assert exercises.int8_products(18, sparse_int8) == "Right: 18."
    assert "weight matrices" in exercises.int8_products(14, sparse_int8)
    assert "no product" in exercises.int8_products(len(modules), sparse_int8)
    assert head(exercises.int8_products(17, sparse_int8)) == "Not"


def test_03_a_count_is_right_or_wrong(
    sparse_int8: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of many products one more or less is a small share.
    modules = sparsity.quantized_modules(models.load_model(sparse_int8))
    deep = pd.concat([modules] * 5)
    monkeypatch.setattr(sparsity, "quantized_modules", lambda _: deep)
    assert head(exercises.int8_products(90, sparse_int8)) == "Right"
    assert head(exercises.int8_products(91, sparse_int8)) == "Not"


def test_03_a_model_without_int8_has_none(dense: Checkpoint) -> None:
    assert head(exercises.int8_products(0, dense)) == "Right"
    assert head(exercises.int8_products(14, dense)) == "Not"


def test_04_softened() -> None:
    logits = [3.0, 1.0, 0.0]
    truth = solution("04", np=np)
    assert head(exercises.softened(truth, logits, 2.0)) == "Right"
    assert head(exercises.softened(1.06 * truth, logits, 2.0)) == "Nearly"
    at_one = float(np.exp(3) / np.exp(logits).sum())
    assert "temperature 1" in exercises.softened(at_one, logits, 2.0)
    assert "softmax" in exercises.softened(0.1, logits, 2.0)
    assert head(exercises.softened(at_one, logits, 1.0)) == "Right"


def run_of(minutes: float) -> Checkpoint:
    return Checkpoint(Path(), {"minutes": minutes})


def test_07_tasks_until_cheaper() -> None:
    stops = {"upstream": run_of(5.0), "dense_answers": run_of(1.0), "pruned_answers": run_of(2.0)}
    transfer = run_of(1.0)
    costs = pd.DataFrame({"minutes": [1.0, 3.0, 1.0]})
    truth = solution("07", upstream=stops["upstream"], on_questions=costs)
    assert truth == 3
    runs = [*stops.values(), transfer]
    assert head(exercises.tasks_until_cheaper(truth, *runs)) == "Right"
    assert head(exercises.tasks_until_cheaper(2.5, *runs)) == "Nearly"
    assert head(exercises.tasks_until_cheaper(2, *runs)) == "Nearly"
    assert head(exercises.tasks_until_cheaper(1.6, *runs)) == "Not"
    assert "less the transfer" in exercises.tasks_until_cheaper(9, *runs)
    never = [*stops.values(), run_of(3.0)]
    assert "Never, in this run" in exercises.tasks_until_cheaper(3, *never)


def test_09_rounding_error() -> None:
    weights = torch.tensor([[0.5, -2.55], [1.0, 0.0]])
    truth = solution("09", weights=weights, weight_scale=lambda w: w.abs().max() / 127.5)
    assert head(exercises.rounding_error(truth, weights)) == "Right"
    assert head(exercises.rounding_error(torch.tensor(truth), weights)) == "Right"
    assert head(exercises.rounding_error(np.array(truth), weights)) == "Right"
    assert "is no number" in exercises.rounding_error(weights, weights)
    assert head(exercises.rounding_error(1.05 * truth, weights)) == "Nearly"
    assert "a whole step" in exercises.rounding_error(2 * truth, weights)
    assert "half of one" in exercises.rounding_error(0.5, weights)


def test_10_left_out() -> None:
    rows = [(-1, 0.0), (0, 0.8), (0, 0.8), (1, 0.1), (1, 0.0), (2, 0.8)]
    patient = pd.DataFrame(rows, columns=["layer", "sparsity"])
    truth = solution("10", patient=patient)
    assert truth == 1
    assert exercises.left_out(truth, patient).startswith("Right: 1. It has 5% zeros")
    assert "counted from 0" in exercises.left_out(2, patient)
    assert "layer 0 has 80%" in exercises.left_out(0, patient)
    assert "no layer 7" in exercises.left_out(7, patient)


@pytest.mark.parametrize("number", range(1, 11))
def test_the_solutions_are_those_that_are_executed(number: int) -> None:
    last = nbformat.read(notebooks.ordered(["11"])[0], as_version=4)
    executed = "\n".join(cell.source for cell in last.cells if cell.cell_type == "code")
    lines = [line.strip() for line in solution_text(f"{number:02d}").splitlines()]
    assert not [line for line in lines if line not in executed and "import" not in line]


def test_05_bits_a_value(int8: OnnxModel) -> None:
    size = exercises.zipped_size(int8.file)
    truth = solution("05", exercises=exercises, int8=int8)
    assert 0 < truth < 8
    assert head(exercises.bits_per_weight(truth, int8, size)) == "Right"
    assert head(exercises.bits_per_weight(1.1 * truth, int8, size)) == "Nearly"
    assert "entropy" in exercises.bits_per_weight(2 * truth, int8, size)


def test_06_seconds_saved() -> None:
    calls = 1_000_000
    truth = solution("06", dense_ms=18.0, best_ms=3.0)
    assert truth == 15_000
    assert head(exercises.seconds_saved(truth, 18.0, 3.0, calls)) == "Right"
    assert head(exercises.seconds_saved(1.06 * truth, 18.0, 3.0, calls)) == "Nearly"
    assert "milliseconds" in exercises.seconds_saved(1000 * truth, 18.0, 3.0, calls)
    assert "divided by 1000" in exercises.seconds_saved(18_000, 18.0, 3.0, calls)


def test_08_windows(tiny_model: Path) -> None:
    sparse = Checkpoint(tiny_model, {"max_seq_length": 64, "doc_stride": 16})
    truth = solution("08", math=math, sparse=sparse)
    assert truth == 1 + math.ceil((1000 - 41) / (41 - 16))
    assert head(exercises.windows_needed(truth, sparse, 1000, 20)) == "Right"
    side_by_side = math.ceil(1000 / 41)
    assert "side by side" in exercises.windows_needed(side_by_side, sparse, 1000, 20)
    assert "Round up" in exercises.windows_needed(truth - 1, sparse, 1000, 20)
    many = 1 + math.ceil((100_000 - 41) / (41 - 16))
    assert head(exercises.windows_needed(many, sparse, 100_000, 20)) == "Right"
    assert head(exercises.windows_needed(many + 1, sparse, 100_000, 20)) == "Not"


def test_zipped_size_is_that_of_a_zip(tmp_path: Path) -> None:
    weights = torch.nn.functional.dropout(torch.rand(300, 1000), p=0.9).numpy()
    (tmp_path / "weights").write_bytes(weights.tobytes())
    with zipfile.ZipFile(tmp_path / "w.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "weights", "weights")
    (entry,) = zipfile.ZipFile(tmp_path / "w.zip").infolist()
    found = exercises.zipped_size(tmp_path / "weights")
    assert found == pytest.approx(entry.compress_size, rel=0.01)
    assert found < weights.nbytes / 2
