"""Normalisers of activations behind aligned layers, fitted to what trained batch norms computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from da.errors import UserError
from da.norms.flow import Flow
from da.norms.folding import fold_into_layers
from da.norms.joined_layers import split_joined_layers
from da.norms.layer_patterns import match_patterns
from da.norms.surgery import (
    removable_batch_norms,
    replace_modules,
    scalable_layers,
    title_of_model,
)
from da.norms.weight_align.normaliser import WeightAlign
from da.norms.weight_align.paired_networks import PairedRun

# Deviation of what a normaliser puts out before its scale, below which a channel counts as constant
# and gets no scale: it is 1 on average where anything is normalised.
LEAST_DEVIATION = 1e-4


def fold_followed(
    model: nn.Module, normaliser: WeightAlign
) -> tuple[nn.Module, set[str], set[str]]:
    """The original network with those batch norms folded away that a normaliser now stands for.

    Args:
        model: a copy of the original; changed in place.
        normaliser: WeightAlign with a normaliser of activations.

    Returns:
        The folded network; the names of the normalisers to fit, where it has nothing or an affine;
        and the names of all modules whose output goes to these alone.

    Raises:
        UserError: where normalisers were inserted, or a batch norm has no running statistics or no
            scale and shift.
    """
    activation = normaliser.activation
    assert activation is not None  # for the type checker
    if activation.insert:
        raise UserError(
            f"insert=True of 'wa+{activation.name}' puts normalisers where the trained weights of"
            f" {title_of_model(model)} know none; leave it out"
        )
    model = split_joined_layers(model).eval()
    gone = removable_batch_norms(model, match_patterns(model, normaliser.exclude, "exclude"))
    for name, norm in model.named_modules():
        if norm in gone and norm._parameters.get("weight") is None:
            raise UserError(
                f"'{name}' of {title_of_model(model)} has no scale and shift, which are what is"
                " fitted; build it with affine=True, or use 'wa'"
            )
    flow = Flow.of(model, normaliser.example)
    leading = flow.leads_to(gone, sums=True)
    names = {name for name, module in model.named_modules() if module in set(gone)}
    served = {name for name, module in model.named_modules() if module in leading}
    swaps = fold_into_layers(model, flow, gone, scalable_layers(model))
    return replace_modules(model, swaps), names, served


def takes_statistics_of_images(norm: nn.Module) -> bool:
    """Whether a normaliser takes its statistics from each image, in evaluation, too."""
    return not isinstance(norm, nn.modules.batchnorm._BatchNorm)


@torch.no_grad()
def take_over_filters(new: Any, old: Any) -> None:
    """Gives a plain layer that a normaliser follows the filters of the folded one.

    Each keeps the norm that it had: what follows divides by what they put out, and a step of
    training turns a shorter filter further.

    Args:
        new: with the filters as they were trained; changed in place. Its bias, if any, becomes 0.
        old: the folded layer.
    """
    was, folded = (x.flatten(1).norm(dim=1) for x in (new.weight, old.weight))
    ratio = torch.where(folded > 0, was / folded.clamp(min=1e-30), torch.zeros_like(was))
    scaled = old.weight * ratio.view(-1, *(1 for _ in old.weight.shape[1:]))
    alive = (folded > 0).view(-1, *(1 for _ in old.weight.shape[1:]))
    new.weight.copy_(torch.where(alive, scaled, new.weight))
    if new.bias is not None:
        new.bias.zero_()


def norms_behind(graph: fx.Graph, layers: Iterable[str], norms: set[str]) -> dict[str, str]:
    """The normaliser that alone reads a layer, by the layer's name; layers without are left out."""
    layers = set(layers)
    behind: dict[str, str] = {}
    for node in graph.nodes:
        if node.op == "call_module" and node.target in layers and len(node.users) == 1:
            (reader,) = node.users
            if reader.op == "call_module" and reader.target in norms:
                behind[str(node.target)] = str(reader.target)
    return behind


@torch.no_grad()
def fit_norm(
    steps: PairedRun, node: fx.Node, norm: Any, fitted: int, constant: Mapping[int, float]
) -> tuple[list[Tensor], list[Tensor]]:
    r"""Runs a normaliser's place in both networks, and fits the second's in between.

    With ẑ what it puts out before its scale and shift, and t what the first network has there,
    scale and shift of each channel minimise the squared error over all positions:

    .. math:: \gamma = \mathrm{cov}(\hat z, t) / \mathrm{var}(\hat z), \quad
              \beta = \mathrm{E} t - \gamma \, \mathrm{E} \hat z .

    Running averages of a batch norm become mean and variance over all fitted images.

    Args:
        steps: at the call.
        node: the call.
        norm: the second network's.
        fitted: how many of the chunks are to be fitted on; the others are measured.
        constant: the channels that are to put out the same everywhere, and what.

    Returns:
        Outputs of the second network and of the first, of the other chunks.
    """
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        _set_running_averages(norm, list(steps.inputs(1, node))[:fitted])
    norm.weight.fill_(1.0)
    norm.bias.zero_()
    moments = _ChannelMoments()
    wanted = []
    for i, (z, t) in enumerate(zip(steps.inputs(1, node), steps.outputs(0, node), strict=True)):
        if i < fitted:
            moments.add(norm(z), t)
        else:
            wanted.append(t)
    scale, shift = moments.line()
    for channel, level in constant.items():
        scale[channel], shift[channel] = 0.0, level
    norm.weight.copy_(scale)
    norm.bias.copy_(shift)
    outputs = [y for i, y in enumerate(steps.outputs(1, node)) if i >= fitted]
    return outputs, wanted


def _set_running_averages(norm: Any, chunks: list[Tensor]) -> None:
    """Mean and unbiased variance of each channel over all chunks, ``(B, C, ...)`` each."""
    axes = [d for d in range(chunks[0].dim()) if d != 1]
    count = sum(x.numel() // x.shape[1] for x in chunks)
    mean = torch.stack([x.sum(axes, dtype=torch.float64) for x in chunks]).sum(0) / count
    shape = (1, -1, *(1 for _ in axes[1:]))
    squares = [(x - mean.view(shape).to(x)).square().sum(axes, dtype=torch.float64) for x in chunks]
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(torch.stack(squares).sum(0) / max(count - 1, 1))


class _ChannelMoments:
    """First and second moments of two values of each channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Tensor] = []

    def add(self, z: Tensor, t: Tensor) -> None:
        """Adds two tensors ``(B, C, ...)`` of one shape."""
        axes = [d for d in range(z.dim()) if d != 1]
        self.count += z.numel() // z.shape[1]
        z, t = z.double(), t.double()
        sums = [x.sum(axes) for x in (z, t, z * z, z * t)]
        self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)] if self.sums else sums

    def line(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, ``(C,)`` each, of the least squared error of scale · z + shift."""
        z, t, zz, zt = (x / self.count for x in self.sums)
        variance, covariance = zz - z * z, zt - z * t
        varies = variance > LEAST_DEVIATION**2
        scale = torch.where(varies, covariance / variance, torch.zeros_like(variance))
        return scale, t - scale * z
