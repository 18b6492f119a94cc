"""How data flows through a network: which layer feeds which, read once per surgery.

Normalisers ask here which layer a batch norm belongs to, which activation feeds a layer, which
layers are gates, and where residual branches end. The graph comes from symbolic tracing, or, for
networks that cannot be traced (their path depends on values or shapes), from one run of an example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from da.errors import UserError

CONVOLUTIONS = nn.modules.conv._ConvNd
NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


@dataclass(eq=False)
class Node:
    """One call of a module or a function.

    Attributes:
        module: the module called; None where it is a function, the input or the output.
        name: of the function, without underscores and in-place marks ("add", "relu", "cat").
        inputs: the calls whose outputs it takes, in order.
        users: the calls that take its output.
        function: the function of its first tensor alone, the other arguments bound.
    """

    module: nn.Module | None = None
    name: str = ""
    inputs: list[Node] = field(default_factory=list)
    users: list[Node] = field(default_factory=list)
    function: Callable[[Tensor], Tensor] | None = None


class Flow:
    """The calls of one forward pass in the order in which they happen."""

    def __init__(self, nodes: list[Node]):
        self.nodes = nodes
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
            example: an input of the model.
        """
        try:
            return cls(_traced(model))
        except Exception as error:  # whatever a model's own forward raises on a symbolic input
            if example is None:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                raise UserError(
                    f"{type(model).__name__} can't be traced to see which layer feeds which"
                    f" ({reason}); give one input as example=... so that it is run instead"
                ) from error
        return cls(_recorded(model, example))

    def gates(self) -> set[nn.Module]:
        """The modules of squeeze-and-excitation gates: those between a global average of a tensor
        and the product with that same tensor (Hu et al. 2018, figure 1)."""
        found: set[nn.Module] = set()
        for node in self.nodes:
            if node.name in _PRODUCTS and len(node.inputs) == 2:
                first, second = node.inputs
                for gate, gated in ((first, second), (second, first)):
                    found.update(m for n in _gate(gate, gated) if (m := n.module) is not None)
        return found

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
                or ((_carries(user) or (sums and user.name == "add")) and good[user])
                for user in node.users
            )
        return {m for m, calls in self.calls.items() if all(good[call] for call in calls)}

    def residual_ends(self, layers: Collection[nn.Module]) -> list[nn.Module]:
        """The last layer of each residual branch, one entry per block.

        Of the two tensors of a sum, the branch is the one with more layers of its own; the other
        is the shortcut. Sums with as many on either side are no residual blocks.
        """
        found = []
        for node in self.nodes:
            if node.name == "add" and len(node.inputs) == 2:
                before = [_ancestors(source) for source in node.inputs]
                own = [
                    [n.module for n in self.nodes if n in mine - other and n.module in layers]
                    for mine, other in (before, before[::-1])
                ]
                if len(own[0]) != len(own[1]):
                    last = max(own, key=len)[-1]
                    assert last is not None  # for the type checker: it is one of `layers`
                    found.append(last)
        return found

    def second_moment(self, layer: nn.Module) -> float:
        """E[x²] of what a layer takes in, given that activations take in N(0, 1).

        It is the activation's own E[φ(z)²] (½ for ReLU), and 1 where the input is an image or
        linear. Pooling is taken to keep it, a concatenation has the mean of its parts.
        """
        moments = [_moment(call.inputs[0]) for call in self.calls.get(layer, []) if call.inputs]
        return sum(moments) / len(moments) if moments else 1.0


def is_layer(module: nn.Module) -> bool:
    """Whether it is a convolution (transposed ones too) or a linear layer."""
    return isinstance(module, (CONVOLUTIONS, nn.Linear))


def feeder(call: Node) -> Node | None:
    """The call of the layer that alone feeds this call and feeds nothing else."""
    source = call.inputs[0] if call.inputs else None
    while source is not None and isinstance(source.module, nn.Identity) and len(source.users) == 1:
        source = source.inputs[0]
    if source is None or source.module is None or not is_layer(source.module):
        return None
    return source if len(source.users) == 1 else None


_PRODUCTS = ("mul", "multiply")
_ALIASES = {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "concat": "cat"}
_SHAPES = ("shape", "ndim", "dtype", "device")
_AVERAGES = ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean")
_POOLS = tuple(
    f"{kind}{d}d"
    for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
    for d in (1, 2, 3)
)
_CARRIERS = ("cat", "flatten", "dropout", "dropout2d", "stochastic_depth", "contiguous", *_POOLS)
_CARRIER_MODULES = (
    *(nn.Identity, nn.Flatten, nn.modules.dropout._DropoutNd),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)
# Not RReLU, which draws random numbers, and nothing that mixes channels (Softmax, GLU).
_ACTIVATIONS = (
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish"),
    *("Hardswish", "Hardtanh", "Hardsigmoid", "Sigmoid", "Tanh", "Softplus", "Softsign"),
    *("LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink", "Threshold"),
)
_FUNCTIONS = ("leaky_relu", "clamp", "clamp_min", *(name.lower() for name in _ACTIVATIONS))


def _carries(node: Node) -> bool:
    """Whether the channels pass as they are, at most pooled, dropped or set side by side."""
    return node.name in _CARRIERS or isinstance(node.module, _CARRIER_MODULES)


def _gate(gate: Node, gated: Node) -> list[Node]:
    """The calls between ``gated`` and ``gate`` where they are one chain with an average in it."""
    chain = []
    while gate is not gated and len(gate.inputs) == 1:
        chain.append(gate)
        gate = gate.inputs[0]
    averages = nn.modules.pooling._AdaptiveAvgPoolNd
    averaged = any(n.name in _AVERAGES or isinstance(n.module, averages) for n in chain)
    return chain if gate is gated and averaged else []


def _ancestors(node: Node) -> set[Node]:
    found = {node}
    waiting = [node]
    while waiting:
        for source in waiting.pop().inputs:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _moment(node: Node) -> float:
    if type(node.module).__name__ in _ACTIVATIONS or node.name in _FUNCTIONS:
        assert node.function is not None  # for the type checker: modules and functions have one
        return _gaussian_moment(node.function, node.module)
    if node.name in _PRODUCTS and len(node.inputs) == 2:
        first, second = node.inputs
        gated = second if _gate(first, second) else first if _gate(second, first) else None
        return _moment(gated) if gated is not None else 1.0
    if _carries(node) and node.inputs:
        return sum(map(_moment, node.inputs)) / len(node.inputs)
    return 1.0


def _gaussian_moment(function: Callable[[Tensor], Tensor], module: nn.Module | None) -> float:
    """E[φ(z)²] for z ~ N(0, 1), by the midpoint rule over ±10."""
    z = (torch.arange(-10_000, 10_000, dtype=torch.float64) + 0.5) * 1e-3
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * 1e-3
    x = z.float()[:, None]
    if isinstance(module, nn.PReLU):  # the one activation with parameters, one per channel
        x = x.to(module.weight).expand(-1, module.num_parameters)
    with torch.no_grad():
        values = function(x.clone()).double().cpu()
    return float((values.square().mean(1) * density).sum())


def _is_leaf(module: nn.Module) -> bool:
    inside_torch = type(module).__module__.startswith("torch.nn.modules")
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return (
        is_layer(module)
        or isinstance(module, NORMS)
        or (inside_torch and not isinstance(module, containers))
    )


def _canonical(name: str) -> str:
    name = name.strip("_")
    return _ALIASES.get(name, name)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _traced(model: nn.Module) -> list[Node]:
    """The calls as symbolic tracing sees them, in training mode, where nothing is left out."""
    root = nn.Sequential(model)  # so that the model may be a single layer
    modes = {module: module.training for module in root.modules()}
    try:
        for module in modes:
            module.training = True
        graph = _Tracer().trace(root)
    finally:
        for module, mode in modes.items():
            module.training = mode
    nodes: dict[fx.Node, Node] = {}
    for call in graph.nodes:
        if _is_shape(call, nodes):
            continue
        node = Node(inputs=[nodes[source] for source in call.all_input_nodes if source in nodes])
        if call.op == "call_module":
            node.module = root.get_submodule(call.target)
            node.function = node.module.forward
        elif call.op in ("call_function", "call_method"):
            method = call.op == "call_method"
            function = getattr(Tensor, call.target) if method else call.target
            node.name = _canonical(call.target if method else function.__name__)
            node.function = _bound(function, call.args[1:], call.kwargs)
        nodes[call] = node
    return list(nodes.values())


def _is_shape(call: fx.Node, nodes: dict[fx.Node, Node]) -> bool:
    """Whether a traced call gives a size or the like: no activation flows through it."""
    if call.op not in ("call_function", "call_method"):
        return False
    name = call.target if isinstance(call.target, str) else call.target.__name__
    if name in ("size", "dim", "numel") or (name == "getattr" and call.args[1] in _SHAPES):
        return True
    return bool(call.all_input_nodes) and not any(s in nodes for s in call.all_input_nodes)


def _bound(function: Callable[..., Any], args: Any, kwargs: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, *args, **{k: v for k, v in kwargs.items() if k != "input"})


class _Recorder(TorchFunctionMode):
    """Records the calls of leaf modules, and of the functions outside them, by the identity of
    the tensors that they take and give."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.made: dict[int, Node] = {}
        self.kept: list[Tensor] = []  # a freed tensor's identity could come back
        self.depth = 0

    def add(self, node: Node, taken: Any, given: Any) -> None:
        node.inputs = [self.made[id(t)] for t in _tensors(taken) if id(t) in self.made]
        made = list(_tensors(given))
        if made or not node.name:
            self.nodes.append(node)
        self.made.update((id(t), node) for t in made)
        self.kept += made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        if not self.depth:
            name = _canonical(getattr(func, "__name__", ""))
            node = Node(name=name or "function", function=_bound(func, args[1:], kwargs or {}))
            self.add(node, (args, kwargs), given)
        return given

    def enter(self, *_: Any) -> None:
        self.depth += 1

    def leave(self, module: nn.Module, args: Any, kwargs: Any, given: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self.add(Node(module=module, function=module.forward), (args, kwargs), given)


def _recorded(model: nn.Module, example: Tensor) -> list[Node]:
    """The calls of one run of an example, in evaluation mode, so that nothing is updated."""
    recorder = _Recorder()
    modes = {module: module.training for module in model.modules()}
    leaves = [module for module in modes if _is_leaf(module)]
    hooks = [leaf.register_forward_pre_hook(recorder.enter) for leaf in leaves]
    hooks += [leaf.register_forward_hook(recorder.leave, with_kwargs=True) for leaf in leaves]
    try:
        for module in modes:
            module.training = False
        recorder.add(Node(), (), example)
        with torch.no_grad(), recorder:
            given = model(example)
        recorder.add(Node(), given, ())
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        shape = tuple(example.shape)
        raise UserError(
            f"{type(model).__name__} can't run the example of shape {shape} ({reason});"
            " give an input that its forward accepts"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return recorder.nodes


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
