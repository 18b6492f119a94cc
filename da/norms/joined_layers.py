"""Layers in which timm joins several of PyTorch's, taken apart, so that surgery finds those.

timm is optional and is not imported here: its layers are told by their class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, fx, nn
from torch.nn import functional as F

from da.norms.surgery import replace_modules

N = TypeVar("N")


def pad_same(x: Tensor, kernel: Any, stride: Any, dilation: Any) -> Tensor:
    """Pads maps with zeros, so that a convolution gives ceil(H / stride) rows (TensorFlow's SAME).

    Args:
        x: ``(B, C, H, W)``.
        kernel, stride, dilation: of the convolution, two numbers each.

    Returns:
        ``(B, C, H', W')``; where the padding is odd, the end gets one more than the beginning.
    """
    sides: list[int] = []
    for size, k, s, d in zip(x.shape[-2:], kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        sides = [total // 2, total - total // 2, *sides]  # F.pad begins with the last dimension
    return F.pad(x, sides)


fx.wrap("pad_same")  # what it pads by depends on the size: symbolic tracing sees one call


class SamePadding(nn.Module):
    """The padding of :func:`pad_same` for a convolution, which itself then pads nothing.

    Args:
        convolution: a 2d convolution, of which the sizes are read.
    """

    def __init__(self, convolution: nn.Conv2d):
        super().__init__()
        self.kernel = convolution.kernel_size
        self.stride = convolution.stride
        self.dilation = convolution.dilation

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, H', W')``."""
        return pad_same(x, self.kernel, self.stride, self.dilation)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"kernel={self.kernel}, stride={self.stride}, dilation={self.dilation}"


def split_joined_layers(model: nn.Module) -> nn.Module:
    """Takes apart the layers in which timm joins several of PyTorch's; changed in place.

    A batch norm with dropping and activation inside (``BatchNormAct2d``) becomes PyTorch's own
    batch norm and those, a convolution that pads as TensorFlow does (``Conv2dSame``) becomes a
    padding and PyTorch's own convolution. The function is the same and so are the parameters, but
    any normaliser can take the batch norm's place. Subclasses of the two stay as they are.

    Returns:
        The model, or what stands for it where it was such a layer itself.
    """
    return replace_modules(model, _parts_of_joined_layers(model))


def on_split_layers(
    apply: Callable[[N, nn.Module], nn.Module],
) -> Callable[[N, nn.Module], nn.Module]:
    """Has a normaliser's ``apply`` work on a network whose joined layers are taken apart.

    Where it refuses the network, they are put together again: nothing has changed.
    """

    @functools.wraps(apply)
    def apply_to_split(self: N, model: nn.Module) -> nn.Module:
        parts = _parts_of_joined_layers(model)
        split = replace_modules(model, parts)
        try:
            return apply(self, split)
        except Exception:
            replace_modules(split, {new: old for old, new in parts.items()})
            raise

    return apply_to_split


def _parts_of_joined_layers(model: nn.Module) -> dict[nn.Module, nn.Module]:
    parts: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if _is_of(module, "timm.layers.norm_act", "BatchNormAct2d"):
            parts[module] = _batch_norm_and_activation(module)
        elif _is_of(module, "timm.layers.conv2d_same", "Conv2dSame"):
            parts[module] = _padding_and_convolution(module)
    return parts


def _is_of(module: nn.Module, file: str, name: str) -> bool:
    return type(module).__module__ == file and type(module).__name__ == name


def _batch_norm_and_activation(joined: Any) -> nn.Module:
    new = nn.BatchNorm2d(
        *(joined.num_features, joined.eps, joined.momentum),
        *(joined.affine, joined.track_running_stats),
        device="meta",
    )
    return _join_in_turn(_take_tensors(new, joined), joined.drop, joined.act)


def _padding_and_convolution(joined: Any) -> nn.Module:
    new = nn.Conv2d(
        *(joined.in_channels, joined.out_channels, joined.kernel_size, joined.stride),
        *(joined.padding, joined.dilation, joined.groups, joined.bias is not None),
        device="meta",
    )
    return _join_in_turn(SamePadding(joined), _take_tensors(new, joined))


def _join_in_turn(*modules: nn.Module) -> nn.Module:
    """The modules one after the other, without those that do nothing."""
    active = [module for module in modules if not isinstance(module, nn.Identity)]
    return active[0] if len(active) == 1 else nn.Sequential(*active)


def _take_tensors(new: Any, old: nn.Module) -> Any:
    """``new`` with the very parameters and buffers of ``old``."""
    for name, parameter in old.named_parameters(recurse=False):
        new.register_parameter(name, parameter)
    for name, buffer in old.named_buffers(recurse=False):
        new.register_buffer(name, buffer)
    return new.train(old.training)
