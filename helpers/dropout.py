"""Dropout that does not hold up a CPU: a third of a training step went into drawing its masks."""

import torch
from torch import nn

from helpers.errors import UserError

BITS = 16


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks cut out of long random numbers, several times faster on a CPU.

    Named as Torch's: recipes name the classes that stay out of int8.

    Torch draws one random number for each element, on one core. Here one 64-bit number decides
    over four elements, so `p` is met to within 1 in 65,536.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `input` with a share `p` set to zero and the rest scaled up, while training."""
        if not self.training or self.p == 0.0:
            return input
        numbers = torch.empty(-(-input.numel() // 4), dtype=torch.int64, device=input.device)
        draws = numbers.random_(-(2**63), None).view(torch.int16)[: input.numel()]
        dropped = round(self.p * 2**BITS)
        keep = (draws >= dropped - 2 ** (BITS - 1)).to(input.dtype)
        return input * keep.mul_(1 / (1 - dropped / 2**BITS)).view(input.shape)


def quicken_dropout(model: nn.Module) -> None:
    """Swap every `nn.Dropout` of a model on a CPU; a GPU draws its masks in parallel anyway."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and next(model.parameters()).device.type == "cpu":
                setattr(parent, name, Dropout(child.p))


def check_dropout(share: float | None) -> None:
    """Refuse a share that is none.

    Raises:
        UserError: for a share below 0, or of 1 and more, which would leave nothing.
    """
    if share is not None and not 0 <= share < 1:
        raise UserError(f"--dropout is a share from 0 to below 1, not {share:g}.")


def set_dropout(model: nn.Module, share: float) -> None:
    """Let every `nn.Dropout` drop this share; the config keeps its own, for whoever goes on.

    Raises:
        UserError: if the model has none, so that nothing would change.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no dropout to set. Leave --dropout away.")
    for layer in layers:
        layer.p = share
