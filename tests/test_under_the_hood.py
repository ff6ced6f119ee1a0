"""What notebook 9 is given: what SparseML really made, and not what it ought to have made."""

import json
from dataclasses import replace

import pytest
import torch

from helpers import load_recipe, under_the_hood
from helpers.environment import REPOSITORY

pytestmark = pytest.mark.usefixtures("one_thread")


def written_by_hand() -> dict:
    """Return the functions of the notebook, out of its cells."""
    names: dict = {"torch": torch}
    notebook = json.loads((REPOSITORY / "notebooks" / "09_under_the_hood.ipynb").read_text())
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("def "):
            exec(compile(source, "cell", "exec"), names)
    return names


def test_masks_are_those_of_the_weights_they_come_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_the_hood, "STEPS_PER_EPOCH", 20)
    hand = written_by_hand()
    recipe = load_recipe("minilm-6layers_prune80", num_epochs=1)
    made = under_the_hood.masks_of(recipe)
    assert [one.sparsity for one in made] == sorted({one.sparsity for one in made})
    assert made[-1].sparsity == 0.8
    assert len(made) == 11, "from 0.1 to 0.6 epochs, at every step of 0.05"
    assert not torch.equal(made[0].weights, made[1].weights), "they move in between"
    for one in made:
        assert hand["same_mask"](hand["mask_of"](one.weights, one.sparsity), one)
        assert hand["zeros_at"](one.epoch, 0.05, 0.6, 0.8) == one.sparsity
    # The faults: another share, one weight too many on either side.
    assert not hand["same_mask"](hand["mask_of"](made[0].weights, made[1].sparsity), made[0])
    ours = hand["mask_of"](made[0].weights, made[0].sparsity)
    ours[made[0].weights.abs() == made[0].weights.abs().max()] = 0
    assert not hand["same_mask"](ours, made[0])
    theirs = replace(made[0], mask=ours)
    assert not hand["same_mask"](hand["mask_of"](theirs.weights, theirs.sparsity), theirs)


def test_roundings_are_what_sparseml_computes_with() -> None:
    hand = written_by_hand()
    texts = [["a boat"], ["a star and the wide sky"]]
    weights, inputs = under_the_hood.roundings_of(load_recipe("minilm-6layers_quant"), texts)
    assert (len(weights.seen), len(inputs.seen)) == (2, 2)
    scale = hand["weight_scale"](weights.seen[-1])
    assert torch.equal(scale, weights.scale[0]) and int(weights.zero_point) == 0
    scale, zero_point = hand["input_range"](inputs.seen)
    assert torch.equal(scale, inputs.scale[0]) and int(zero_point) == int(inputs.zero_point)
    ends = (inputs.lowest, inputs.highest)
    rounded = hand["fake_quantize"](inputs.seen[-1], scale, zero_point, *ends)
    assert torch.equal(rounded, inputs.rounded)
    # The faults: the last batch alone, and a scale that is off by its last digits.
    alone, _ = hand["input_range"](inputs.seen[-1:])
    assert not torch.equal(alone, inputs.scale[0])
    off = hand["fake_quantize"](inputs.seen[-1], scale * (1 + 1e-5), zero_point, *ends)
    assert not torch.equal(off, inputs.rounded)
