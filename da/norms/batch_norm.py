"""Batch norm (Ioffe, Szegedy 2015), with which networks are built."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from da.norms.base import ActivationNormaliser
from da.norms.flow import Flow
from da.norms.surgery import replace_modules

_KINDS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class BatchNorm(ActivationNormaliser):
    """Leaves batch norms as they are.

    Statistics: in training, mean and variance of the whole batch: of both domains together in a
    joint forward, of one in separate ones; in evaluation, the running averages of all batches, for
    either domain. Evaluations also show the network with these re-estimated on unlabelled images of
    the source (``source-stats``) or of the target (``target-stats``, AdaBN).

    Args:
        insert: put one after each convolution that has no normaliser (LeNet, plain VGG).
        single_image: train on batches of one image, too; see :class:`Normaliser`.
        example: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "bn"
    mixes_domains = True

    def __init__(
        self, *, insert: bool = False, single_image: bool = False, example: Tensor | None = None
    ):
        super().__init__(insert=insert, example=example)
        self.allow_single_image(single_image)

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return _KINDS[dimensions](channels)

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """The batch norm itself."""
        return norm

    def apply(self, model: nn.Module) -> nn.Module:
        """Returns the model as it is, but for what ``insert`` asks for."""
        if not self.insert:
            return model
        return replace_modules(model, self.insertions(model, Flow.of(model, self.example)))
