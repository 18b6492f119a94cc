"""How data flows through a network: which layer feeds which, read once per surgery.

Normalisers ask here which layer a batch norm belongs to, which activation feeds a layer, which
layers are gates, and where residual branches end. The graph comes from symbolic tracing, or, for
networks that cannot be traced (their path depends on values or shapes), from one run of an example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.tracing import Node, first_line_of, is_layer, record_calls, trace_calls


class ActivationMoments(NamedTuple):
    """What an activation φ makes of z ~ N(0, 1); a gate multiplies all three by its square.

    Attributes:
        second: E[φ(z)²], what He et al. (2015) call ½ for ReLU.
        variance: Var[φ(z)], all that a zero-mean filter sees of it.
        slope: E[φ'(z)²], the part of the squared gradient that passes.
    """

    second: float = 1.0
    variance: float = 1.0
    slope: float = 1.0


class Flow:
    """The calls of one forward pass in the order in which they happen.

    Attributes:
        nodes: the calls.
        calls: those of each module.
        read: the parameters that functions take in, past the modules that they are of.
    """

    def __init__(self, nodes: list[Node]):
        self.nodes = nodes
        self.read = {parameter for node in nodes for parameter in node.parameters}
        self.calls: dict[nn.Module, list[Node]] = {}
        for node in nodes:
            for source in node.inputs:
                source.users.append(node)
            if node.module is not None:
                self.calls.setdefault(node.module, []).append(node)

    @classmethod
    def of(cls, model: nn.Module, example: Tensor | None = None) -> Flow:
        """Traces the model; runs the example where it can't be traced.

        Args:
            model: any network that takes one tensor. It is left as it is.
            example: an input of the model; by default what its ``example`` method gives, or an
                image of the size that timm has on record for a model of its own.
        """
        try:
            return cls(trace_calls(model))
        except Exception as error:  # whatever a model's own forward raises on a symbolic input
            example = _own_example(model) if example is None else example
            if example is None:
                raise UserError(
                    f"{type(model).__name__} can't be traced to see which layer feeds which"
                    f" ({first_line_of(error)}); give one input as example=... so that it is run"
                    " instead"
                ) from error
        where = next(model.parameters(), example)
        return cls(record_calls(model, example.to(where.device)))

    def is_read(self, layer: nn.Module | None) -> bool:
        """Whether a forward uses a parameter of the layer without calling it."""
        return layer is not None and not self.read.isdisjoint(layer.parameters(recurse=False))

    def gates(self) -> set[nn.Module]:
        """The modules of squeeze-and-excitation gates: those between a global average of a tensor
        and the product with that same tensor (Hu et al. 2018, figure 1)."""
        modules: set[nn.Module] = set()
        for node in self.nodes:
            if node.name in _PRODUCTS and len(node.inputs) == 2:
                first, second = node.inputs
                for gate, gated in ((first, second), (second, first)):
                    modules.update(
                        m for n in _calls_of_gate(gate, gated) if (m := n.module) is not None
                    )
        return modules

    def leads_to(self, ends: Collection[nn.Module], sums: bool = False) -> set[nn.Module]:
        """The modules whose output goes nowhere but, by every path, into one of ``ends``.

        Args:
            ends: normalisers.
            sums: paths may go through sums as well; a shift survives those, a scale does not.
        """
        good: dict[Node, bool] = {}
        for node in reversed(self.nodes):
            good[node] = bool(node.users) and all(
                user.module in ends
                or ((_carries_channels(user) or (sums and user.name == "add")) and good[user])
                for user in node.users
            )
        return {m for m, calls in self.calls.items() if all(good[call] for call in calls)}

    def residual_ends(self, layers: Collection[nn.Module]) -> list[nn.Module]:
        """The last layer of each residual branch, one entry per block."""
        return [branch[-1] for branch in self.residual_branches(layers)]

    def residual_branches(self, modules: Collection[nn.Module]) -> list[list[nn.Module]]:
        """Those of ``modules`` in each residual branch, in order; one entry per block.

        Of the two tensors of a sum, the branch is the one with more of them of its own; the other
        is the shortcut. Sums with as many on either side are no residual blocks.
        """
        branches = []
        for node in self.nodes:
            if node.name == "add" and len(node.inputs) == 2:
                first, second = (_ancestors(source) for source in node.inputs)
                own = [
                    [n.module for n in self.nodes if n in mine and n.module in modules]
                    for mine in (first - second, second - first)
                ]
                if len(own[0]) != len(own[1]):
                    longer = max(own, key=len)
                    branches.append([m for m in longer if m is not None])
        return branches

    def moments(self, layer: nn.Module) -> ActivationMoments:
        """The moments of what a layer takes in, given that activations take in N(0, 1).

        They are the activation's own, and 1 where the input is an image or linear. Pooling and
        padding are taken to keep them, a concatenation has the mean of its parts, and a gate of
        squeeze-and-excitation lets through what its last activation gives for 0, as it does at the
        start: its layers see averages over a map, and those of zero-mean filters are about 0.
        """
        return _mean_moments(
            [_moments_of_call(call.inputs[0]) for call in self.calls.get(layer, []) if call.inputs]
        )


def _own_example(model: nn.Module) -> Tensor | None:
    """An input that the model itself names; None where it names none."""
    if callable(method := getattr(model, "example", None)):
        example: Tensor = method()
        return example
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    return None if size is None else torch.zeros(1, *size)


def normalises_outputs(norm: nn.Module, layer: nn.Module) -> bool:
    """Whether a batch norm behind a layer has the size of its outputs, one number for each.

    Behind a linear layer of tokens, ``(B, T, out_features)``, a batch norm is over the T tokens.
    Where T is ``out_features`` sizes don't tell, and it is taken to be over the outputs.
    """
    outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    return bool(norm.num_features == outputs)


def sole_feeder(call: Node) -> Node | None:
    """The call of the layer that alone feeds this call of a batch norm and feeds nothing else."""
    source = call.inputs[0] if call.inputs else None
    while source is not None and isinstance(source.module, nn.Identity) and len(source.users) == 1:
        source = source.inputs[0]
    if source is None or source.module is None or not is_layer(source.module):
        return None
    if call.module is None or not normalises_outputs(call.module, source.module):
        return None
    return source if len(source.users) == 1 else None


_PRODUCTS = ("mul", "multiply")
_AVERAGES = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean")
_POOLS = tuple(
    f"{kind}{d}d"
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for d in (1, 2, 3)
)
_CARRIERS = ("cat", "flatten", "dropout", "dropout2d", "stochastic_depth", "contiguous", *_POOLS)
_PADS = ("pad", "pad_same")
_CARRIER_MODULES = (
    *(nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)
# Not RReLU, which draws random numbers, and nothing that mixes channels (Softmax, GLU).
ACTIVATIONS = (
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
    *("Hardswish", "Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Softplus", "Softsign"),
    *("LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink", "Threshold"),
)
_FUNCTIONS = ("leaky_relu", "clamp", "clamp_min", *(name.lower() for name in ACTIVATIONS))


def _carries_channels(node: Node) -> bool:
    """Whether the channels pass as they are, at most pooled, dropped or set side by side."""
    return node.name in _CARRIERS or isinstance(node.module, _CARRIER_MODULES)


def _calls_of_gate(gate: Node, gated: Node) -> list[Node]:
    """The calls between ``gated`` and ``gate`` where they are one chain with an average in it."""
    chain = []
    while gate is not gated and len(gate.inputs) == 1:
        chain.append(gate)
        gate = gate.inputs[0]
    averages = nn.modules.pooling._AdaptiveAvgPoolNd
    averaged = any(n.name in _AVERAGES or isinstance(n.module, averages) for n in chain)
    return chain if gate is gated and averaged else []


def _ancestors(node: Node) -> set[Node]:
    ancestors = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().inputs:
            if source not in ancestors:
                ancestors.add(source)
                waiting.append(source)
    return ancestors


def _mean_moments(parts: list[ActivationMoments]) -> ActivationMoments:
    return ActivationMoments(*(sum(values) / len(parts) for values in zip(*parts, strict=True)))


def _is_activation(node: Node) -> bool:
    return type(node.module).__name__ in ACTIVATIONS or node.name in _FUNCTIONS


def _moments_of_call(node: Node) -> ActivationMoments:
    if _is_activation(node):
        assert node.function is not None  # for the type checker: modules and functions have one
        return _gaussian_moments(node.function, node.module)
    if node.name in _PRODUCTS and len(node.inputs) == 2:
        first, second = node.inputs
        for gate, gated in ((first, second), (second, first)):
            if chain := _calls_of_gate(gate, gated):
                opening = _initial_gate_value(chain)
                return ActivationMoments(
                    *(opening**2 * moment for moment in _moments_of_call(gated))
                )
        return ActivationMoments()
    if (_carries_channels(node) or node.name in _PADS) and node.inputs:
        return _mean_moments([_moments_of_call(source) for source in node.inputs])
    return ActivationMoments()


def _initial_gate_value(chain: list[Node]) -> float:
    """What a gate lets through at the start: its last activation at 0 (½ for a sigmoid)."""
    last = next((node for node in chain if _is_activation(node)), None)
    if last is None or last.function is None:
        return 1.0
    with torch.no_grad():
        return float(last.function(torch.zeros(1)).mean()) or 1.0


def _gaussian_moments(
    function: Callable[[Tensor], Tensor], module: nn.Module | None
) -> ActivationMoments:
    """The moments for z ~ N(0, 1), by the midpoint rule over ±10."""
    z = (torch.arange(-10_000, 10_000, dtype=torch.float64) + 0.5) * 1e-3
    density = (torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * 1e-3)[:, None]
    x = z.float()[:, None]
    if isinstance(module, nn.PReLU):  # the one activation with parameters, one per channel
        x = x.to(module.weight).expand(-1, module.num_parameters)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = function(x.clone())
        (slopes,) = torch.autograd.grad(values.sum(), x)
    values, slopes = values.detach().double().cpu(), slopes.double().cpu()
    first, second, slope = (
        (value * density).sum(0) for value in (values, values.square(), slopes.square())
    )
    variance = second - first.square()
    return ActivationMoments(float(second.mean()), float(variance.mean()), float(slope.mean()))
