"""Notebook 10's complaints really happen with the libraries as they come, and only where they do.

Each test holds the broken thing beside the sound one.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from helpers import export, load_recipe, models, sparsity, symptoms
from helpers.errors import UserError
from helpers.stops import Checkpoint, sha256
from helpers.tasks import Task

pytestmark = pytest.mark.usefixtures("one_thread")


def encoder(table: pd.DataFrame) -> pd.Series:
    """Return the zeros of each encoder layer, 0 to 1."""
    return table[table.layer >= 0].groupby("layer").sparsity.mean()


def test_an_int8_checkpoint_loaded_plainly_is_random(
    pruned: Checkpoint, sparse_int8: Checkpoint, tiny_task: Task
) -> None:
    network, missing = symptoms.loaded_plainly(sparse_int8)
    assert any("query" in name for name in missing)
    sound = models.load_model(sparse_int8)
    found = [symptoms.accuracy(one, sparse_int8, tiny_task) for one in (network, sound)]
    assert found[0] < found[1] - 0.2
    assert symptoms.loaded_plainly(pruned)[1] == [], "fp32 has the usual names"


def test_a_narrow_pattern_leaves_a_layer_out(dense: Checkpoint) -> None:
    recipe = load_recipe("minilm-6layers_prune80", num_epochs=1).text
    assert encoder(symptoms.at_once(recipe, dense)).min() > 0.75
    narrow = encoder(symptoms.at_once(recipe.replace("[0-9]+", "[1-9]+"), dense))
    assert narrow[0] < 0.01 and narrow[1] > 0.75


def test_a_loop_that_ends_before_the_recipe_prunes_nothing(dense: Checkpoint) -> None:
    long, short = (load_recipe("minilm-6layers_prune80", num_epochs=n).text for n in (40, 2))
    assert encoder(symptoms.own_loop(long, dense, epochs=2)).max() < 0.01
    assert encoder(symptoms.own_loop(short, dense, epochs=2)).min() > 0.75


def test_one_plain_step_fills_the_zeros_in(pruned: Checkpoint, tiny_task: Task) -> None:
    assert encoder(sparsity.layer_sparsity(models.load_model(pruned))).min() > 0.75
    assert encoder(symptoms.one_plain_step(pruned, tiny_task)).max() < 0.2


def test_deepsparse_writes_its_shape_into_the_file(pruned: Checkpoint, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export.write_graph(models.load_model(pruned), file, quantized=False)
    copy = shutil.copy(file, tmp_path / "copy.onnx")
    symptoms.compile_for_short_texts(copy)
    assert sha256(copy) != sha256(file)
    copy.write_bytes(b"no model")
    with pytest.raises(UserError, match="DeepSparse does not compile copy.onnx"):
        symptoms.compile_for_short_texts(copy)
