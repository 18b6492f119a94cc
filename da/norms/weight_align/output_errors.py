"""How far outputs are from those that are wanted."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def relative_error(outputs: list[Tensor], wanted: list[Tensor]) -> float:
    """Squared error over squared deviation from the mean of each channel, over all chunks.

    Args:
        outputs: ``(B, C, ...)`` each.
        wanted: of the same shapes.
    """
    squared = sum(
        float((y.double() - t).square().sum()) for y, t in zip(outputs, wanted, strict=True)
    )
    axes = [d for d in range(wanted[0].dim()) if d != 1]
    count = sum(t.numel() // t.shape[1] for t in wanted)
    sums = [t.sum(axes, keepdim=True, dtype=torch.float64) for t in wanted]
    mean = torch.stack(sums).sum(0) / count
    deviation = sum(float((t - mean).square().sum()) for t in wanted)
    return squared / deviation if deviation else squared


def compare_outputs(
    original: nn.Module, converted: nn.Module, images: list[Tensor]
) -> tuple[float, float | None]:
    """Error and agreement of the outputs, from the networks as they are called by anyone.

    Args:
        original, converted: in evaluation mode; they give one tensor.
        images: chunks, ``(B, ...)`` each.

    Returns:
        As in :class:`da.norms.Conversion`; no agreement where outputs are not vectors.
    """
    wanted = [original(chunk) for chunk in images]
    outputs = [converted(chunk) for chunk in images]
    agreement = None
    if wanted[0].dim() == 2:
        same = [(y.argmax(1) == t.argmax(1)) for y, t in zip(outputs, wanted, strict=True)]
        agreement = float(torch.cat(same).double().mean())
    return relative_error(outputs, wanted), agreement
