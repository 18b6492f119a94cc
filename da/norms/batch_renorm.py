"""Batch renormalisation (Ioffe 2017): batch norm corrected towards its running statistics."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.errors import UserError
from da.norms.base import ActivationNormaliser
from da.norms.batch_norm import BatchNorm


class BatchRenormLayer(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose output in training is nearly that of evaluation (Ioffe 2017, algorithm 1).

    y = gamma · ((x - μ_B) / σ_B · r + d) + beta with r = σ_B / σ clipped to [1 / r_max, r_max] and
    d = (μ_B - μ) / σ clipped to [-d_max, d_max], both without gradient; μ and σ are the running
    statistics. Evaluation is batch norm's. The running average is that of the variance, as torch's
    batch norm keeps it, where the paper's is of the deviation.

    Args:
        norm: the batch norm that it replaces. Its parameters and statistics are taken, not copied.
        r_max, d_max: the bounds that r and d reach.
        start, r_end, d_end: batches of this training, not of pretrained weights: bounds are those
            of plain batch norm (1 and 0) before ``start`` and grow evenly from there to the given
            ones.

    Attributes:
        corrects: whether it corrects in training mode; without, it is plain batch norm there, for
            those who want statistics of a batch (re-estimation, adapters).
    """

    corrects: bool = True

    def __init__(self, norm: Any, r_max: float, d_max: float, start: int, r_end: int, d_end: int):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, device="meta")
        self.track_running_stats = norm.track_running_stats
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked = torch.zeros_like(self.num_batches_tracked)
        self.training = norm.training
        self.kind = type(norm)
        self.r_max, self.d_max = r_max, d_max
        self.start, self.r_end, self.d_end = start, r_end, d_end

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        if not (self.training and self.corrects) or self.running_mean is None:
            return super().forward(input)
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        dtype = self.running_mean.dtype
        r, d = (factor.to(dtype) for factor in self.corrections(input))
        scale = r if weight is None else weight * r
        shift = d if weight is None else weight * d
        shift = shift if bias is None else shift + bias
        kept: tuple[Any, Any] = (None, None)
        momentum = 0.0
        if self.track_running_stats:
            assert self.num_batches_tracked is not None  # for the type checker
            self.num_batches_tracked.add_(1)
            kept = (self.running_mean, self.running_var)
            cumulative = self.momentum is None
            momentum = 1.0 / float(self.num_batches_tracked) if cumulative else self.momentum  # type: ignore[assignment]
        return F.batch_norm(input, *kept, scale, shift, True, momentum, self.eps)

    def plain(self) -> nn.Module:
        """The batch norm, of the kind that it replaced, that it is in evaluation."""
        settings = (self.eps, self.momentum, self.affine, self.track_running_stats)
        norm: nn.Module = self.kind(self.num_features, *settings, device="meta")
        norm._parameters.update(self._parameters)
        norm._buffers.update(self._buffers)
        return norm.train(self.training)

    @torch.no_grad()
    def corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r and d of every channel, ``(C,)`` float each, for a batch ``(B, C, ...)``."""
        assert self.running_mean is not None  # for the type checker
        assert self.running_var is not None
        axes = (0, *range(2, x.dim()))
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(x, axes, correction=0)
        sigma = (self.running_var + self.eps).sqrt()
        most_r = 1 + (self.r_max - 1) * self._share(self.r_end)
        most_d = self.d_max * self._share(self.d_end)
        r = (variance + self.eps).sqrt() / sigma
        d = (mean - self.running_mean) / sigma
        return torch.clamp(r, 1 / most_r, most_r), torch.clamp(d, -most_d, most_d)

    def _share(self, end: int) -> Tensor:
        """How far the bounds have grown, a float in [0, 1]."""
        assert self.num_batches_tracked is not None  # for the type checker
        return ((self.num_batches_tracked - self.start) / max(1, end - self.start)).clamp(0, 1)

    def _check_input_dim(self, input: Tensor) -> None:
        """``(B, C, ...)`` of any number of dimensions."""
        if input.dim() < 2:
            raise ValueError(f"expected an input of 2 dimensions or more, got {input.dim()}")


class BatchRenorm(ActivationNormaliser):
    """Batch norm corrected towards its running statistics: training sees what evaluation does.

    Statistics: in training, mean and variance of the whole batch, of whichever domains are in it,
    corrected by bounded factors towards the running averages of all batches so far; in evaluation,
    those running averages, for either domain.

    The paper leaves plain batch norm alone for 5,000 batches, and lets the bounds grow until batch
    40,000 (r) and 25,000 (d), with running averages of momentum 0.01. Trainings here are about a
    hundred times shorter, and so is each of the three by default.

    Args:
        r_max: bound of the factor r.
        d_max: bound of the shift d.
        start: batches before which it is plain batch norm.
        r_end: the batch at which r has its bound.
        d_end: the batch at which d has its bound.
        insert: put one after each convolution that has no normaliser (LeNet, plain VGG).
        single_image: train on batches of one image, too; see :class:`Normaliser`.
        example: see :class:`ActivationNormaliser`.
    """

    name: ClassVar[str] = "brn"
    composes: ClassVar[bool] = False  # under it, WA is centring of filters, as under batch norm
    mixes_domains = True

    def __init__(
        self,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        start: int = 50,
        r_end: int = 400,
        d_end: int = 250,
        insert: bool = False,
        single_image: bool = False,
        example: Tensor | None = None,
    ):
        super().__init__(insert=insert, example=example)
        self.allow_single_image(single_image)
        for option, value, least in (("r_max", r_max, 1), ("d_max", d_max, 0)):
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not least <= value < math.inf
            ):
                raise UserError(f"{option}: expected a finite number from {least}, got {value!r}")
        for option, batch in (("start", start), ("r_end", r_end), ("d_end", d_end)):
            if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0:
                raise UserError(f"{option}: expected a whole number of batches, got {batch!r}")
            if batch < start:
                raise UserError(f"{option}: expected start={start} batches or more, got {batch}")
        self.bounds = (r_max, d_max, start, r_end, d_end)

    def build(self, channels: int, dimensions: int) -> nn.Module:
        """See :meth:`ActivationNormaliser.build`."""
        return BatchRenormLayer(BatchNorm().build(channels, dimensions), *self.bounds)

    def replacement_for(self, norm: nn.Module) -> nn.Module:
        """A layer with the parameters and statistics of ``norm``."""
        return BatchRenormLayer(norm, *self.bounds)
