"""A converted network trained for a moment to put out what the original does, without labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# Images of one update.
BATCH = 16


def distil(
    converted: nn.Module,
    images: list[Tensor],
    wanted: list[Tensor],
    epochs: int,
    rate: float,
    progress: Callable[[], None] = lambda: None,
) -> None:
    r"""Trains a network on the outputs of another (Hinton, Vinyals, Dean 2015, 1503.02531, 2.1).

    The loss is the squared error of the outputs over their squared deviation from the mean of each
    channel, the loss of matched logits (their equation 4); the optimiser is Adam, and its rate
    falls to 0 along a cosine. Dropout is off and no statistic is updated.

    Args:
        converted: in evaluation mode; its parameters that take gradients are changed in place.
        images: chunks of them.
        wanted: what the other network puts out for each chunk.
        epochs: passes over the images.
        rate: of Adam, at the start.
        progress: called after each pass.
    """
    x, t = torch.cat(images), torch.cat(wanted)
    deviation = (t - t.mean(0, keepdim=True)).square().mean().clamp(min=1e-12)
    parameters = [p for p in converted.parameters() if p.requires_grad]
    if not epochs or not parameters:
        return
    optimiser = torch.optim.Adam(parameters, rate)
    generator = torch.Generator().manual_seed(0)
    batches = -(-len(x) // BATCH)
    steps, done = epochs * batches, 0
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=generator).to(x.device).split(BATCH):
            optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * done / steps))
            with torch.enable_grad():
                loss = (converted(x[part]) - t[part]).square().mean() / deviation
                grads = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            optimiser.step()
            done += 1
        progress()
    for parameter in parameters:
        parameter.grad = None
