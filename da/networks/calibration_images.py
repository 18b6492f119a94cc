"""The images on which pretrained weights are converted, and those that it is measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from da.ops.seeding import derive_seed, permutation
from da.types import DataModule, Role

if TYPE_CHECKING:
    from da.networks.pretrained_conversion import ConversionPlan

HELD_OUT = 256
"""Images of the source, beyond those of the conversion, on which it is measured."""


def calibration_images(data: DataModule, plan: ConversionPlan) -> tuple[Tensor, Tensor]:
    """Images to convert on, and others of the source to measure it on, as evaluation sees them.

    They are the first of a permutation that is the same in every run, so that runs share what
    comes out. At least a tenth of a domain is left out of the conversion. No label is read.

    Returns:
        ``(N, C, H, W)`` and ``(M, C, H, W)`` float32.
    """
    half = plan.images // 2 if plan.on == "both" else 0
    chosen, held_out = _draw_images(data, "source", plan.images - half)
    if half:
        chosen = torch.cat([chosen, _draw_images(data, "target", half)[0]])
    return chosen, held_out


def _draw_images(data: DataModule, role: Role, count: int) -> tuple[Tensor, Tensor]:
    """So many images of a domain, and others to measure on."""
    images = data.set_of(role, "train")
    order = permutation(derive_seed("conversion"), 0, len(images))
    count = min(count, max(2, 9 * len(images) // 10))
    parts = order[:count], order[count : count + HELD_OUT]
    first, second = (data.transform.evaluate(images.images(part)) for part in parts)
    return first, second
