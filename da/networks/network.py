"""The network that methods train: backbone, bottleneck, classifier, and what is read within it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from da.errors import unknown
from da.norms import aligned_once
from da.norms.base import tell_domains
from da.ops.acceleration import evaluation_pieces, set_memory_layout, to_full_precision
from da.types import Activations, Domains, Segment


class Network(nn.Module):
    """A classifier in three parts. It stands alone: copied, folded, exported without its method.

    Args:
        backbone: images ``(B, C, H, W)`` to features.
        bottleneck: features to features; :class:`torch.nn.Identity` for none.
        classifier: features to logits ``(B, K)``.
        taps: names of modules within the network whose outputs are read, ``"backbone.layer4"``.
        channels_last: give the backbone images in torch.channels_last.
    """

    def __init__(
        self,
        backbone: nn.Module,
        bottleneck: nn.Module,
        classifier: nn.Module,
        taps: Sequence[str] = (),
        channels_last: bool = False,
    ):
        super().__init__()
        self.backbone = backbone
        self.bottleneck = bottleneck
        self.classifier = classifier
        self.taps = tuple(taps)
        self.channels_last = channels_last
        modules = dict(self.named_modules())
        for tap in self.taps:
            if tap not in modules:
                raise unknown("tap", tap, modules)

    def forward(self, images: Tensor, domains: Domains | str = "target") -> Activations:
        """Features ``(B, F)``, logits ``(B, K)`` and taps of images ``(B, C, H, W)``.

        Args:
            images: of one domain, or of several one after another.
            domains: which of them are of which domain: layers that keep the domains apart are told;
                a name for all of them.
        """
        if isinstance(domains, str):
            domains = (Segment(domains, len(images)),)
        tell_domains(self, domains)
        with self._tapped() as taps:
            images = set_memory_layout(images, self.channels_last)
            features = self.bottleneck(self.backbone(images))
            logits = self.classifier(features)
        return Activations(to_full_precision(features), to_full_precision(logits), taps)

    @contextmanager
    def _tapped(self) -> Iterator[dict[str, Tensor]]:
        outputs: dict[str, Tensor] = {}
        if not self.taps:
            yield outputs
            return

        def keep(name: str, output: Tensor) -> None:
            outputs[name] = to_full_precision(output)

        hooks = [
            self.get_submodule(name).register_forward_hook(
                lambda module, inputs, output, name=name: keep(name, output)
            )
            for name in self.taps
        ]
        try:
            yield outputs
        finally:
            for hook in hooks:
                hook.remove()


def split_activations(joint: Activations, sizes: Sequence[int]) -> list[Activations]:
    """The activations of neighbouring parts of a batch.

    Args:
        joint: of the whole batch.
        sizes: of the parts, in order.
    """
    features, logits = joint.features.split(list(sizes)), joint.logits.split(list(sizes))
    taps = {name: value.split(list(sizes)) for name, value in joint.taps.items()}
    return [
        Activations(features[i], logits[i], {name: parts[i] for name, parts in taps.items()})
        for i in range(len(sizes))
    ]


def join_activations(parts: Sequence[Activations]) -> Activations:
    """The activations of one batch from those of its neighbouring parts."""
    features, logits, taps = zip(*parts, strict=True)
    joined = {name: torch.cat([part[name] for part in taps]) for name in taps[0]}
    return Activations(torch.cat(features), torch.cat(logits), joined)


def evaluate_images(network: Network, images: Tensor, domain: str) -> Activations:
    """The network's activations of images ``(B, C, H, W)`` of one domain, computed fastest.

    In evaluation an image's activations don't depend on those beside it, so a CPU takes as many at
    a time as suit it (see :func:`da.ops.acceleration.evaluation_pieces`). In training mode batch
    norm needs all of them, and with gradients it is no evaluation: then nothing is split.
    """
    if network.training or torch.is_grad_enabled():
        return network(images, domain)
    parts = [network(piece, domain) for piece in evaluation_pieces(images)]
    return parts[0] if len(parts) == 1 else join_activations(parts)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every part is restored."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), aligned_once(module):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def build_bottleneck(features: int, width: int) -> nn.Sequential:
    """Features ``(B, features)`` to ``(B, width)``, batch norm in between."""
    # No bias where batch norm follows: it would be subtracted again and never move.
    return nn.Sequential(nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
