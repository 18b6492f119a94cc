"""One aligned weight for several forward passes: separate domains, micro-batches, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from da.norms.weight_align.layers import ComputedWeight


class OptimiserSteps:
    """Counts the steps of all optimisers, until closed: fused kernels raise no tensor's version."""

    def __init__(self) -> None:
        self.count = 0
        self._hook = register_optimizer_step_post_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1

    def close(self) -> None:
        """Stops counting; closing again does nothing."""
        self._hook.remove()


class SharedWeight:
    """The aligned weight of one layer, computed at most once while its parameters stay as they are.

    A change is what raises a parameter's version, any optimiser's step, and other memory
    (``parameter.data = …``, a move to another device), which its address tells.

    Args:
        layer: whose weight it is.
        micro_batches: gradients stop at the aligned weight and add up there, see
            :func:`aligned_once`.
        steps: counted since sharing began.
    """

    def __init__(self, layer: ComputedWeight, micro_batches: bool, steps: OptimiserSteps):
        self.layer = layer
        self.micro_batches = micro_batches
        self.steps = steps
        self.cached: dict[tuple[object, object], tuple[Tensor, Tensor]] = {}
        # The parameters with their memory: what is held can't be given to others, whose identity
        # and address would be the same.
        self.held: list[tuple[Tensor, Tensor]] = []

    def weight(self) -> Tensor:
        """The aligned weight, computed once for each mode in which it is asked for."""
        layer = self.layer
        parts = [p for p in (layer.weight, layer.g) if p is not None]
        if any(p.is_inference() for p in parts):  # made in inference mode: changes aren't counted
            return layer.compute_aligned_weight()
        tensors = tuple((id(p), p.data_ptr(), p._version, p.requires_grad) for p in parts)
        state = (tensors, self.steps.count)
        for old in [key for key in self.cached if key[0] != state]:
            value, leaf = self.cached[old]
            if leaf is value or leaf.grad is None:
                del self.cached[old]
        self.held = [(p, p.detach()) for p in parts]
        held_back = self.micro_batches and torch.is_grad_enabled()
        # Gradients that are held back add up in float32, as those of the weight itself do.
        dtype = layer.weight.dtype if held_back else layer.acting_dtype()
        # What is made in inference mode can't be saved for a backward.
        modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        key = (state, (*modes, dtype))
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
    begun: list[SharedWeight] = []
    steps: OptimiserSteps | None = None
    for layer in model.modules():
        if isinstance(layer, ComputedWeight) and layer.shared is None:
            steps = steps or OptimiserSteps()
            layer.shared = SharedWeight(layer, micro_batches, steps)
            begun.append(layer.shared)
    return begun


def end_sharing(begun: list[SharedWeight], backward: bool = True) -> None:
    """Ends sharing; gradients that were held back reach the layers' weights, in one backward."""
    for shared in begun:
        shared.layer.shared = None
        shared.steps.close()
    pending = [pair for shared in begun for pair in shared.pending()] if backward else []
    if pending:
        values, gradients = zip(*pending, strict=True)
        torch.autograd.backward(values, gradients)


@contextmanager
def aligned_once(model: nn.Module, micro_batches: bool = False) -> Iterator[nn.Module]:
    """Within this block every aligned layer computes its weight once, however often it is called.

    A weight that changes within the block is aligned anew, whether an optimiser changes it (a fused
    one, too), an averaged copy's update, ``load_state_dict``, or other memory that is given to it.
    What writes into its memory past PyTorch's counting (``weight.data.mul_(2)``, NumPy, a replayed
    CUDA graph) is not seen, as autograd doesn't see it: a look at the values would cost as much as
    aligning them. Do that outside the block. Parameters made in inference mode, of which nothing is
    counted, are aligned at each call. Memory of one aligned weight per layer is held until the end.

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
