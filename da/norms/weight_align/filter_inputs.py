"""What the filters of a layer take in, position by position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sample_rows(
    layer: nn.Module, x: Tensor, t: Tensor, per_image: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the filters of a layer take in at some positions, and what should come out there.

    Args:
        layer: a convolution or a linear layer.
        x: its input, ``(B, C, ...)`` or ``(..., n)``.
        t: the output that is wanted for it, ``(B, O, ...)`` or ``(..., O)``.
        per_image: positions that are drawn from each image; all where there are no more.
        generator: of the draw.

    Returns:
        ``(G, R, n)`` and ``(G, R, O / G)``.
    """
    if isinstance(layer, nn.Linear):
        x, t = (a.reshape(len(a), -1, a.shape[-1]) for a in (x, t))
        places = _draw_positions(x.shape[1], per_image, x, generator)
        index = torch.arange(len(x), device=x.device)[:, None]
        return x[index, places].flatten(0, 1)[None], t[index, places].flatten(0, 1)[None]
    assert isinstance(layer, nn.modules.conv._ConvNd)
    x, t = _view_patches(layer, x), t.movedim(1, -1)
    size = t.shape[1:-1]
    places = _draw_positions(math.prod(size), per_image, x, generator)
    index = torch.arange(len(x), device=x.device)[:, None]
    where = (index, *torch.unravel_index(places, size))
    inputs, outputs = (a[where].reshape(places.numel(), layer.groups, -1) for a in (x, t))
    return inputs.transpose(0, 1), outputs.transpose(0, 1)


def _view_patches(layer: nn.modules.conv._ConvNd, x: Tensor) -> Tensor:
    """A view of what a convolution's filters take in, ``(B, *positions, C, *kernel)``."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
    sizes, strides = x.shape[2:], x.stride()[2:]
    settings = list(zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True))
    out = [(size - d * (k - 1) - 1) // s + 1 for size, k, s, d in settings]
    return x.as_strided(
        (len(x), *out, x.shape[1], *layer.kernel_size),
        (
            x.stride(0),
            *(step * s for step, s in zip(strides, layer.stride, strict=True)),
            x.stride(1),
            *(step * d for step, d in zip(strides, layer.dilation, strict=True)),
        ),
    )


def _draw_positions(positions: int, wanted: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """Positions of each image, ``(B, P)``: all of them, or as many as wanted, without repeats."""
    if positions <= wanted:
        return torch.arange(positions, device=x.device).expand(len(x), -1)
    scores = torch.rand(len(x), positions, generator=generator)
    return scores.topk(wanted, dim=1, sorted=False).indices.to(x.device)
