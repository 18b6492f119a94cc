"""Batch norm folded away and nothing aligned: the control for what WeightAlign itself does."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import Normaliser, checked_example
from da.norms.flow import Flow
from da.norms.folding import fold_into_layers
from da.norms.identity import NoNormaliser
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    refuse_other_normalisers,
    removable_batch_norms,
    replace_modules,
    scalable_layers,
    title_of_model,
)


class Folded(Normaliser):
    """Folds each batch norm, with its running statistics, into the layer that feeds it.

    Statistics: none, neither in training nor in evaluation; those of the pretrained weights are in
    the weights at the start.

    The network starts from the function that its pretrained weights compute in evaluation mode, up
    to rounding, and is trained as a plain network: no normaliser of activations, no alignment of
    weights. Where no single layer feeds a batch norm (DenseNet, pre-activation), the affine that it
    computes stays in its place and is trained.

    It needs a backbone with pretrained weights. Bottleneck and critic start from random weights and
    have no statistics to fold; they go without a normaliser, as under ``none``, from the usual
    initial weights. So it is to ``wa``, which has no statistics in its heads either, what ``none``
    is from scratch.

    Args:
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "folded"
    needs_pretrained: ClassVar[bool] = True

    def __init__(self, *, example: Tensor | None = None):
        self.example = checked_example(example)

    def for_part(self, part: str) -> Normaliser | None:
        """The backbone's; others have no pretrained statistics and go without a normaliser."""
        return self if part == "backbone" else NoNormaliser()

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`. The statistics are those that the model has."""
        refuse_other_normalisers(model, self.name)
        norms = removable_batch_norms(model)
        if not norms:
            raise UserError(
                f"{title_of_model(model)} has no batch norm for '{self.name}' to fold; use 'bn' to"
                " leave it as it is"
            )
        flow = Flow.of(model, self.example)
        return replace_modules(model, fold_into_layers(model, flow, norms, scalable_layers(model)))
