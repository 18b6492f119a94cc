"""TENT: test-time adaptation by entropy minimisation (Wang et al. 2021, ICLR)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from da.adapters.base import Adapter
from da.adapters.batch_statistics import (
    batches_with_statistics,
    single_values_kept,
    use_batch_statistics,
)
from da.errors import UserError
from da.networks.network import Network
from da.norms.surgery import Affine
from da.norms.tracing import NORMS
from da.norms.weight_align.layers import ComputedWeight
from da.ops.entropy import conditional_entropy


class TENT(Adapter):
    """Each batch is predicted, then the entropy of these predictions is lowered by one step.

    Only scales and shifts are trained (section 3.2): those of batch norm, whose statistics are
    those of the batch at hand (under dsbn those of the images' domain); of any other normaliser;
    and under WeightAlign g and b, which take the place of batch norm's scale and shift there.
    WeightAlign has no statistics to adapt: what TENT changes under it is the scales and shifts
    alone.

    As in the authors' code the predictions are those of the pass before the update, and the
    updates of all batches add up (online). The order and the size of the batches are part of what
    comes out.

    Args:
        lr: learning rate, by default that of the authors on CIFAR-10-C.
        optimizer: ``adam``, or ``sgd`` with momentum 0.9.
        steps: updates per batch; the prediction is that of the last pass.
        single_images: see :class:`~da.adapters.batch_statistics.BatchStatistics`.
    """

    online = True

    def __init__(
        self,
        lr: float = 1e-3,
        optimizer: str = "adam",
        steps: int = 1,
        single_images: bool = False,
    ):
        if lr <= 0:
            raise UserError(f"TENT: lr: expected a learning rate above 0, got {lr}")
        if optimizer not in ("adam", "sgd"):
            raise UserError(f"TENT: optimizer: expected adam or sgd, got '{optimizer}'")
        if steps < 1:
            raise UserError(f"TENT: steps: expected a whole number from 1, got {steps}")
        self.lr = lr
        self.optimizer = optimizer
        self.steps = steps
        self.single_images = single_images

    def predict(
        self, network: Network, batches: Iterable[Tensor], domain: str = "target"
    ) -> Iterator[Tensor]:
        """See :meth:`Adapter.predict`.

        Raises:
            UserError: where the network has no scale and no shift.
        """
        parameters = scales_and_shifts(network)
        if not parameters:
            raise UserError(
                "TENT adapts scales and shifts, and this network has none: it has no normaliser "
                "and no aligned layer"
            )
        network.eval().requires_grad_(False)
        norms = use_batch_statistics(network)
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimiser: torch.optim.Optimizer = (
            torch.optim.Adam(parameters, lr=self.lr)
            if self.optimizer == "adam"
            else torch.optim.SGD(parameters, lr=self.lr, momentum=0.9)
        )
        for images in batches_with_statistics(batches, norms, self.single_images, type(self)):
            with torch.enable_grad(), single_values_kept(norms, self.single_images):
                for _ in range(self.steps):
                    logits = network(images, domain).logits
                    optimiser.zero_grad()
                    conditional_entropy(logits).backward()  # eq. 1, the mean over the batch
                    optimiser.step()
            yield logits.detach()


def scales_and_shifts(network: nn.Module, exclude: Sequence[str] = ()) -> list[nn.Parameter]:
    """The scales and shifts of a network's normalisers, ``(C,)`` each, and g and b of WeightAlign.

    The bias of a layer without a scale of its own (a classifier) is none of them.

    Args:
        network: whose they are.
        exclude: glob patterns of the names of layers that are left out.
    """
    names = {ComputedWeight: ("g", "bias"), Affine: ("weight", "bias")}
    found: dict[int, nn.Parameter] = {}
    for title, module in network.named_modules():
        if any(fnmatchcase(title, pattern) for pattern in exclude):
            continue
        kind = next((k for k in names if isinstance(module, k)), None)
        pair = names[kind] if kind else ("weight", "bias") if isinstance(module, NORMS) else ()
        if kind is ComputedWeight and module._parameters.get("g") is None:
            continue  # a normaliser after it has the scale
        for name in pair:
            parameter = module._parameters.get(name)
            if parameter is not None:
                found[id(parameter)] = parameter
    return list(found.values())
