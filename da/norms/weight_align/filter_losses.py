"""What the filters of a layer lose when they can't see one direction of their inputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from da.norms.weight_align.filter_inputs import sample_rows
from da.norms.weight_align.least_squares import SecondMoments

# Over the mean variance of the inputs, added to their covariance.
RIDGE = 1e-3
# Positions of each image.
POSITIONS = 100
# Channels beyond which a layer is not looked at: the work grows with their cube.
MOST_CHANNELS = 2048


@dataclass(frozen=True)
class FilterLoss:
    """The quadratic forms that decide what a layer of 1 × 1 filters loses.

    Of filters w that must not see a direction u any more (uᵀv = 0 for all filters v of the layer)
    the best lose uᵀAu / uᵀBu of the variance that they put out.

    Attributes:
        products: A, ``(C, C)`` float64: WᵀW over the variance of the outputs.
        inverse: B, ``(C, C)`` float64: the inverse of the inputs' covariance.
    """

    products: Tensor
    inverse: Tensor


@torch.no_grad()
def measure_losses(
    network: nn.Module, names: Collection[str], images: list[Tensor]
) -> dict[str, FilterLoss]:
    """The losses of layers that :func:`has_channel_filters` is true of.

    Args:
        network: in evaluation mode.
        names: of the layers.
        images: chunks of ``(B, C, H, W)``, some dozens of images together.
    """
    moments = {name: SecondMoments() for name in names}
    generator = torch.Generator().manual_seed(0)

    def look(name: str) -> Any:
        def hook(layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
            x, t = sample_rows(layer, taken[0], given[:, :1], POSITIONS, generator)
            moments[name].add(x, t)

        return hook

    handles = [network.get_submodule(n).register_forward_hook(look(n)) for n in names]
    for chunk in images if handles else ():
        network(chunk)
    for handle in handles:
        handle.remove()
    return {name: _loss_of(network.get_submodule(name), moments[name]) for name in names}


def has_channel_filters(layer: nn.Module) -> bool:
    """Whether a filter has one weight for each channel and nothing beside: 1 × 1, not padded."""
    return (
        isinstance(layer, nn.modules.conv._ConvNd)
        and layer.groups == 1
        and layer.weight[0].numel() == layer.in_channels <= MOST_CHANNELS
        and not any(layer._reversed_padding_repeated_twice)
    )


def _loss_of(layer: Any, moments: SecondMoments) -> FilterLoss:
    covariance = moments.centred()[2][0]
    w = layer.weight.flatten(1).double()
    total = ((w @ covariance) * w).sum().clamp(min=1e-30)
    covariance.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp(min=1e-12))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    return FilterLoss(w.mT @ w / total, inverse)
