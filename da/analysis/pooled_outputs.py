"""What every layer of a network puts out for single images, averaged over the map."""

from __future__ import annotations

import torch
from torch import Tensor

from da.analysis.activations import Images, watch_layers
from da.networks.network import Network, evaluating


class PooledOutputs:
    """The mean of each channel over the map of each image.

    A layer may be called several times in one pass, and may see an image as several neighbouring
    rows (windows of a transformer): the mean is over all of them.

    Attributes:
        of_images: whether each pass has put out as many rows for every image; not so where a layer
            is given no images, as those that make the position biases of a transformer.
    """

    def __init__(self) -> None:
        self._calls: list[Tensor] = []
        self._batches: list[Tensor] = []
        self.of_images = True

    def update(self, x: Tensor, channels: int) -> None:
        """Takes what one call has put out, ``(rows, …)``; ``channels`` is their dimension."""
        maps = x.detach().movedim(channels, 1)
        self._calls.append(maps.reshape(*maps.shape[:2], -1).float().mean(dim=2))

    def end_batch(self, size: int) -> None:
        """Says that all calls so far were of one pass of ``size`` images."""
        calls, self._calls = self._calls, []
        if any(len(rows) % size for rows in calls):
            self.of_images = False
            return
        means = [rows.unflatten(0, (size, -1)).mean(dim=1) for rows in calls]
        self._batches.append(torch.stack(means).mean(dim=0).cpu())

    @property
    def values(self) -> Tensor:
        """``(N, C)`` float32 of all images."""
        return torch.cat(self._batches)


def pool_outputs(network: Network, batches: Images, domain: str) -> dict[str, Tensor]:
    """What every place puts out, by name in the order of the pass: ``(N, C)`` float32 each.

    It is what goes on to the activation: the layer's output, or what its normaliser makes of it.

    Args:
        network: run in evaluation mode; it stays as it is.
        batches: images of one domain.
        domain: ``source`` or ``target``.
    """
    with evaluating(network), watch_layers(network, PooledOutputs) as sites:
        for images in batches:
            network(images, domain)
            for site in sites.values():
                site.into.end_batch(len(images))
                if site.norm is not None:
                    site.after.end_batch(len(images))
    out = {n: site.into if site.norm is None else site.after for n, site in sites.items()}
    return {name: pooled.values for name, pooled in out.items() if pooled.of_images}
