r"""Bases of channels in which filters of zero sum do what trained ones did.

The channels that a layer without an activation behind it puts out (the linear bottleneck of
MobileNetV2) may be turned by any orthogonal H, if all layers that read them take their weights to
H, too: the network computes the same. But the sum of a reader's weights w is then another,
:math:`(H w)^\top 1 = w^\top u` with :math:`u = H^\top 1`, and what a filter of zero sum can't
do is to see u. With C the covariance of its inputs, that loses

.. math:: (u^\top w)^2 / (u^\top C^{-1} u)

of the variance that it puts out. u is therefore made the direction that the readers miss least,
the one with the smallest sum of their losses. H is the reflection that takes u to 1. Writers lose
nothing: sums of filters of zero sum sum to zero.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from da.norms.weight_align.filter_losses import FilterLoss, has_channel_filters
from da.norms.weight_align.layers import ALIGNED

# Of the search for the direction that several readers miss least.
STEPS = 100

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
# Not dropout of single numbers, which training would then do in another basis.
_PASSES = ("Identity", "DropPath", "StochasticDepth")


@dataclass
class Stream:
    """Values that are sums of each other, so that their channels are the same ones.

    Attributes:
        writers: names of the layers whose output is in it.
        readers: names of the layers that take it in.
        closed: whether nothing else writes or reads it.
    """

    writers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    closed: bool = True


@torch.no_grad()
def turn_streams(network: nn.Module, streams: list[Stream], losses: dict[str, FilterLoss]) -> None:
    """Gives streams the basis in which their readers lose least; changed in place.

    Args:
        network: with its batch norms folded, in evaluation mode. It computes the same afterwards.
        streams: of it.
        losses: of those readers whose filters are to sum to zero. A stream that has none stays.
    """
    for stream in streams:
        seen = [losses[name] for name in stream.readers if name in losses]
        if not seen:
            continue
        h = reflection_to_ones(least_missed_direction(seen))
        for name in stream.writers:
            layer: Any = network.get_submodule(name)
            layer.weight.copy_(torch.einsum("ij,j...->i...", h, layer.weight.double()))
            if layer.bias is not None:
                layer.bias.copy_(h @ layer.bias.double())
        for name in stream.readers:
            weight: Any = network.get_submodule(name).weight
            weight.copy_(torch.einsum("oj...,ij->oi...", weight.double(), h))


def readers_to_measure(
    streams: list[Stream], network: nn.Module, aligned: Collection[str]
) -> set[str]:
    """The layers that decide which basis is the best."""
    names = {name for stream in streams for name in stream.readers if name in aligned}
    return {name for name in names if has_channel_filters(network.get_submodule(name))}


def find_streams(graph: fx.Graph, network: nn.Module) -> list[Stream]:
    """The sums of outputs of layers that only layers read, with no activation in between."""
    parents: dict[fx.Node, fx.Node] = {}

    def root(node: fx.Node) -> fx.Node:
        while (above := parents.get(node, node)) is not node:
            node = above
        return node

    for node in graph.nodes:
        if _is_sum(node) or passes(node, network):
            for source in node.all_input_nodes:
                parents[root(source)] = root(node)
    streams: dict[fx.Node, Stream] = {}
    targets = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        if _is_sum(node) or passes(node, network):
            continue
        own = streams.setdefault(root(node), Stream())
        sources = [streams.setdefault(root(source), Stream()) for source in node.all_input_nodes]
        name = str(node.target)
        if targets.count(name) == 1 and _is_dense(network.get_submodule(name)):
            own.writers.append(name)
            sources[0].readers.append(name)
        else:
            for stream in (own, *sources):
                stream.closed = False
    return [s for s in streams.values() if s.closed and s.writers and _is_of_one_width(s, network)]


def _is_of_one_width(stream: Stream, network: nn.Module) -> bool:
    """Whether each layer has all channels: a sum may broadcast a single one to many."""

    def width(name: str, dimension: int) -> int:
        return network.get_submodule(name).get_parameter("weight").shape[dimension]

    widths = {width(name, 0) for name in stream.writers}
    return len(widths | {width(name, 1) for name in stream.readers}) == 1


def least_missed_direction(losses: list[FilterLoss]) -> Tensor:
    """The unit vector u, ``(C,)`` float64, with the least sum of uᵀAu / uᵀBu.

    Of one layer it is an eigenvector; of several, what gradients lead to from each one's own and
    from that of their sums, the best of them.
    """
    sums = FilterLoss(
        torch.stack([loss.products for loss in losses]).sum(0),
        torch.stack([loss.inverse for loss in losses]).sum(0),
    )
    u = _least_eigenvector(sums)
    if len(losses) > 1:
        starts = [u, *map(_least_eigenvector, losses)]
        u = min((_descend(start, losses) for start in starts), key=lambda x: _lost(x, losses))
    return u if u.sum() >= 0 else -u


def _lost(u: Tensor, losses: list[FilterLoss]) -> Tensor:
    return torch.stack([(u @ x.products @ u) / (u @ x.inverse @ u) for x in losses]).sum()


def _least_eigenvector(loss: FilterLoss) -> Tensor:
    """The unit vector with the least uᵀAu / uᵀBu."""
    inverse = torch.linalg.inv(torch.linalg.cholesky(loss.inverse))
    u = inverse.mT @ torch.linalg.eigh(inverse @ loss.products @ inverse.mT)[1][:, 0]
    return u / u.norm()


@torch.enable_grad()
def _descend(start: Tensor, losses: list[FilterLoss]) -> Tensor:
    u = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([u], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        lost = _lost(u, losses)
        lost.backward()
        return lost

    optimiser.step(closure)
    return u.detach() / u.detach().norm()


def reflection_to_ones(u: Tensor) -> Tensor:
    """The reflection, ``(C, C)``, that takes a unit vector to one whose numbers are all equal."""
    ones = torch.full_like(u, len(u) ** -0.5)
    axis = u - ones
    eye = torch.eye(len(u), dtype=u.dtype, device=u.device)
    squared = axis.square().sum()
    return eye - 2 * torch.outer(axis, axis) / squared if squared > 1e-20 else eye


def passes(node: fx.Node, network: nn.Module) -> bool:
    """Whether a call gives in evaluation what it takes."""
    if node.op != "call_module":
        return False
    return type(network.get_submodule(str(node.target))).__name__ in _PASSES


def _is_sum(node: fx.Node) -> bool:
    called = node.op in ("call_function", "call_method") and node.target in _SUMS
    return called and len(node.all_input_nodes) == 2 and len(node.args) == 2


def _is_dense(layer: Any) -> bool:
    return type(layer) in ALIGNED and getattr(layer, "groups", 1) == 1
