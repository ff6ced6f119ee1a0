"""What SparseML does inside, laid open for notebook 9: its masks, its int8 ranges and rounding.

Nothing here computes a mask or a scale. SparseML and Torch do, on real weights of MiniLM, and what
they have made is handed out as plain tensors to compare with.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from helpers import compat, models
from helpers.recipes import Recipe

if TYPE_CHECKING:
    from torch import nn
    from torch.ao.quantization import FakeQuantize

MATRIX = "encoder.layer.0.intermediate.dense"
# Steps longer than the recipes' distance between masks, so that each makes one; one as long is
# found too short here and there, by a rounding error. The last mask falls on a step, too.
STEPS_PER_EPOCH = 35
# Of the random steps between two masks; MiniLM's weights are some hundredths.
PUSH = 1e-3


@dataclass(frozen=True)
class Mask:
    """One mask that SparseML made.

    Attributes:
        epoch: when.
        sparsity: share of zeros SparseML asked for, 0 to 1.
        weights: the matrix it looked at, [outputs, inputs], before the mask.
        mask: 1.0 where a weight stays, 0.0 where it goes, [outputs, inputs].
    """

    epoch: float
    sparsity: float
    weights: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Rounding:
    """One fake-quantized tensor as Torch and SparseML made it.

    Attributes:
        seen: what the observer was shown, in order.
        rounded: the last of these after rounding.
        scale: size of a step.
        zero_point: the whole number that stands for 0.0.
        lowest: the smallest whole number.
        highest: the largest one.
    """

    seen: list[torch.Tensor]
    rounded: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    lowest: int
    highest: int


def first_layer() -> "nn.Module":
    """Return MiniLM with the first of its six layers: real weights, and quick."""
    from transformers import logging

    # It says which weights of the other layers are left out.
    logging.set_verbosity_error()
    source = models.resolve_model("minilm")
    network = models.loader(models.NO_HEAD).from_pretrained(source, num_hidden_layers=1)
    return compat.make_attention_quantizable(network)


def matrix_of(network: "nn.Module") -> torch.Tensor:
    """Return the matrix that is looked at, [1536 outputs, 384 inputs]."""
    return network.get_submodule(MATRIX).weight.detach().clone()


def masks_of(recipe: Recipe, seed: int = 0) -> list[Mask]:
    """Run a gradual pruning recipe by SparseML, with random steps; keep each mask with zeros.

    Args:
        recipe: with one GMPruningModifier.
        seed: of the steps by which the weights move in between.
    """
    network = first_layer()
    layer = network.get_submodule(MATRIX)
    weights = layer.weight
    optimizer = torch.optim.SGD(network.parameters(), lr=PUSH)
    manager = recipe.manager()
    manager.initialize(network, epoch=0)
    stepper = manager.modify(network, optimizer, steps_per_epoch=STEPS_PER_EPOCH)
    pruning = next(m for m in manager.iter_modifiers() if type(m).__name__ == "GMPruningModifier")
    torch.manual_seed(seed)
    found: list[Mask] = []
    for step in range(round(recipe.num_epochs * STEPS_PER_EPOCH)):
        weights.grad, before = torch.randn_like(weights), weights.detach().clone()
        stepper.step()
        asked = pruning.applied_sparsity
        if asked and asked[0] > 0 and (not found or asked[0] != found[-1].sparsity):
            masks = pruning.module_masks
            mask = masks.param_masks[masks.layers.index(layer)].clone()
            found.append(Mask(step / STEPS_PER_EPOCH, asked[0], before, mask))
    return found


def roundings_of(recipe: Recipe, texts: list[list[str]]) -> tuple[Rounding, Rounding]:
    """Make a model ready for int8 training by SparseML, show it texts, and keep what it rounds.

    Args:
        recipe: with a QuantizationModifier.
        texts: batches of texts, in the order they are read.

    Returns:
        The roundings of the matrix's weights and of its inputs [texts, tokens, 384].
    """
    network = first_layer().train()
    recipe.manager().apply_structure(network, epoch=math.inf)
    network.apply(torch.ao.quantization.enable_observer)
    wrapper = network.get_submodule(MATRIX)
    watched = [wrapper.module.weight_fake_quant, wrapper.quant.activation_post_process]
    seen = [watch(rounding) for rounding in watched]
    for batch in batches(texts):
        with torch.no_grad():
            network(**batch)
    weights, inputs = (made(*pair) for pair in zip(watched, seen, strict=True))
    return weights, inputs


def watch(rounding: "FakeQuantize") -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keep what goes into a rounding and what comes out, from now on."""
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def keep(_: object, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        kept.append((given[0].detach().clone(), result.detach().clone()))

    rounding.register_forward_hook(keep)
    return kept


def made(rounding: "FakeQuantize", kept: list[tuple[torch.Tensor, torch.Tensor]]) -> Rounding:
    """Return a rounding as it is after the last call."""
    return Rounding(
        [given for given, _ in kept],
        kept[-1][1],
        rounding.scale.clone(),
        rounding.zero_point.clone(),
        rounding.quant_min,
        rounding.quant_max,
    )


def batches(texts: list[list[str]]) -> Iterator[dict[str, torch.Tensor]]:
    """Turn batches of texts into what MiniLM takes."""
    tokenizer = models.load_tokenizer(models.resolve_model("minilm"))
    for some in texts:
        yield dict(
            tokenizer(some, padding=True, truncation=True, max_length=64, return_tensors="pt")
        )
