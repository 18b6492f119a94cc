"""SAR: sharpness-aware and reliable entropy minimisation (Niu et al. 2023, ICLR)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from da.adapters.base import Adapter
from da.adapters.batch_statistics import (
    batches_with_statistics,
    single_values_kept,
    use_batch_statistics,
)
from da.adapters.tent import scales_and_shifts
from da.errors import UserError
from da.networks.network import Network
from da.ops.entropy import sample_entropies
from da.ops.sharpness import perturbed

#: The names of a backbone's stages: in themselves, or by the list that they stand in.
STAGE = re.compile(r"(?:.*\.)?(?:(?:layer|stage|level|denseblock|s)|(?:stages|layers|blocks)\.)\d+")


def top_of(network: Network) -> list[str]:
    """Names of the modules at the top of a network.

    They are the last stage of the backbone (``layer4``, ``stages.3``, ``layers.3``, the last of
    ``blocks``) and whatever comes after it in the order of registration: a last norm, the
    bottleneck, classifiers. Of several kinds of stages the outermost count, as a Swin has blocks
    within each. Where they are a transformer's blocks, it is the last three. Of a backbone without
    stages the top is what comes after it.

    Args:
        network: with a backbone of torchvision, of timm or of this framework; of others as far as
            they name their stages so.
    """
    names = [name for name, _ in network.named_modules()]
    stages: dict[str, list[str]] = {}
    for name, module in network.backbone.named_modules():
        # A layer of its own is no stage, nor with a normaliser beside it.
        if STAGE.fullmatch(name) and sum(p.ndim > 1 for p in module.parameters()) > 1:
            stages.setdefault(name.rpartition(".")[0], []).append(name)
    first = "bottleneck"
    if stages:
        outermost = min(stages.values(), key=lambda group: group[0].count("."))
        last: nn.Module = network.backbone.get_submodule(outermost[-1])
        attends = any("att" in name for name, _ in last.named_children())
        first = f"backbone.{outermost[-3:][0] if attends else outermost[-1]}"
    return names[names.index(first) :]


def mean_of_chosen(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the values that are chosen, a scalar; 0, with a gradient of 0, where none is.

    Args:
        values: ``(B,)`` float.
        chosen: ``(B,)`` bool.
    """
    return values.masked_fill(~chosen, 0.0).sum() / chosen.sum().clamp(min=1)


class SAR(Adapter):
    """As TENT, with the entropies of reliable samples alone, made small and flat.

    A batch makes one step of SGD with momentum 0.9 on the mean entropy of the samples whose own is
    below margin · log K, with the gradient where that mean is sharpest (Foret et al. 2021, eq. 2):
    there, samples that are above the margin by then are left out as well. Where the moving average
    of these entropies falls below ``reset``, the network is about to predict one class for all: it
    goes back to where it began, and so do the momentum and the average.

    Trained are the scales and shifts that :class:`~da.adapters.tent.TENT` trains, g and b under
    WeightAlign, but not those at the top of the network, which is left as it is: published for
    the last stage of a ResNet, and the last three blocks and the norm of a ViT; see :func:`top_of`.
    Published are batch, group and layer norm; batch norm takes the statistics of the batch at hand.

    As in the authors' code the predictions are those of the pass before the update, and a batch
    without a reliable sample moves the weights by the momentum alone. Their code puts the old
    average back after a reset, so that batches go on to reset until it has risen; here it begins
    anew, as their function for it says.

    Args:
        lr: learning rate, by default that of the authors for a ResNet-50 and batches of 64.
        margin: share of log K, the largest entropy that there is.
        radius: of the neighbourhood, rho.
        reset: the moving average below which the network is reset, in nats; 0 for never.
        average: how much of the moving average a batch keeps; without a ``reset`` nobody reads it.
        exclude: glob patterns of the names of layers whose scales and shifts stay, in place of
            those at the top; by default they are found (:func:`top_of`).
        single_images: see :class:`~da.adapters.batch_statistics.BatchStatistics`.
    """

    online = True

    def __init__(
        self,
        lr: float = 2.5e-4,
        margin: float = 0.4,
        radius: float = 0.05,
        reset: float = 0.2,
        average: float = 0.9,
        exclude: Sequence[str] | None = None,
        single_images: bool = False,
    ):
        if lr <= 0:
            raise UserError(f"SAR: lr: expected a learning rate above 0, got {lr}")
        if not 0 < margin <= 1:
            raise UserError(f"SAR: margin: expected a share of log K in (0, 1], got {margin}")
        for name, value in (("radius", radius), ("reset", reset)):
            if value < 0:
                raise UserError(f"SAR: {name}: expected a number from 0, got {value}")
        if not 0 <= average < 1:
            raise UserError(f"SAR: average: expected a share from 0 up to but not 1, got {average}")
        if isinstance(exclude, str):
            raise UserError(f"SAR: exclude: expected a list of patterns, got '{exclude}'")
        self.lr = lr
        self.margin = margin
        self.radius = radius
        self.reset = reset
        self.average = average
        self.exclude = None if exclude is None else tuple(exclude)
        self.single_images = single_images

    def predict(
        self, network: Network, batches: Iterable[Tensor], domain: str = "target"
    ) -> Iterator[Tensor]:
        """See :meth:`Adapter.predict`.

        Raises:
            UserError: where the network has no scale and no shift that is not excluded.
        """
        excluded = top_of(network) if self.exclude is None else self.exclude
        parameters = scales_and_shifts(network, excluded)
        if not parameters:
            outside = "its top" if self.exclude is None else ", ".join(excluded)
            raise UserError(
                "SAR adapts scales and shifts, and this network has none outside of "
                f"{outside or 'what is excluded'}; exclude less (--adapter_options.exclude [])"
            )
        network.eval().requires_grad_(False)
        norms = use_batch_statistics(network)
        for parameter in parameters:
            parameter.requires_grad_(True)
        began = [parameter.detach().clone() for parameter in parameters]
        optimiser = torch.optim.SGD(parameters, lr=self.lr, momentum=0.9)
        mean: float | None = None
        for images in batches_with_statistics(batches, norms, self.single_images, type(self)):
            with torch.enable_grad(), single_values_kept(norms, self.single_images):
                logits = network(images, domain).logits
                sharpest = self._update(network, images, domain, logits, optimiser)
            if sharpest is not None:
                kept = self.average if mean is not None else 0.0
                mean = kept * (mean or 0.0) + (1 - kept) * sharpest
                if mean < self.reset:
                    with torch.no_grad():
                        for parameter, value in zip(parameters, began, strict=True):
                            parameter.copy_(value)
                    optimiser.state.clear()
                    mean = None
            yield logits.detach()

    def _update(
        self,
        network: Network,
        images: Tensor,
        domain: str,
        logits: Tensor,
        optimiser: torch.optim.Optimizer,
    ) -> float | None:
        """One step; the reliable samples' mean entropy where it is sharpest, if there are any."""
        parameters = optimiser.param_groups[0]["params"]
        limit = self.margin * math.log(logits.shape[1])
        entropies = sample_entropies(logits)
        reliable = entropies < limit
        gradients = torch.autograd.grad(
            mean_of_chosen(entropies, reliable), parameters, allow_unused=True
        )
        optimiser.zero_grad()
        with perturbed(parameters, gradients, self.radius):
            entropies = sample_entropies(network(images, domain).logits)
            reliable = reliable & (entropies < limit)
            loss = mean_of_chosen(entropies, reliable)
            loss.backward()
        optimiser.step()
        return loss.item() if reliable.any() else None
