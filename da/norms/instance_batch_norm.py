"""IBN-a (Pan et al. 2018): instance norm for half of the channels, batch norm for the others."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.norms.base import Normaliser, checked_example
from da.norms.flow import Flow
from da.norms.instance_norm import InstanceNormLayer
from da.norms.joined_layers import on_split_layers
from da.norms.surgery import (
    affine_parameters,
    removable_batch_norms,
    replace_modules,
    title_of_model,
)


class InstanceBatchNormLayer(nn.Module):
    """The first half of the channels under instance norm, the rest under batch norm.

    Args:
        norm: the batch norm that it replaces. Each half starts from its part of the scale and
            shift, the second from its running statistics as well.

    Attributes:
        instance: instance norm of the first ``C // 2`` channels.
        batch: a batch norm of torch.nn of the others.
    """

    def __init__(self, norm: Any):
        super().__init__()
        half = norm.num_features // 2
        weight, bias = affine_parameters(norm)
        self.instance = InstanceNormLayer(half).to(weight.device, weight.dtype)
        self.batch = type(norm)(
            *(norm.num_features - half, norm.eps, norm.momentum, True, norm.track_running_stats),
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            for part, channels in ((self.instance, slice(half)), (self.batch, slice(half, None))):
                part.weight.copy_(weight[channels]).requires_grad_(weight.requires_grad)
                part.bias.copy_(bias[channels]).requires_grad_(bias.requires_grad)
            for name, buffer in norm.named_buffers():
                own = self.batch.get_buffer(name)
                own.copy_(buffer[half:] if buffer.dim() else buffer)
        self.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        half = len(self.instance.weight)
        return torch.cat([self.instance(x[:, :half]), self.batch(x[:, half:])], dim=1)


class InstanceBatchNorm(Normaliser):
    """Instance norm for half of the channels of some layers; batch norm stays everywhere else.

    It is IBN-a (Pan et al. 2018, section 3): in each residual block, the first batch norm is
    changed, but not in the blocks of the last stage, the widest (conv5_x), since what tells looks
    apart lies in shallow layers. In networks without residual blocks, for which the paper says
    nothing, the first half of the batch norms on maps is changed.

    Statistics: in training, half of the channels of those layers are normalised by mean and
    variance of the one image; the others, and all other layers, by those of the whole batch, of
    whichever domains are in it; in evaluation the latter by running averages, for either domain. On
    vectors (bottleneck, critic) instance norm is undefined, so batch norm stays there.

    Args:
        single_image: train on batches of one image, too; see :class:`Normaliser`.
        example: an input of the model, for networks that can't be traced.
    """

    name: ClassVar[str] = "ibn"
    mixes_domains = True

    def __init__(self, *, single_image: bool = False, example: Tensor | None = None):
        self.allow_single_image(single_image)
        self.example = checked_example(example)

    def for_part(self, part: str) -> Normaliser | None:
        """The backbone's; others normalise vectors, and keep batch norm."""
        return self if part == "backbone" else None

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        maps = (nn.BatchNorm2d, nn.BatchNorm3d)
        removable: list[Any] = removable_batch_norms(model)
        norms = [norm for norm in removable if type(norm) in maps and norm.num_features > 1]
        if not norms:
            raise UserError(
                f"{title_of_model(model)} has no batch norm on maps for '{self.name}' to change;"
                " use 'bn' to leave it as it is"
            )
        changed = _shallow_norms(Flow.of(model, self.example), norms)
        return replace_modules(model, {norm: InstanceBatchNormLayer(norm) for norm in changed})


def _shallow_norms(flow: Flow, norms: Iterable[Any]) -> list[Any]:
    """The batch norms that IBN-a changes."""
    norms = set(norms)
    branches: list[list[Any]] = flow.residual_branches(norms)
    blocks = [branch for branch in branches if len(branch) > 1]
    widths = {branch[-1].num_features for branch in blocks}
    if len(widths) > 1:
        blocks = [branch for branch in blocks if branch[-1].num_features < max(widths)]
    if blocks:
        return list(dict.fromkeys(branch[0] for branch in blocks))
    in_order = dict.fromkeys(n.module for n in flow.nodes if n.module in norms)
    return list(in_order)[: math.ceil(len(in_order) / 2)]
