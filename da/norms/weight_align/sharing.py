"""One aligned weight for several forward passes: separate domains, micro-batches, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from da.norms.weight_align.layers import Aligned


class SharedWeight:
    """The aligned weight of one layer, computed at most once while its parameters stay as they are.

    Args:
        layer: whose weight it is.
        micro_batches: gradients stop at the aligned weight and add up there, see
            :func:`aligned_once`.
    """

    def __init__(self, layer: Aligned, micro_batches: bool):
        self.layer = layer
        self.micro_batches = micro_batches
        self.cached: dict[tuple[object, object], tuple[Tensor, Tensor]] = {}

    def weight(self) -> Tensor:
        """The aligned weight, computed once for each mode in which it is asked for."""
        layer = self.layer
        # In-place changes, such as an optimiser's step, count as versions.
        parts = [p for p in (layer.weight, layer.g) if p is not None]
        state = tuple((id(p), p.device, p._version) for p in parts)
        for old in [key for key in self.cached if key[0] != state]:
            value, leaf = self.cached[old]
            if leaf is value or leaf.grad is None:
                del self.cached[old]
        held_back = self.micro_batches and torch.is_grad_enabled()
        # Gradients that are held back add up in float32, as those of the weight itself do.
        dtype = layer.weight.dtype if held_back else layer.acting_dtype()
        key = (state, (torch.is_grad_enabled(), dtype))
        if key not in self.cached:
            value = layer.aligned_weight().to(dtype)
            leaf = value
            if held_back and value.requires_grad:
                leaf = value.detach().requires_grad_()
            self.cached[key] = value, leaf
        return self.cached[key][1].to(layer.acting_dtype())

    def pending(self) -> list[tuple[Tensor, Tensor]]:
        """Aligned weights with the gradients that have added up on them."""
        return [
            (value, leaf.grad)
            for value, leaf in self.cached.values()
            if leaf is not value and leaf.grad is not None
        ]


def begin_sharing(model: nn.Module, micro_batches: bool = False) -> list[SharedWeight]:
    """Begins sharing, on the layers of ``model`` that don't share yet; for :func:`end_sharing`."""
    begun = []
    for layer in model.modules():
        if isinstance(layer, Aligned) and layer.shared is None:
            layer.shared = SharedWeight(layer, micro_batches)
            begun.append(layer.shared)
    return begun


def end_sharing(begun: list[SharedWeight], backward: bool = True) -> None:
    """Ends sharing; gradients that were held back reach the layers' weights, in one backward."""
    for shared in begun:
        shared.layer.shared = None
    pending = [pair for shared in begun for pair in shared.pending()] if backward else []
    if pending:
        values, gradients = zip(*pending, strict=True)
        torch.autograd.backward(values, gradients)


@contextmanager
def aligned_once(model: nn.Module, micro_batches: bool = False) -> Iterator[nn.Module]:
    """Within this block every aligned layer computes its weight once, however often it is called.

    A weight that changes within the block is aligned anew (changes through ``.data`` excepted,
    which PyTorch does not count). Memory of one aligned weight per layer is held until the end.

    Args:
        model: any network; without aligned layers nothing happens.
        micro_batches: several backward passes happen within the block. Gradients then stop at the
            aligned weights and reach the layers' own weights in one backward at the end of the
            block, before the optimiser's step. Without, all forward passes share one graph, and
            one backward, within the block or after it, goes through it.
    """
    begun = begin_sharing(model, micro_batches)
    try:
        yield model
    except BaseException:
        end_sharing(begun, backward=False)
        raise
    end_sharing(begun)
