r"""Signs of channels that let filters of zero sum do what trained ones did.

A layer without an activation behind it (the linear bottleneck of MobileNetV2) may put out each of
its channels with the other sign, if all layers that read them turn that input's weights around:
the network computes the same. But the sum of a reader's weights is another, and of what it
computes a filter of zero sum loses, with s the signs and C the covariance of its inputs,

.. math:: (s^\top w)^2 / (s^\top C^{-1} s) ,

the smallest change of :math:`s^\top w` to 0 (:func:`zero_sum_fit` with :math:`1` as s). Writers
lose nothing: a filter of zero sum that is negated sums to zero.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from da.norms.weight_align.filter_inputs import sample_rows
from da.norms.weight_align.layers import ALIGNED
from da.norms.weight_align.least_squares import SecondMoments

# Over the mean variance of the inputs, added to their covariance.
RIDGE = 1e-3
# Positions of each image, and sweeps over the channels of which each may change its sign.
POSITIONS = 100
SWEEPS = 3

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_PASSES = (nn.Identity, nn.Dropout)


@dataclass
class Stream:
    """Values that are sums of each other, so that their channels have one sign.

    Attributes:
        writers: names of the layers whose output is in it.
        readers: names of the layers that take it in.
        closed: whether nothing else writes or reads it.
    """

    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    closed: bool = True


@torch.no_grad()
def choose_signs(
    network: nn.Module, graph: fx.Graph, aligned: Collection[str], images: list[Tensor]
) -> set[str]:
    """Gives channels the signs with which aligned filters lose least; changed in place.

    Args:
        network: with its batch norms folded, in evaluation mode. It computes the same afterwards.
        graph: its calls.
        aligned: names of the layers whose filters are to sum to zero.
        images: chunks of ``(B, C, H, W)``, some dozens of images together.

    Returns:
        The names of the layers whose weights changed.
    """
    layers: dict[str, Any] = dict(network.named_modules())
    streams = [
        (stream, [n for n in stream.readers if n in aligned and _takes_channels(layers[n])])
        for stream in find_streams(graph, layers)
    ]
    streams = [(stream, readers) for stream, readers in streams if readers]
    moments = _input_moments(network, {n: layers[n] for _, names in streams for n in names}, images)
    changed: set[str] = set()
    for stream, readers in streams:
        signs = best_signs([_loss_of(layers[n], moments[n]) for n in readers]).to(images[0])
        for name in stream.writers:
            layer = layers[name]
            layer.weight.mul_(signs.view(-1, *(1 for _ in layer.weight.shape[1:])))
            if layer.bias is not None:
                layer.bias.mul_(signs)
        for name in stream.readers:
            weight = layers[name].weight
            weight.mul_(signs.view(1, -1, *(1 for _ in weight.shape[2:])))
        changed |= {*stream.writers, *stream.readers}
    return changed


def find_streams(graph: fx.Graph, layers: dict[str, Any]) -> list[Stream]:
    """The sums of outputs of layers that only layers read, with no activation in between."""
    parents: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while (above := parents.get(node, node)) is not node:
            node = above
        return node

    for node in graph.nodes:
        if _is_sum(node) or _passes(node, layers):
            for source in node.all_input_nodes:
                parents[root(source)] = root(node)
    streams: dict[fx.Node, Stream] = {}
    targets = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if _is_sum(node) or _passes(node, layers):
            continue
        own = streams.setdefault(root(node), Stream())
        sources = [streams.setdefault(root(source), Stream()) for source in node.all_input_nodes]
        name = str(node.target)
        if node.op == "call_module" and _is_dense(layers[name]) and targets.count(name) == 1:
            own.writers.append(name)
            sources[0].readers.append(name)
        else:
            for stream in (own, *sources):
                stream.closed = False
    return [stream for stream in streams.values() if stream.closed and stream.writers]


def best_signs(losses: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Signs s that make the sum of sᵀAs / sᵀBs small: the eigenvector's, then one by one.

    Args:
        losses: A and B, ``(C, C)`` float64 and B positive definite, of each reader.

    Returns:
        ``(C,)`` of 1 and -1; all 1 where nothing was found that is better.
    """
    a, b = (sum(parts) for parts in zip(*losses, strict=True))
    inverse = torch.linalg.inv(torch.linalg.cholesky(b))  # type: ignore[arg-type]
    vectors = torch.linalg.eigh(inverse @ a @ inverse.mT)[1]
    start = torch.where((inverse.mT @ vectors[:, 0]) < 0, -1.0, 1.0).to(inverse)
    found = [_improve(signs, losses) for signs in (torch.ones_like(start), start)]
    return min(found, key=lambda pair: pair[0])[1]


def _improve(signs: Tensor, losses: list[tuple[Tensor, Tensor]]) -> tuple[float, Tensor]:
    """Changes one sign after the other where that makes the loss smaller."""

    def loss() -> float:
        return sum(float(signs @ a @ signs) / float(signs @ b @ signs) for a, b in losses)

    least = loss()
    for _ in range(SWEEPS):
        for i in range(len(signs)):
            signs[i] *= -1
            if (now := loss()) < least:
                least = now
            else:
                signs[i] *= -1
    return least, signs


def _loss_of(layer: Any, moments: SecondMoments) -> tuple[Tensor, Tensor]:
    """WᵀW over the variance of what the layer puts out, and the inverse of C."""
    covariance = moments.centred()[2][0]
    w = layer.weight.flatten(1).double()
    total = ((w @ covariance) * w).sum().clamp(min=1e-30)
    covariance.diagonal().add_(RIDGE * covariance.diagonal().mean().clamp(min=1e-12))
    return w.mT @ w / total, torch.cholesky_inverse(torch.linalg.cholesky(covariance))


def _input_moments(
    network: nn.Module, layers: dict[str, Any], images: list[Tensor]
) -> dict[str, SecondMoments]:
    found = {name: SecondMoments() for name in layers}
    generator = torch.Generator().manual_seed(0)

    def look(name: str) -> Any:
        def hook(layer: nn.Module, taken: tuple[Tensor, ...], given: Tensor) -> None:
            x, t = sample_rows(layer, taken[0], given[:, :1], POSITIONS, generator)
            found[name].add(x, t)

        return hook

    handles = [layer.register_forward_hook(look(name)) for name, layer in layers.items()]
    for chunk in images if handles else ():
        network(chunk)
    for handle in handles:
        handle.remove()
    return found


def _is_sum(node: fx.Node) -> bool:
    called = node.op in ("call_function", "call_method") and node.target in _SUMS
    return called and len(node.all_input_nodes) == 2 and len(node.args) == 2


def _passes(node: fx.Node, layers: dict[str, Any]) -> bool:
    if node.op != "call_module":
        return False
    module = layers[str(node.target)]
    return isinstance(module, _PASSES) or type(module).__name__ in ("DropPath", "StochasticDepth")


def _is_dense(layer: Any) -> bool:
    return type(layer) in ALIGNED and getattr(layer, "groups", 1) == 1


def _takes_channels(layer: Any) -> bool:
    """Whether a filter has one weight for each channel: a 1 × 1 convolution."""
    return layer.weight.dim() > 2 and layer.weight[0].numel() == layer.weight.shape[1] <= 1024
