"""What an image costs in evaluation, beside one that is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from da.benchmarks.step import (
    CLASSES,
    LR,
    Cost,
    Round,
    interleave_rounds,
    random_batches,
    read_clocks,
    time_framework,
)
from da.methods.dann import DANN
from da.networks.network import evaluating


def time_evaluation(module: DANN, images: Tensor) -> Cost:
    """Of one image ``(B, C, H, W)`` in evaluation, the mean of one pass over all of them."""
    with evaluating(module):
        before = read_clocks()
        module.activations(images)
        after = read_clocks()
    return Cost((after.wall - before.wall) / len(images), (after.cpu - before.cpu) / len(images))


def compare_evaluation(
    backbone: str, norms: Sequence[str], batch: int, size: int, steps: int, rounds: int
) -> dict[str, tuple[list[Cost], list[Cost]]]:
    """What an image costs that is trained on, and one that is evaluated, by normaliser.

    Args:
        backbone: name of the network.
        norms: names of normalisers.
        batch: images of each domain in a step.
        size: their height and width.
        steps: in each round.
        rounds: how many.
    """
    batches = random_batches(batch, size)
    images = torch.cat([domain.images for both in batches for domain in both if domain is not None])
    variants: dict[str, Round] = {}
    for norm in norms:
        module = DANN(num_classes=CLASSES, backbone=backbone, lr=LR, norm=norm)
        variants[f"{norm}, trained"] = partial(
            time_framework, module, batches, steps, "32-true", "steps alone", batch
        )
        variants[f"{norm}, evaluated"] = partial(time_evaluation, module, images)
    found = interleave_rounds(variants, rounds)
    return {
        norm: (
            [Cost(*(x / (2 * batch) for x in cost)) for cost in found[f"{norm}, trained"]],
            found[f"{norm}, evaluated"],
        )
        for norm in norms
    }
