"""No normaliser at all: the control that says what any normaliser is worth."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from da.errors import unknown
from da.norms.base import Normaliser, checked_example
from da.norms.flow import Flow
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    BATCH_NORMS,
    Affine,
    affine_parameters,
    copy_parameter,
    refuse_other_normalisers,
    refuse_tied_weights,
    removable_batch_norms,
    replace_modules,
    replacements_of_removed,
    scalable_layers,
    sole_feeders,
)
from da.norms.tracing import is_layer


class BranchScale(nn.Module):
    """A factor of what a residual branch adds, learnt, and 0 at the start.

    Args:
        end: the layer or batch norm that ended the branch. The factor is of the dtype and device
            of its parameters, and trained where those are.

    Attributes:
        scale: ``(1,)`` float parameter.
    """

    scale: nn.Parameter

    def __init__(self, end: nn.Module):
        super().__init__()
        like = next(end.parameters(), torch.ones((), requires_grad=True))
        self.scale = nn.Parameter(like.new_zeros(1), requires_grad=like.requires_grad)
        self._replaced: tuple[Any, int] | None = None
        if type(end) in BATCH_NORMS:
            self._replaced = type(end), int(end.num_features)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return x * self.scale

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """The batch norm, of the kind that it replaced, that evaluates to the same; else itself."""
        if self._replaced is None:
            return self
        kind, channels = self._replaced
        norm: Any = kind(channels).to(self.scale).requires_grad_(False).eval()
        norm.running_var.fill_(1 - norm.eps)  # what it divides by is 1
        norm.weight.copy_(self.scale.expand(channels))
        return norm


class ScaledEnd(nn.Sequential):
    """What ends a residual branch, and the factor of the branch.

    Args:
        end: a layer, or the affine of a batch norm.
        factor: of the branch.
    """

    def __init__(self, end: nn.Module, factor: BranchScale):
        super().__init__(end, factor)

    @torch.no_grad()
    def plain(self) -> nn.Module:
        """A copy of the end that computes the same alone; itself where the end takes no scale."""
        end, factor = copy.deepcopy(self[0]), self[1].get_parameter("scale")
        if type(end) is not Affine and end not in scalable_layers(end):
            return self
        for value in end._parameters.values():  # weight and bias
            if value is not None:
                value.mul_(factor)
        return end


class NoNormaliser(Normaliser):
    """Removes batch norms and puts nothing in their place, but for a start that deep networks bear.

    The network then computes γ · (w * x) + β where it had γ · norm(w * x) + β, so it is the same
    family of functions without the normalising. Where a single layer feeds the batch norm, γ is
    multiplied into its weight (a weight that is free in scale needs no scale beside it; at γ = 1,
    where networks start, the weight stays as it was) and β becomes its bias. Elsewhere (DenseNet,
    pre-activation) γ and β stay as a per-channel affine. The running statistics are dropped.

    Each residual branch ends in a learnt factor that starts at 0, so that activations do not grow
    with depth: Fixup (Zhang et al. 2019, 1901.09321, section 3) sets the last layer of a branch to
    0 and gives branches scalar factors and biases; here it is the factor that is 0, as in SkipInit
    (De & Smith 2020, 2002.10444), so that all normalisers start from the same weights. Fixup's
    smaller weights within a branch are left out.

    Statistics: none, neither in training nor in evaluation.

    Args:
        residual: ``"zero"`` for those factors, ``"one"`` for none of them.
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "none"

    def __init__(
        self,
        *,
        residual: Literal["zero", "one"] = "zero",
        example: Tensor | None = None,
    ):
        if residual not in ("zero", "one"):
            raise unknown("residual", str(residual), ("zero", "one"))
        self.residual, self.example = residual, checked_example(example)

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        refuse_other_normalisers(model, self.name)
        norms = removable_batch_norms(model)
        if not norms:
            return model
        flow = Flow.of(model, self.example)
        fed = sole_feeders(flow, norms, scalable_layers(model))
        refuse_tied_weights(model, fed, "folding a batch norm changes")
        ends = _ends_of_branches(flow, norms) if self.residual == "zero" else []
        _undo_zeros(ends)
        for layer, norm in fed.items():
            scale, shift = affine_parameters(norm)
            weight = layer.get_parameter("weight")
            with torch.no_grad():
                weight.mul_(scale.to(weight).view(-1, *(1 for _ in weight.shape[1:])))
            layer.register_parameter("bias", copy_parameter(shift, weight))
        swaps = replacements_of_removed(norms, set(fed.values()))
        return replace_modules(model, swaps | _scaled_ends(ends, swaps))


def _ends_of_branches(flow: Flow, norms: Collection[nn.Module]) -> list[nn.Module]:
    """The last layer or batch norm of each residual branch."""
    layers = {module for module in flow.calls if is_layer(module)}
    return [branch[-1] for branch in flow.residual_branches(layers | set(norms))]


@torch.no_grad()
def _undo_zeros(ends: Iterable[nn.Module]) -> None:
    """Sets γ = 0 to 1 where a branch ends: it is 0 by its factor, and by both would never move."""
    for end in ends:
        if type(end) in BATCH_NORMS and end.weight is not None:
            weight = end.get_parameter("weight")
            weight[weight == 0] = 1.0


def _scaled_ends(
    ends: Iterable[nn.Module], swaps: Mapping[nn.Module, nn.Module]
) -> dict[nn.Module, nn.Module]:
    """The ends of residual branches, with what stands there and a factor."""
    scaled: dict[nn.Module, nn.Module] = {}
    for end in ends:
        factor, stays = BranchScale(end), swaps.get(end, end)
        scaled[end] = factor if isinstance(stays, nn.Identity) else ScaledEnd(stays, factor)
    return scaled
