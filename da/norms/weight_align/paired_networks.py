"""Two networks of one structure, run side by side, call by call, over all images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate, map_arg

from da.errors import UserError
from da.norms.surgery import Affine, title_of_model
from da.norms.tracing import first_line_of, is_leaf

# Activations that take more bytes than this over all images are kept in half precision.
HALF_ABOVE = 2**28


class PairedRun:
    """A forward pass of two networks at once, one call after the other.

    Activations are lists of chunks, kept only until the last call that needs them, and in half
    precision where they are large (in full where half would overflow).

    Args:
        graph: the calls of both networks, see :func:`trace_graph`.
        networks: two in which every name of the graph stands for the same kind of call.
        chunks: the images, ``(B, ...)`` each.
        different: the calls of modules that differ between the two.
    """

    def __init__(
        self,
        graph: fx.Graph,
        networks: tuple[nn.Module, nn.Module],
        chunks: Sequence[Tensor],
        different: set[str],
    ):
        self.graph, self.chunks = graph, chunks
        self.images = sum(map(len, chunks))
        self.dtype = chunks[0].dtype
        self.runners = [fx.Interpreter(network, graph=graph) for network in networks]
        self.values: tuple[dict[fx.Node, list[Any]], dict[fx.Node, list[Any]]] = ({}, {})
        self.shared: set[fx.Node] = set()
        self.last: dict[fx.Node, list[fx.Node]] = {}
        needed: set[fx.Node] = set()
        for node in reversed(graph.nodes):
            self.last[node] = [n for n in node.all_input_nodes if n not in needed]
            needed.update(node.all_input_nodes)
        for node in graph.nodes:
            if node.target not in different and self.shared.issuperset(node.all_input_nodes):
                self.shared.add(node)

    def __iter__(self) -> Iterator[fx.Node]:
        """The calls in their order. Whoever takes one runs it in both networks."""
        for node in self.graph.nodes:
            if node.op != "output":
                yield node
            for finished in (*self.last[node], *(() if node.users else (node,))):
                for values in self.values:
                    values.pop(finished, None)

    def run(self, node: fx.Node) -> None:
        """Runs a call in both networks; once where nothing differs between them so far."""
        for _ in self.outputs(0, node):
            pass
        if node in self.shared:
            self.values[1][node] = self.values[0][node]
        else:
            for _ in self.outputs(1, node):
                pass

    def outputs(self, side: int, node: fx.Node) -> Iterator[Any]:
        """Runs a call in the first (0) or second (1) network and yields what each chunk gives."""
        values = self.values[side]
        stored = values[node] = []
        for i, chunk in enumerate(self.chunks):
            if node.op == "placeholder":
                stored.append(chunk)
                yield chunk
                continue
            needed = {n: map_aggregate(values[n][i], self._unpacked) for n in node.all_input_nodes}
            args, kwargs = (map_arg(a, needed.__getitem__) for a in (node.args, node.kwargs))
            output = getattr(self.runners[side], node.op)(node.target, args, kwargs)
            stored.append(map_aggregate(output, self._packed))
            for finished in self.last[node]:
                if finished not in self.shared:
                    values[finished][i] = None
            yield output

    def inputs(self, side: int, node: fx.Node) -> Iterator[Tensor]:
        """What the first tensor of a call is, chunk by chunk."""
        for value in self.values[side][node.all_input_nodes[0]]:
            yield self._unpacked(value)

    def _packed(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != self.dtype or not value.dim():
            return value
        if value[0].numel() * self.images * value.element_size() <= HALF_ABOVE:
            return value
        half = value.half()
        return half if half.isfinite().all() else value

    def _unpacked(self, value: Any) -> Any:
        packed = isinstance(value, Tensor) and value.dtype == torch.float16
        return value.to(self.dtype) if packed else value


class _AskedError(Exception):
    """A question about shapes that tracing came to."""

    def __init__(self, node: fx.Node):
        super().__init__()
        self.node = node


class _Tracer(fx.Tracer):
    """Symbolic tracing that is given the answers to questions about shapes, in their order."""

    def __init__(self, answers: list[bool]):
        super().__init__()
        self.answers = iter(answers)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Affine) or is_leaf(m)

    def to_bool(self, obj: fx.Proxy) -> bool:
        for answer in self.answers:
            return answer
        raise _AskedError(obj.node)


def trace_graph(model: nn.Module, example: Tensor) -> fx.Graph:
    """The calls of a network's forward, by symbolic tracing.

    Args:
        model: in evaluation mode; it takes one tensor.
        example: an input of it. Where the path through the network depends on shapes, it is that
            of the example.

    Returns:
        The graph of ``nn.Sequential(model)``, so that the model may be a single layer.

    Raises:
        UserError: where the path depends on values, or a forward can't be traced at all.
    """
    root = nn.Sequential(model)
    answers: list[bool] = []
    try:
        while True:
            try:
                return _Tracer(answers).trace(root)
            except _AskedError as asked:
                answers.append(_answer_condition(root, asked.node, example))
    except Exception as error:  # whatever a model's own forward raises on a symbolic input
        raise UserError(
            f"{title_of_model(model)} can't be traced, and its weights are converted call by call"
            f" ({first_line_of(error)}); give its forward no branches on values, or leave the"
            " weights out and train from scratch"
        ) from error


def _answer_condition(root: nn.Module, node: fx.Node, example: Tensor) -> bool:
    """What a condition that tracing stopped at is for an example."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for call in node.graph.nodes:
        copies[call] = graph.node_copy(call, copies.__getitem__)
    graph.output(copies[node])
    with torch.no_grad():
        answer = fx.Interpreter(root, graph=graph).run(example)
    if isinstance(answer, Tensor):
        raise ValueError("its path depends on the values of its input")
    return bool(answer)
