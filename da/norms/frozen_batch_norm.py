"""Batch norm with frozen statistics: a control for what statistics of the batch do in training."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import Normaliser
from da.norms.folding import refuse_without_statistics
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import removable_batch_norms, replace_modules, title_of_model


class FrozenBatchNorm(nn.modules.batchnorm._BatchNorm):
    """y = gamma · (x - μ) / √(σ² + ε) + beta with running μ and σ², in training, too.

    ``train()`` leaves it in evaluation mode. Whoever re-estimates statistics sets ``training``
    itself, and then it acts and learns as batch norm does
    (:func:`da.norms.running_statistics.reestimated`, adapters).

    Args:
        norm: the batch norm that it replaces. Its parameters and statistics are taken, not copied.
    """

    def __init__(self, norm: Any):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, device="meta")
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.training = False

    def train(self, mode: bool = True) -> FrozenBatchNorm:
        """Stays in evaluation mode."""
        self.training = False
        return self

    def _check_input_dim(self, input: Tensor) -> None:
        """``(B, C, ...)`` of any number of dimensions."""
        if input.dim() < 2:
            raise ValueError(f"expected an input of 2 dimensions or more, got {input.dim()}")


class FrozenStatistics(Normaliser):
    """Batch norm in evaluation mode throughout training.

    Statistics: in training and in evaluation alike, the running averages that came with the
    pretrained weights, of the images of those; neither domain enters.

    The running statistics stay those of the pretrained weights; scale and shift are trained. To
    freeze batch norm in fine-tuning is common practice in detection, where batches are small (He et
    al. 2016, 1512.03385, appendix A). torchvision's ``FrozenBatchNorm2d`` freezes the scale and
    shift with the statistics; here they are trained, as by ``norm_eval=True`` of MMDetection, so
    that the statistics are all that differs from ``bn``.

    It needs a backbone with pretrained weights. Bottleneck and critic start from random weights, so
    they have no statistics to freeze, and keep ordinary batch norm.
    """

    name: ClassVar[str] = "bn-frozen"
    needs_pretrained: ClassVar[bool] = True

    def for_part(self, part: str) -> Normaliser | None:
        """The backbone's; others have no pretrained statistics and keep batch norm."""
        return self if part == "backbone" else None

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`. The statistics are those that the model has."""
        norms = removable_batch_norms(model)
        if not norms:
            raise UserError(
                f"{title_of_model(model)} has no batch norm for '{self.name}' to freeze; use 'bn'"
                " to leave it as it is"
            )
        refuse_without_statistics(model, norms)
        return replace_modules(model, {norm: FrozenBatchNorm(norm) for norm in norms})
