"""A short distillation: a network learns to put out what another does, on a few hundred images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# Passes over the images, images in a step, and Adam's rate at the start; it falls to 0 as half a
# cosine.
EPOCHS = 10
BATCH = 16
RATE = 3e-3
# Every so many-th image is not learned from, and tells which pass came nearest.
LEFT_OUT = 10


@torch.enable_grad()
def distil(
    student: nn.Module,
    teacher: nn.Module,
    images: list[Tensor],
    progress: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Trains ``student`` in place to put out what ``teacher`` does.

    It keeps the weights of that pass, or of the beginning, which came nearest on the images that
    were left out. Both are in evaluation mode: dropout is off, and running averages stay.

    Args:
        student: all of its parameters are trained.
        teacher: gives one tensor.
        images: chunks, ``(B, ...)`` each.
        progress: called after each pass with its number, from 1.
    """
    every = torch.cat(images)
    with torch.no_grad():
        wanted = torch.cat([teacher(chunk) for chunk in images])
    scale = (wanted - wanted.mean(0)).square().mean().clamp(min=1e-30)

    def loss(index: Tensor) -> Tensor:
        return (student(every[index]) - wanted[index]).square().mean() / scale

    order = torch.arange(len(every))
    left_out = order[LEFT_OUT - 1 :: LEFT_OUT]
    learned = order[order % LEFT_OUT != LEFT_OUT - 1]
    left_out = left_out if len(left_out) else learned  # of too few none is spared
    frozen = [p for p in student.parameters() if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_()
    optimiser = torch.optim.Adam(student.parameters(), lr=RATE)
    steps = EPOCHS * math.ceil(len(learned) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    best, state = _mean_loss(loss, left_out), copy.deepcopy(student.state_dict())
    for epoch in range(EPOCHS):
        for index in learned[torch.randperm(len(learned), generator=generator)].split(BATCH):
            optimiser.zero_grad()
            loss(index).backward()
            optimiser.step()
            schedule.step()
        reached = _mean_loss(loss, left_out)
        if reached < best:
            best, state = reached, copy.deepcopy(student.state_dict())
        progress(epoch + 1)
    student.load_state_dict(state)
    student.zero_grad()
    for parameter in frozen:
        parameter.requires_grad_(False)


@torch.no_grad()
def _mean_loss(loss: Callable[[Tensor], Tensor], index: Tensor) -> float:
    """The loss over all images of an index, in batches."""
    parts = index.split(BATCH)
    total = sum(float(loss(part)) * len(part) for part in parts)
    return total / max(len(index), 1)
