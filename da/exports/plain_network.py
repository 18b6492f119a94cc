"""A trained network in the plain layers of PyTorch: nothing of this library is needed to run it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.networks.backbones.base import Backbone
from da.networks.network import Network
from da.norms import fold
from da.norms.base import DomainLayer
from da.norms.flow import Flow
from da.norms.folding import fold_into_layers
from da.norms.frozen_batch_norm import FrozenBatchNorm
from da.norms.surgery import BATCH_NORMS, replace_modules, scalable_layers

TARGET = "target"


class PlainClassifier(nn.Module):
    """Images ``(B, 3, H, W)`` to logits ``(B, K)``, and nothing else.

    Args:
        network: its parts are taken.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.backbone = network.backbone
        self.bottleneck = network.bottleneck
        self.classifier = network.classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, K)``."""
        logits: Tensor = self.classifier(self.bottleneck(self.backbone(images)))
        return logits


def plain_network(network: Network) -> Network:
    """A copy of a network as it evaluates the target, in evaluation mode on the CPU.

    Aligned layers are plain ones with the aligned weight, a layer that keeps the domains apart is
    what it is for the target, and layers that compute their weight have it computed.

    Args:
        network: of any device and mode; it stays as it is.

    Raises:
        UserError: for a layer that has no form of its own for one domain; names it.
    """
    plain = fold(network).cpu().float().eval()
    assert isinstance(plain, Network)  # a network is no layer that folding replaces
    plain.requires_grad_(False)
    swaps: dict[nn.Module, nn.Module] = {}
    for name, layer in plain.named_modules():
        if isinstance(layer, DomainLayer):
            swaps[layer] = _of_target(layer, name)
        elif callable(plain_layer := getattr(layer, "plain", None)):
            swaps[layer] = plain_layer()
    replace_modules(plain, swaps)
    if isinstance(plain.backbone, Backbone):
        plain.backbone = plain.backbone.library_model()
    return plain.to(memory_format=torch.contiguous_format).eval()


def _of_target(layer: DomainLayer, name: str) -> nn.Module:
    try:
        return layer.of_domain(TARGET)
    except NotImplementedError:
        raise UserError(
            f"'{name}' ({type(layer).__name__}) computes otherwise for each domain and does not "
            "say what it is for the target alone: give the class a method of_domain"
        ) from None


def fold_all_batch_norms(network: Network) -> int:
    """Multiplies batch norms, as they evaluate, into the layers that feed them; changed in place.

    Where no layer can take one over, the scale and shift that it computes stand in its place. A
    part whose layers can't be followed keeps its batch norms, which evaluate to the same.

    Args:
        network: of :func:`plain_network`.

    Returns:
        How many are left.
    """
    left = 0
    for part in ("backbone", "bottleneck", "classifier"):
        model = getattr(network, part)
        norms = [m for m in model.modules() if type(m) in {*BATCH_NORMS, FrozenBatchNorm}]
        if not norms:
            continue
        try:
            swaps = fold_into_layers(model, Flow.of(model), norms, scalable_layers(model))
        except UserError:
            left += len(norms)
            continue
        setattr(network, part, replace_modules(model, swaps))
    return left
