"""The calls of a network's forward pass: by symbolic tracing, or from one run of an example."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
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


_ALIASES = {"iadd": "add", "radd": "add", "imul": "mul", "rmul": "mul", "concat": "cat"}
_SHAPES = ("shape", "ndim", "dtype", "device")
# What they take second tells a dtype and a device.
_LIKENESSES = ("to", "type_as")


@dataclass(eq=False)
class Node:
    """One call of a module or a function.

    Attributes:
        module: the module called; None where it is a function, the input or the output.
        name: of the function, without underscores and in-place marks ("add", "relu", "cat").
        inputs: the calls whose outputs it takes, in order.
        users: the calls that take its output.
        function: the function of its first tensor alone, the other arguments bound.
        parameters: those that it is given itself, past the modules that they are of.
    """

    module: nn.Module | None = None
    name: str = ""
    inputs: list[Node] = field(default_factory=list)
    users: list[Node] = field(default_factory=list)
    function: Callable[[Tensor], Tensor] | None = None
    parameters: list[nn.Parameter] = field(default_factory=list)


def is_layer(module: nn.Module) -> bool:
    """Whether it is a convolution (transposed ones too) or a linear layer."""
    return isinstance(module, (CONVOLUTIONS, nn.Linear))


def is_leaf(module: nn.Module) -> bool:
    """Whether a call of it is one call, and not those within it: torch.nn's modules but for those
    that only hold others."""
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
        return is_leaf(m)


def _copy_to_inspect(model: nn.Module) -> tuple[nn.Module, dict[nn.Module, nn.Module]]:
    """A copy to look at, since a forward may leave things behind on its module.

    Returns:
        The copy, which shares the parameters but not the buffers, and its modules' originals.
    """
    shared: dict[int, Any] = {id(p): p for p in model.parameters()}
    for module in model.modules():  # tensors that were computed with gradients can't be copied
        shared |= {id(t): t for t in vars(module).values() if isinstance(t, Tensor)}
    twin = copy.deepcopy(model, shared)
    return twin, dict(zip(twin.modules(), model.modules(), strict=True))


def trace_calls(model: nn.Module) -> list[Node]:
    """The calls as symbolic tracing sees them, in training mode, where nothing is left out."""
    twin, originals = _copy_to_inspect(model)
    root = nn.Sequential(twin)  # so that the model may be a single layer
    for module in root.modules():
        module.training = True
    nodes: dict[fx.Node, Node] = {}
    for call in _Tracer().trace(root).nodes:
        if _is_shape(call, nodes):
            continue
        node = Node(inputs=[nodes[source] for source in call.all_input_nodes if source in nodes])
        if call.op == "call_module":
            node.module = originals[root.get_submodule(call.target)]
            node.function = node.module.forward
        elif call.op in ("call_function", "call_method"):
            method = call.op == "call_method"
            function = getattr(Tensor, call.target) if method else call.target
            node.name = _canonical(call.target if method else function.__name__)
            node.function = _bind_arguments(function, call.args[1:], call.kwargs)
        read = call.args[:1] if node.name in _LIKENESSES else call.all_input_nodes
        for source in read:
            if isinstance(source, fx.Node) and source.op == "get_attr":
                node.parameters += _parameters_of(operator.attrgetter(str(source.target))(root))
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


def _bind_arguments(
    function: Callable[..., Any], args: Any, kwargs: Any
) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x, *args, **{k: v for k, v in kwargs.items() if k != "input"})


class _Recorder(TorchFunctionMode):
    """Records the calls of leaf modules, and of the functions outside them, by the identity of
    the tensors that they take and give."""

    def __init__(self, originals: dict[nn.Module, nn.Module]) -> None:
        self.originals = originals
        self.nodes: list[Node] = []
        self.producers: dict[int, Node] = {}
        self.alive: list[Tensor] = []  # a freed tensor's identity could come back
        self.depth = 0

    def add(self, node: Node, inputs: Any, outputs: Any) -> None:
        node.inputs = [self.producers[id(t)] for t in _tensors(inputs) if id(t) in self.producers]
        self.nodes.append(node)
        for tensor in _tensors(outputs):
            self.producers[id(tensor)] = node
            self.alive.append(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        # What gives no tensor (a shape, a device) carries no activation.
        if not self.depth and any(True for _ in _tensors(output)):
            name = _canonical(getattr(func, "__name__", "")) or "function"
            node = Node(name=name, function=_bind_arguments(func, args[1:], kwargs or {}))
            read = args[:1] if name in _LIKENESSES else (args, kwargs)
            node.parameters = list(_parameters_of(read))
            self.add(node, (args, kwargs), output)
        return output

    def enter(self, *_: Any) -> None:
        self.depth += 1

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.depth -= 1
        if not self.depth:
            original = self.originals[module]
            self.add(Node(module=original, function=original.forward), (args, kwargs), output)


def record_calls(model: nn.Module, example: Tensor) -> list[Node]:
    """The calls of one run of an example, in evaluation mode, where one image is enough."""
    twin, originals = _copy_to_inspect(model)
    recorder = _Recorder(originals)
    for leaf in filter(is_leaf, twin.modules()):
        leaf.register_forward_pre_hook(recorder.enter)
        leaf.register_forward_hook(recorder.leave, with_kwargs=True)
    recorder.add(Node(), (), example)
    try:
        with torch.no_grad(), recorder:
            output = twin.eval()(example)
    except Exception as error:  # whatever a model's own forward raises
        raise UserError(
            f"{type(model).__name__} can't run the example of shape {tuple(example.shape)}"
            f" ({first_line_of(error)}); give an input that its forward accepts"
        ) from error
    recorder.add(Node(), output, ())
    return recorder.nodes


def first_line_of(error: Exception) -> str:
    """The first line of what an exception says."""
    return next(iter(str(error).strip().splitlines()), repr(error))


def _parameters_of(value: Any) -> Iterator[nn.Parameter]:
    return (tensor for tensor in _tensors(value) if isinstance(tensor, nn.Parameter))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
