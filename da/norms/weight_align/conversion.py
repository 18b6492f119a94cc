"""Weights that were trained with batch norm, converted for a network with WeightAlign."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from da.norms.folding import fold_batch_norms
from da.norms.surgery import refuse_tied_weights
from da.norms.tracing import is_layer
from da.norms.weight_align.channel_bases import find_streams, readers_to_measure, turn_streams
from da.norms.weight_align.constant_channels import (
    LEVEL,
    find_depthwise_readers,
    make_constant,
    most_replaceable_channel,
)
from da.norms.weight_align.conversion_refusals import (
    refuse_affine_of_others,
    refuse_other_outputs,
    refuse_out_of_sight,
)
from da.norms.weight_align.coverage import Coverage, measure_coverage
from da.norms.weight_align.distillation import EPOCHS, distil
from da.norms.weight_align.filter_inputs import sample_rows
from da.norms.weight_align.filter_losses import measure_losses
from da.norms.weight_align.following_norms import (
    fit_norm,
    fold_followed,
    norms_behind,
    take_over_filters,
    takes_statistics_of_images,
)
from da.norms.weight_align.image_chunks import first_of, split_images
from da.norms.weight_align.layers import Aligned
from da.norms.weight_align.least_squares import SecondMoments, zero_sum_fit
from da.norms.weight_align.normaliser import WeightAlign
from da.norms.weight_align.output_errors import compare_outputs, relative_error
from da.norms.weight_align.paired_networks import PairedRun, trace_graph
from da.norms.weight_align.standardised import is_standardised

# λ of the fit, over the mean variance of a layer's inputs. From 1e-1 to 1e-5 the outputs of a
# ResNet-18 for digits were off by .0052, .0056, .0070, .0088 and .0134, those of the small ResNet
# by .0151, .0147, .0151, .0153 and .0153.
RIDGE = 1e-2
# Rows of the fit of a layer: at least this many, and this many per weight of a filter, where the
# images have as many positions.
ROWS = 16_384
ROWS_PER_WEIGHT = 4
# What is left plain, see WeightAlign: depthwise convolutions and those of images, which filters of
# zero sum can't replace, and as many of the 1 × 1 layers of up to 24 inputs, which lose most of the
# others, as still leaves 3 of 5 layers aligned.
PLAIN: dict[str, Any] = {"min_channels": 4, "min_weights": 25}
# Of the images held out, those on which the error after each layer is measured; of the others,
# those on which it is chosen what filters of zero sum don't see.
MEASURED = 64


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from that of the layer it stands for.

    Attributes:
        name: of the module in the converted network.
        error: squared error over squared deviation of the original layer's output (with its batch
            norm) from the mean of each channel, on the images held out, in the whole network: the
            layer's own error and what it inherits. 0 is the same output, 1 a constant.
    """

    name: str
    error: float


@dataclass(frozen=True)
class Conversion:
    """A converted network and how near it is to the original.

    Attributes:
        model: the network with WeightAlign.
        layers: the error after each aligned layer, or after the normaliser of activations behind
            it, in the order of the forward pass; before any distillation.
        error: that of the network's outputs, measured as in :class:`LayerError`.
        agreement: share of the images held out for which the largest output is the same one; None
            where outputs are not vectors.
        images: how many the layers were fitted on.
        held_out: how many others ``layers``, ``error`` and ``agreement`` were measured on.
        distilled: whether the network was distilled after its layers were fitted.
    """

    model: nn.Module
    layers: tuple[LayerError, ...]
    error: float
    agreement: float | None
    images: int
    held_out: int
    distilled: bool = False

    @property
    def coverage(self) -> Coverage | None:
        """Which convolutions are aligned; None where none is."""
        return measure_coverage(self.model)


@torch.no_grad()
def convert_pretrained(
    model: nn.Module,
    images: Tensor | Iterable[Tensor],
    held_out: Tensor | Iterable[Tensor] | None = None,
    *,
    normaliser: WeightAlign | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """A network with WeightAlign that computes as nearly as it can what trained weights compute.

    Batch norm is folded into the layer that feeds it. Channels without an activation take the
    basis in which the filters that read them lose least (``turn_streams``), and one channel of each
    plain depthwise layer becomes constant, so that the aligned layer that reads it can put there
    what its filters would sum to (``constant_channels``). Then, layer by layer from the input, the
    new filter is the one of zero sum that puts out nearest to the folded layer's output on the
    input as the layers converted before it produce it (``zero_sum_fit``). g is its norm over
    sqrt(gain), b the intercept, and the weight it is computed from has the norm of He
    initialisation. A batch norm that no single layer feeds becomes the affine that it computes with
    its running statistics. Other layers that WeightAlign leaves alone compute what they did,
    and so do those with scaled weight standardisation, which are aligned without a change.

    By default, convolutions whose filters see fewer than 4 channels are not aligned: those of
    images and depthwise ones, which alone see the local mean of what they take in. Nor are others
    whose filters have fewer than 25 weights, the smallest first, as long as 3 of 5 layers are.

    A layer that is called several times is fitted at its first call; one that evaluation does not
    call (an auxiliary classifier) is aligned as :meth:`WeightAlign.apply` does.

    Args:
        model: with trained weights; it stays as it is.
        images: ``(N, C, H, W)`` float to fit on, or batches of them, which are gone through once.
            They should be prepared as in evaluation. All are in memory at the same time.
        held_out: others to measure on. Without them, every tenth of ``images`` is not fitted on.
        normaliser: what to align, ``WeightAlign(min_channels=4, min_weights=25)`` unless given;
            ``residual`` has no effect, since every g is fitted.
        progress: called after each layer, and each pass of a distillation, with the number of those
            done and of all.

    Raises:
        UserError: for a network that can't be aligned, or can't be traced, and for images that
            are too few.
    """
    normaliser = WeightAlign(**PLAIN) if normaliser is None else normaliser
    layers = [module for module in model.modules() if is_layer(module)]
    refuse_tied_weights(model, layers, "conversion changes")
    fitted, measured = split_images(model, images, held_out)
    converted = normaliser.apply(copy.deepcopy(model))
    norms: set[str] = set()
    served: set[str] = set()
    if normaliser.activation is None:
        target = fold_batch_norms(copy.deepcopy(model), converted, normaliser.example)
    else:
        target, norms, served = fold_followed(copy.deepcopy(model), normaliser)
    refuse_affine_of_others(converted, served)
    original = copy.deepcopy(model).eval()
    refuse_other_outputs(original, measured[0])
    modes = {m: m.training for m in converted.modules()}
    converted.eval()
    distilled = any(takes_statistics_of_images(converted.get_submodule(name)) for name in norms)
    later, fits = EPOCHS if distilled else 0, 0

    def report(done: int, total: int) -> None:
        nonlocal fits
        fits = total
        if progress is not None:
            progress(done, total + later)

    errors = _fit_layers(target, converted, norms, fitted, first_of(measured, MEASURED), report)
    if distilled:
        distil(converted, original, fitted, lambda epoch: report(fits + epoch, fits))
    error, agreement = compare_outputs(original, converted, measured)
    for module, mode in modes.items():
        module.training = mode
    return Conversion(
        model=converted,
        layers=errors,
        error=error,
        agreement=agreement,
        images=sum(map(len, fitted)),
        held_out=sum(map(len, measured)),
        distilled=distilled,
    )


def _fit_layers(
    target: nn.Module,
    converted: nn.Module,
    norms: set[str],
    fitted: list[Tensor],
    measured: list[Tensor],
    progress: Callable[[int, int], None],
) -> tuple[LayerError, ...]:
    """Fits the aligned layers of ``converted``, and the normalisers of activations behind them,
    one by one to what ``target`` puts out there."""
    roots = nn.Sequential(target), nn.Sequential(converted)
    norms = {f"0.{name}".rstrip(".") for name in norms}
    graph = trace_graph(target, fitted[0][:1])
    plain = dict(roots[0].named_modules())
    to_fit = {
        name: module
        for name, module in roots[1].named_modules()
        if name in norms
        or (isinstance(module, Aligned) and not is_standardised(plain.get(name, module)))
    }
    refuse_out_of_sight(target, graph, to_fit)
    behind = norms_behind(graph, [name for name, m in plain.items() if is_layer(m)], norms)
    constant = _move_losses(roots, graph, set(to_fit) - norms, behind, first_of(fitted, MEASURED))
    level = {behind.get(writer): channel for writer, channel in constant.values()}
    different = {*to_fit, *behind, *(writer for writer, _ in constant.values())}
    steps = PairedRun(graph, roots, [*fitted, *measured], different)
    waiting = [n for n in graph.nodes if n.op == "call_module" and n.target in to_fit]
    total = len({to_fit[n.target] for n in waiting})
    done: dict[nn.Module, LayerError | None] = {}
    for node in steps:
        name = str(node.target)
        module = to_fit.get(name) if node.op == "call_module" else None
        if module is None or module in done:
            steps.run(node)
            continue
        if isinstance(module, Aligned):
            channel = constant[name][1] if name in constant else None
            outputs, wanted = _fit_layer(steps, node, module, len(fitted), channel)
        else:
            fixed = {level[name]: LEVEL} if name in level else {}
            outputs, wanted = fit_norm(steps, node, module, len(fitted), fixed)
        error = LayerError(name.partition(".")[2], relative_error(outputs, wanted))
        # What a layer puts out before its normaliser is of another scale, or has no shift.
        before = isinstance(module, Aligned) and (name in behind or module.bias is None)
        done[module] = None if before else error
        progress(len(done), total)
    return tuple(error for error in done.values() if error is not None)


def _move_losses(
    roots: tuple[nn.Module, nn.Module],
    graph: fx.Graph,
    aligned: set[str],
    behind: Mapping[str, str],
    images: list[Tensor],
) -> dict[str, tuple[str, int]]:
    """Makes filters of zero sum lose what is missed least; both networks are changed in place.

    Streams of channels are turned in the first network, which computes what it did, and in the
    second; one channel of each plain depthwise layer is made constant in the second alone.

    Args:
        roots: both networks.
        graph: their calls.
        aligned: names of the layers to fit.
        behind: the normaliser of activations behind a layer, by name.
        images: to measure losses on.

    Returns:
        Aligned layer to the depthwise one that feeds it and the channel that is constant. Where a
        normaliser follows the depthwise layer, that channel is still to be made so.
    """
    target, converted = roots
    streams = find_streams(graph, target)
    fed = find_depthwise_readers(graph, target, aligned)
    readers = readers_to_measure(streams, target, aligned)
    losses = measure_losses(target, sorted(readers | set(fed)), images)
    turn_streams(target, streams, {name: losses[name] for name in readers})
    for name in {n for s in streams for n in (*s.writers, *s.readers)} - aligned - set(behind):
        converted.get_submodule(name).load_state_dict(target.get_submodule(name).state_dict())
    for name in set(behind) - aligned:
        take_over_filters(converted.get_submodule(name), target.get_submodule(name))
    constant = {n: (writer, most_replaceable_channel(losses[n])) for n, writer in fed.items()}
    for writer, channel in constant.values():
        if writer not in behind:
            make_constant(converted.get_submodule(writer), channel)
    return constant


def _fit_layer(
    steps: PairedRun, node: fx.Node, layer: Aligned, fitted: int, constant: int | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Runs a layer in both networks, and gives the second's its weights in between.

    Args:
        steps: at the call.
        node: the call.
        layer: the second network's.
        fitted: how many of the chunks are to be fitted on; the others are measured.
        constant: the channel of its input that is, if any.

    Returns:
        Outputs of the second network and of the first, of the other chunks.
    """
    n = layer.weight[0].numel()
    generator = torch.Generator().manual_seed(0)
    count = sum(map(len, steps.chunks[:fitted]))
    per_image = -(-max(ROWS, ROWS_PER_WEIGHT * n) // count)
    moments = SecondMoments()
    wanted = []
    for i, (x, t) in enumerate(zip(steps.inputs(1, node), steps.outputs(0, node), strict=True)):
        if i < fitted:
            moments.add(*sample_rows(layer, x, t, per_image, generator))
        else:
            wanted.append(t)
    groups = getattr(layer, "groups", 1)
    original = steps.runners[0].fetch_attr(str(node.target))
    weight = original.weight.reshape(groups, len(layer.weight) // groups, n)
    v, b = zero_sum_fit(moments, weight, RIDGE, constant)
    assign_filters(layer, v.reshape(layer.weight.shape), b.flatten())
    return [y for i, y in enumerate(steps.outputs(1, node)) if i >= fitted], wanted


def assign_filters(layer: Aligned, v: Tensor, b: Tensor) -> None:
    """Makes an aligned layer have given filters.

    Args:
        layer: changed in place.
        v: ``(O, ...)`` filters of zero sum. For one that is 0 the weight stays, at g = 0.
        b: ``(O,)``.
    """
    norm = v.flatten(1).norm(dim=1)
    g = norm / math.sqrt(layer.gain)
    shape = (-1, *(1 for _ in v.shape[1:]))
    # The weight has the norm of its aligned form, so that a step of training turns it as far as
    # one at He initialisation.
    unit = torch.where(g.view(shape) > 0, v / g.view(shape), layer.weight.to(v))
    layer.weight.copy_(unit)
    if layer.g is not None:
        layer.g.copy_(g)
    if layer.bias is not None:
        layer.bias.copy_(b)
