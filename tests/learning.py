"""A few steps of plain training, for tests that ask whether a task can be learnt at all."""

import torch
from torch import nn


def losses(network: nn.Module, batch: dict[str, torch.Tensor], steps: int) -> list[float]:
    """Train on one batch over and over; return the loss of each step."""
    optimizer = torch.optim.AdamW(network.train().parameters(), lr=5e-3)
    found = []
    for _ in range(steps):
        loss = network(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
