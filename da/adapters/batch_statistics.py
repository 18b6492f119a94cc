"""Batch norm with the statistics of the batch at hand (Nado et al. 2020, Schneider et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from da.adapters.base import Adapter
from da.errors import UserError
from da.networks.network import Network
from da.norms import batch_norms, keeping_without_statistics
from da.norms.batch_renorm import BatchRenormLayer


class BatchStatistics(Adapter):
    """Each batch is predicted with batch norm's statistics of that batch, and nothing is learnt.

    Prediction-time batch normalisation (Nado et al. 2020, arXiv 2006.10963, section 3). What comes
    out depends on the size of the batches and on what is in them together. A network without batch
    norm predicts as it is.

    Args:
        single_images: take batches of one image as they are: layers on maps have statistics of
            one image, layers of one value per channel keep those of the training. By default a
            last image is joined to the batch before, and batches of one are refused.
    """

    online = False
    statistics_alone = True

    def __init__(self, single_images: bool = False):
        self.single_images = single_images

    def predict(
        self, network: Network, batches: Iterable[Tensor], domain: str = "target"
    ) -> Iterator[Tensor]:
        """See :meth:`Adapter.predict`."""
        network.eval()
        norms = use_batch_statistics(network)
        for images in batches_with_statistics(batches, norms, self.single_images, type(self)):
            with torch.no_grad(), single_values_kept(norms, self.single_images):
                logits = network(images, domain).logits
            yield logits


def use_batch_statistics(network: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Puts every batch norm into the mode in which it takes the statistics of its batch.

    Those of the training are left as they are: the momentum is 0.
    """
    norms = list(batch_norms(network, within_domain_layers=True).values())
    for norm in norms:
        norm.training = True  # frozen ones stay in evaluation mode under train()
        norm.momentum = 0.0
        if isinstance(norm, BatchRenormLayer):
            norm.corrects = False  # towards what the adapter is to replace
    return norms


def single_values_kept(
    norms: list[nn.modules.batchnorm._BatchNorm], single_images: bool
) -> AbstractContextManager[None]:
    """What a pass over a batch of one image needs, where such batches are taken."""
    return keeping_without_statistics(norms) if single_images else nullcontext()


def batches_with_statistics(
    batches: Iterable[Tensor],
    norms: list[nn.modules.batchnorm._BatchNorm],
    single_images: bool,
    kind: type[Adapter],
) -> Iterable[Tensor]:
    """The batches as an adapter can take them: as they are, or a single image joined to others.

    Args:
        batches: images ``(B, C, H, W)``.
        norms: batch norms of the network; without any there is nothing to join for.
        single_images: take batches of one image.
        kind: of the adapter, for the message.
    """
    if single_images or not norms:
        return batches
    return without_single_images(batches, kind.__name__)


def without_single_images(batches: Iterable[Tensor], name: str) -> Iterator[Tensor]:
    """The same images, a last batch of one joined to the batch before: it has no statistics.

    Args:
        batches: images ``(B, C, H, W)``.
        name: of the adapter, for the message.

    Raises:
        UserError: where all batches are of one image.

    >>> [len(x) for x in without_single_images([torch.zeros(4, 2), torch.zeros(1, 2)], "TENT")]
    [5]
    """
    one_image = (
        f"{name}: batch norm takes the statistics of the batch at hand, and a batch of one image "
        "has none; give larger batches (--adapter_batch 64), or take them on maps alone "
        "(--adapter_options.single_images true)"
    )
    held: Tensor | None = None
    for batch in batches:
        if held is not None and len(held) == 1:
            raise UserError(one_image)
        if held is not None and len(batch) > 1:
            yield held
            held = batch
        else:
            held = batch if held is None else torch.cat([held, batch])
    if held is not None:
        if len(held) == 1:
            raise UserError(one_image)
        yield held
