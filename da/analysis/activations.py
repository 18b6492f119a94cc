"""What every layer of a network puts out for each domain, before and after its normaliser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from da.engine.evaluation import OfDomains, evaluating
from da.methods.base import Method, domain_segments
from da.networks.network import Network
from da.norms.tracing import CONVOLUTIONS, NORMS, is_layer
from da.ops.moments import ChannelMoments, Spread, mixing_share
from da.ops.seeding import derive_seed, permutation
from da.types import DataModule, ImagesOfDomain, ImageTransform, Role, Split

Images = Iterable[Tensor]
"""Batches of images ``(B, C, H, W)`` float32 on the network's device."""


class Collector(Protocol):
    """Keeps something of what a place of a network puts out, batch by batch."""

    def update(self, x: Tensor, channels: int) -> None:
        """Takes what was put out, ``(B, …)``; ``channels`` is the dimension of the channels."""


C = TypeVar("C", bound=Collector)


@dataclass
class Site(Generic[C]):
    """A place in a network: a convolution or a linear layer, and the normaliser that follows it.

    A normaliser that no layer feeds directly (behind a concatenation, a sum or an activation) is a
    place of its own; ``into`` is then what it takes in.

    Attributes:
        name: of the layer's module in the network.
        kind: ``convolution``, ``linear`` or ``normaliser``.
        into: what the layer puts out, before its normaliser.
        after: what the normaliser puts out, through its activation where it has one inside; empty
            where none follows.
        norm: the normaliser that follows, or None.
    """

    name: str
    kind: str
    into: C
    after: C
    norm: nn.Module | None = None


@dataclass
class LayerSpreads:
    """What is known of one place of a network for both domains.

    Attributes:
        name, kind: see :class:`Site`.
        norm: the class of the normaliser that follows, or ``""``.
        into: what the layer puts out, by domain (``source``, ``target``).
        out: what goes on to the activation: the same, or what the normaliser makes of it.
        running: batch norm's running mean and deviation, which evaluation normalises ``into``
            with; None for others.
    """

    name: str
    kind: str
    norm: str
    into: dict[str, Spread]
    out: dict[str, Spread]
    running: Spread | None

    @property
    def target_share(self) -> float | None:
        """Where the running mean lies between the domains, see :func:`mixing_share`."""
        return None if self.running is None else mixing_share(self.running.mean, **self.into)


class _Watch(Generic[C]):
    """Hooks that look at every place; they return nothing, so the network computes the same."""

    def __init__(self, model: nn.Module, collect: Callable[[], C]):
        self.collect = collect
        self.sites: dict[str, Site[C]] = {}
        # What a layer has just put out: whose it is, and which version of the tensor it was.
        self.fresh: Any = WeakIdKeyDictionary()
        self.under_way: dict[nn.Module, Site[C]] = {}
        self.handles: list[Any] = []
        for name, module in model.named_modules():
            if is_layer(module):
                self.handles.append(module.register_forward_hook(self._layer(name)))
            elif normalises(module):
                self.handles.append(module.register_forward_pre_hook(self._before(name)))
                self.handles.append(module.register_forward_hook(self._after))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _site(self, name: str, kind: str) -> Site[C]:
        if name not in self.sites:
            self.sites[name] = Site(name, kind, self.collect(), self.collect())
        return self.sites[name]

    def _layer(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            kind = "convolution" if isinstance(module, CONVOLUTIONS) else "linear"
            site = self._site(name, kind)
            site.into.update(output, channels_of(module))
            self.fresh[output] = site, output._version

        return hook

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            x = inputs[0]
            site, version = self.fresh.get(x, (None, None))
            # An activation that works in place gives back the same tensor, changed.
            if site is None or version != x._version:
                site = self._site(name, "normaliser")
                site.into.update(x, channels_of(module))
            site.norm = module
            self.under_way[module] = site

        return hook

    def _after(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.under_way.pop(module).after.update(output, channels_of(module))


def normalises(module: nn.Module) -> bool:
    """Whether it is a normaliser: of torch.nn, or called so and with one scale per channel."""
    scale = module._parameters.get("weight")
    named = "norm" in type(module).__name__.lower() and scale is not None and scale.dim() == 1
    return isinstance(module, NORMS) or named


def channels_of(module: nn.Module) -> int:
    """The dimension of the channels in what a layer or a normaliser puts out."""
    if isinstance(module, nn.Linear):
        return -1
    # ConvNeXt's LayerNorm2d moves the channels of a map to the end and back.
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and "2d" not in type(module).__name__:
        return -len(module.normalized_shape)
    return 1


@contextmanager
def watch_layers(model: nn.Module, collect: Callable[[], C]) -> Iterator[dict[str, Site[C]]]:
    """Looks at every place of ``model``, by name, in whatever it computes within this block.

    Args:
        model: computes the same as without.
        collect: makes what keeps something of a place, :class:`ChannelMoments` for its moments.
    """
    watch = _Watch(model, collect)
    try:
        yield watch.sites
    finally:
        watch.remove()


def measure_layers(model: nn.Module, source: Images, target: Images) -> list[LayerSpreads]:
    """Both domains' moments at every place, in the order of the forward pass.

    Args:
        model: run on each domain by itself in evaluation mode; it stays as it is. Of a method it
            is the network that is evaluated; a :class:`Network` is told the domain.
        source, target: images of the two domains.
    """
    network = model.evaluated() if isinstance(model, Method) else model
    sites: dict[str, dict[str, Site[ChannelMoments]]] = {}
    for domain, batches in (("source", source), ("target", target)):
        with evaluating(network), watch_layers(network, ChannelMoments) as sites[domain]:
            for images in batches:
                if isinstance(network, Network):
                    network(images, domain)
                else:
                    network(images)
    measured = []
    for name, site in sites["source"].items():
        into = {domain: sites[domain][name].into.spread for domain in sites}
        after = {domain: sites[domain][name].after.spread for domain in sites if site.norm}
        norm = type(site.norm).__name__ if site.norm else ""
        measured.append(
            LayerSpreads(name, site.kind, norm, into, after or into, running_spread(site.norm))
        )
    return measured


def running_spread(norm: nn.Module | None) -> Spread | None:
    """Running mean and deviation of a batch norm; None for anything else."""
    mean, variance = (getattr(norm, f"running_{name}", None) for name in ("mean", "var"))
    if mean is None or variance is None:
        return None
    return Spread(mean.cpu().double(), variance.cpu().double().sqrt())


def training_batches(module: Method, source: Images, target: Images) -> Iterator[OfDomains]:
    """The batches that batch norm would take its statistics from in training, with their domains.

    The source alone where the method never forwards the target, both in one batch (``joint``), or
    in turns (``separate``).
    """
    if not module.needs.target:
        for images in source:
            yield images, domain_segments([(images, "source")])
        return
    for pair in zip(source, target, strict=True):
        groups = list(zip(pair, ("source", "target"), strict=True))
        if module.hparams["forward_mode"] == "joint":
            yield torch.cat(pair), domain_segments(groups)
        else:
            for group in groups:
                yield group[0], domain_segments([group])


def pick_images(
    data: DataModule,
    role: Role,
    split: Split,
    count: int,
    device: torch.device,
    tick: Callable[[int], object],
) -> PickedImages:
    """Images of one domain, chosen by chance but always the same: files come sorted by class.

    Args:
        data: the data module.
        role: ``source`` or ``target``.
        split: of the domain.
        count: how many, at most all.
        device: where batches are put.
        tick: told how many images of a batch have been dealt with.
    """
    images = data.set_of(role, split)
    order = np.sort(permutation(derive_seed("inspection", role, split), 0, len(images))[:count])
    return PickedImages(images, data.transform, order, data.eval_batch_size, device, tick)


@dataclass
class PickedImages:
    """Batches ``(B, C, H, W)`` float32 of chosen images, not augmented, as often as asked for."""

    images: ImagesOfDomain
    transform: ImageTransform
    order: NDArray[np.int64]
    batch_size: int
    device: torch.device
    tick: Callable[[int], object]

    def __iter__(self) -> Iterator[Tensor]:
        """Yields them in their own order."""
        for start in range(0, len(self.order), self.batch_size):
            chosen = self.order[start : start + self.batch_size]
            yield self.transform.evaluate(self.images.images(chosen)).to(self.device)
            self.tick(len(chosen))
