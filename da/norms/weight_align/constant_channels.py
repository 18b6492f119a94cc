r"""One channel of each plain depthwise layer, made constant for the aligned layer that reads it.

A filter of zero sum cannot see the sum of its inputs. If one of these is constant, its weight can
be what all others sum to with the other sign, and costs nothing but a shift, which the bias takes:
the others are free. The price is that channel, and where the readers of a depthwise layer see
some dozens or hundreds of channels, there is one that the others can stand for: without channel c,
filters w lose :math:`w_c^2 / (C^{-1})_{cc}` of the variance that they put out, C the covariance of
their inputs.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx, nn

from da.norms.flow import ACTIVATIONS
from da.norms.tracing import CONVOLUTIONS
from da.norms.weight_align.channel_bases import passes
from da.norms.weight_align.filter_losses import FilterLoss, has_channel_filters

# What the layer puts out there: every activation in use has a slope at it, so that training may
# take the channel into use again.
LEVEL = 1.0


def find_depthwise_readers(
    graph: fx.Graph, network: nn.Module, aligned: Collection[str]
) -> dict[str, str]:
    """Aligned layers of 1 × 1 filters with the plain depthwise layer that alone feeds each.

    Args:
        graph: its calls.
        network: with its batch norms folded.
        aligned: names of the layers whose filters are to sum to zero.

    Returns:
        Name of the reader to that of the depthwise layer. Nothing but an activation is between.
    """
    found: dict[str, str] = {}
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        name = str(node.target)
        if node.op != "call_module" or name not in aligned or called.count(name) > 1:
            continue
        if not has_channel_filters(network.get_submodule(name)):
            continue
        source = node.all_input_nodes[0]
        while len(source.users) == 1 and _is_of_one_value(source, network):
            source = source.all_input_nodes[0]
        writer = str(source.target)
        plain = source.op == "call_module" and writer not in aligned and called.count(writer) == 1
        if plain and len(source.users) == 1 and _is_depthwise(network.get_submodule(writer)):
            found[name] = writer
    return found


def most_replaceable_channel(loss: FilterLoss) -> int:
    """The channel without which a layer loses least."""
    return int((loss.products.diagonal() / loss.inverse.diagonal()).argmin())


@torch.no_grad()
def make_constant(layer: nn.Module, channel: int) -> None:
    """Lets a depthwise layer put out the same at one channel whatever it takes in."""
    assert isinstance(layer, CONVOLUTIONS)  # for the type checker
    assert layer.bias is not None
    layer.weight[channel] = 0
    layer.bias[channel] = LEVEL


def _is_of_one_value(node: fx.Node, network: nn.Module) -> bool:
    """Whether a call gives at each place what depends on its input there alone."""
    if passes(node, network):
        return True
    kind = type(network.get_submodule(str(node.target))) if node.op == "call_module" else None
    return kind is not None and kind.__name__ in ACTIVATIONS


def _is_depthwise(layer: Any) -> bool:
    # With as many filters as channels and more than one channel; its batch norm left it a bias.
    return (
        isinstance(layer, CONVOLUTIONS)
        and layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.bias is not None
    )
