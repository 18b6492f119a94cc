"""The aligned weight and the layers that use it in place of their own."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from da.norms.surgery import replace_modules

if TYPE_CHECKING:
    from da.norms.weight_align.sharing import SharedWeight

EPS = 1e-10


def align(weight: Tensor, g: Tensor | None = None, gain: float = 2.0, eps: float = EPS) -> Tensor:
    r"""Aligns the filters of a weight (Shi, Li, Liu, van Gemert 2020, arXiv 2010.07160).

    .. math:: \hat w_j = g_j (w_j - \mathrm{mean}(w_j)) \big/
              \sqrt{\tfrac{n}{\mathrm{gain}} \mathrm{var}(w_j) + \mathrm{eps}}

    Mean and biased variance are over the n weights of filter j; with gain 2 the variance of what
    a filter puts out equals that of what went through the ReLU before it (He et al. 2015, eq. 10).

    It is one fused forward and one analytic backward: group norm of the weight seen as
    ``(1, O, n)`` with one group per filter, where ``g * sqrt(gain / n)`` is the scale and
    ``eps * gain / n`` the epsilon. A constant filter gives a finite result; n = 1 gives 0.

    Args:
        weight: ``(O, ...)`` float. Any dense layout is read in its own storage order, so a
            channels-last weight is not reordered and stays channels-last.
        g: ``(O,)`` float, the norm of each filter over sqrt(gain); None is 1.
        gain: the factor of the activation that feeds the layer.
        eps: added to a quantity that is 1 at He initialisation.

    Returns:
        ``(O, ...)`` of the weight's dtype and layout; the statistics of a half-precision weight
        are computed in float32.
    """
    if not weight.is_contiguous():
        order = [0, *sorted(range(1, weight.dim()), key=lambda d: -weight.stride()[d])]
        inverse = [order.index(d) for d in range(weight.dim())]
        return align(weight.permute(order).contiguous(), g, gain, eps).permute(inverse)
    filters = weight.shape[0]
    n = weight.numel() // filters
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scale = math.sqrt(gain / n)
    gamma = weight.new_full((filters,), scale, dtype=dtype) if g is None else g.to(dtype) * scale
    flat = weight.view(1, filters, n).to(dtype)
    unit = F.group_norm(flat, filters, gamma, None, eps * gain / n)
    return unit.view(weight.shape).to(weight.dtype)


def naive_align(
    weight: Tensor, g: Tensor | None = None, gain: float = 2.0, eps: float = EPS
) -> Tensor:
    """The formula of :func:`align` as a chain of eager operations, which ``bench`` times."""
    dims = tuple(range(1, weight.dim()))
    variance, mean = torch.var_mean(weight, dims, correction=0, keepdim=True)
    unit = (weight - mean) / torch.sqrt(weight[0].numel() / gain * variance + eps)
    return unit if g is None else unit * g.view(-1, *(1 for _ in dims))


class ComputedWeight(nn.Module):
    """A layer that acts with a weight which it computes from its own.

    The layer itself comes second among the base classes of one that extends this.

    Attributes:
        weight: as in the plain layer, unconstrained; :meth:`aligned_weight` is what acts.
        g: ``(O,)`` parameter, or None.
        bias: ``(O,)`` parameter, or None.
        shared: what :mod:`da.norms.weight_align.sharing` holds for a while, or None.
    """

    weight: Tensor
    bias: Any
    g: nn.Parameter | None
    shared: SharedWeight | None = None

    def aligned_weight(self) -> Tensor:
        """The weight that acts, of the shape and dtype of ``weight``."""
        raise NotImplementedError

    def acting_dtype(self) -> torch.dtype:
        """Of the computed weight in a forward pass: autocast's where it is on, so that it is cast
        once."""
        device = self.weight.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return self.weight.dtype

    def compute_aligned_weight(self) -> Tensor:
        """The weight for a forward pass, its statistics in float32 whatever the dtype."""
        return self.aligned_weight().to(self.acting_dtype())

    def acting_weight(self) -> Tensor:
        """The weight for a forward pass, shared with others within
        :func:`da.norms.aligned_once`."""
        # A compiled graph computes its own: what was shared outside of it would be a constant. So
        # does a replica on another device, which has what was shared of the layer it replicates.
        shared = self.shared
        if torch.compiler.is_compiling() or shared is None or shared.layer is not self:
            return self.compute_aligned_weight()
        return shared.weight()

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles take along: not what is shared with other forward passes."""
        state: dict[str, Any] = super().__getstate__()
        state.pop("shared", None)
        return state


class Aligned(ComputedWeight):
    """What the aligned layers share.

    Args:
        args, kwargs: those of the plain layer.
        gain: see :func:`align`.
        scale: whether g is learned; without, it is fixed at 1 and there is no parameter.
        eps: see :func:`align`.
    """

    def __init__(
        self, *args: Any, gain: float = 2.0, scale: bool = True, eps: float = EPS, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.gain, self.eps = gain, eps
        self.register_parameter("g", None)
        if scale:
            self.g = nn.Parameter(self.weight.new_ones(len(self.weight)))

    def aligned_weight(self) -> Tensor:
        """ŵ, of the shape and dtype of ``weight``."""
        return align(self.weight, self.g, self.gain, self.eps)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"{super().extra_repr()}, gain={self.gain:.4g}, scale={self.g is not None}"


class AlignedConv1d(Aligned, nn.Conv1d):
    """A 1d convolution with aligned filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, L)`` to ``(B, O, L')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class AlignedConv2d(Aligned, nn.Conv2d):
    """A 2d convolution with aligned filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, O, H', W')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class AlignedConv3d(Aligned, nn.Conv3d):
    """A 3d convolution with aligned filters."""

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, D, H, W)`` to ``(B, O, D', H', W')``."""
        return self._conv_forward(input, self.acting_weight(), self.bias)


class AlignedLinear(Aligned, nn.Linear):
    """A linear layer with aligned rows."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        return F.linear(input, self.acting_weight(), self.bias)


# The plain layers that an aligned one stands for exactly. A subclass may treat its weight or its
# input in its own way, so only these very types are converted.
ALIGNED: dict[type[nn.Module], type[Aligned]] = {
    nn.Conv1d: AlignedConv1d,
    nn.Conv2d: AlignedConv2d,
    nn.Conv3d: AlignedConv3d,
    nn.Linear: AlignedLinear,
}


def rebuild_layer(layer: nn.Module, kind: type[nn.Module], bias: bool, **kwargs: Any) -> nn.Module:
    """A layer of another class with the settings of ``layer``, on the meta device: its parameters
    are still to be given, and no random number is drawn for them."""
    if isinstance(layer, nn.Linear):
        settings: dict[str, Any] = {name: getattr(layer, name) for name in _LINEAR}
    else:
        settings = {name: getattr(layer, name) for name in _CONVOLUTION}
    new = kind(**settings, bias=bias, device="meta", **kwargs)
    return new.train(layer.training)


_LINEAR = ("in_features", "out_features")
_CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding"),
    *("dilation", "groups", "padding_mode"),
)


def fold(model: nn.Module) -> nn.Module:
    """The plain network that computes the same as one whose layers compute their weights.

    Args:
        model: any network; it stays as it is.

    Returns:
        A copy that shares no parameter with ``model``, in which every aligned, standardised or
        weight-normalised layer is the plain PyTorch layer with the weight that acts. Whatever else
        there is (activation normalisers, a per-channel affine) is copied as it is.
    """
    copied = copy.deepcopy(model)
    plain: dict[nn.Module, nn.Module] = {}
    for layer in copied.modules():
        if isinstance(layer, ComputedWeight):
            kind = next(kind for kind in ALIGNED if isinstance(layer, kind))
            new = rebuild_layer(layer, kind, bias=layer.bias is not None)
            with torch.no_grad():
                weight = layer.aligned_weight()
            new.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
            new.bias = layer.bias
            plain[layer] = new
    return replace_modules(copied, plain)
