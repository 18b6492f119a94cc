"""WeightAlign: layers normalised by their weights, with no statistics of activations."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from da.errors import UserError, unknown
from da.norms.base import (
    ActivationNormaliser,
    Normaliser,
    available_normalisers,
    checked_example,
    options_of,
    unknown_option,
)
from da.norms.flow import Flow, normalises_outputs
from da.norms.joined_layers import on_split_layers
from da.norms.layer_patterns import match_patterns, patterns_of
from da.norms.surgery import (
    affine_parameters,
    copy_parameter,
    fold_affine,
    refuse_other_normalisers,
    refuse_tied_weights,
    removable_batch_norms,
    replace_modules,
    replacements_of_removed,
    scalable_layers,
    sole_feeders,
    title_of_model,
)
from da.norms.tracing import CONVOLUTIONS, NORMS
from da.norms.weight_align import standardised
from da.norms.weight_align.layers import ALIGNED, Aligned, rebuild_layer

Gain = Literal["he", "variance-preserving", "auto", "balanced"]
Residual = Literal["one", "depth", "zero"]

# E[x²] = ½ after a ReLU (He et al. 2015); a zero-mean filter carries the variance alone, which is
# ½ (1 − 1/π) (Brock et al. 2021, section 4.1).
HE = 2.0
VARIANCE_PRESERVING = 2.0 / (1.0 - 1.0 / math.pi)

# Residual blocks beyond which the paper's choice lets activations or gradients drift apart from one
# end of a network to the other: by 9 in a ResNet-18 (8 blocks), by 180 in a ResNet-50 (16).
DEEP = 8

_FUNCTIONAL = {"batch_norm", "group_norm", "layer_norm", "instance_norm"}


class WeightAlign(Normaliser):
    """Aligns the layers of a network and removes its batch norms (Shi et al. 2020, 2010.07160).

    Statistics: in training and in evaluation alike, those of the weights; no image and no domain
    enters, but for those of the normaliser of activations where there is one (``wa+bn``).

    Aligned are all convolutions but the gates of squeeze-and-excitation, and the linear layers
    whose output a batch norm takes. Scale and shift of that batch norm become g and b of the layer
    that feeds it; where no single layer does (DenseNet, pre-activation), they stay as a
    per-channel affine. Other layers start at g = 1 with the bias they have, or 0. A batch norm
    shared by several layers leaves each its own g and b. timm's convolutions with scaled weight
    standardisation are aligned without a change to what they compute.

    A convolution that is the classifier (SqueezeNet) is not told from others: exclude it by name.

    The defaults are the paper's up to 8 residual blocks, and ``gain="balanced",
    residual="depth"`` in deeper networks. Between the ends of the stages, at initialisation and on
    noise images at 64 × 64, the deviation of activations and the norm of gradients then differ by
    a factor of at most 3.4 in ResNet-50 and -101, 11 in ResNet-18, 7.2 in VGG-16, 11.5 in
    MobileNetV3 and 15 in DenseNet-121 (tests/norms/test_initial_scale.py); with the paper's choice
    in the deeper ones by up to 180, 73,000 and 20. Of the rates 0.001, 0.003, 0.01 and 0.03, a
    ResNet-50 on digits at 32 × 32 learns best at 0.03, and with the paper's choice at 0.001 alone.

    Args:
        activation: a normaliser of activations that stays (``"bn"``) or takes batch norm's place
            (``"gn"``, ``"in"``, ``"ln"``, any in this folder). The layers it follows have neither
            g nor b, as its own affine serves. Under batch and instance norm, WA is then centring
            of each filter.
        gain: the factor of the variance. None: the paper's, ``"he"``, in a network of up to 8
            residual blocks (ResNet-18), and ``"balanced"`` in a deeper one, where the scale of the
            paper's drifts apart. ``"he"``: 2; ``"variance-preserving"``:
            2 / (1 − 1/π), exact for zero-mean filters after a ReLU; ``"auto"``: 1 / E[φ(z)²] of
            the activation that feeds the layer (2 for ReLU), 1 after an image or a linear layer;
            ``"balanced"``: 1 / √(Var[φ(z)] · E[φ′(z)²]) of that activation (2.42 for ReLU). The
            squared scale is multiplied by gain · Var[φ] on the way forward and the squared gradient
            by gain · E[φ′²] on the way back; no gain keeps both, and this one parts what remains.
        residual: by what g of the last layer of each residual branch is multiplied at the start:
            1 (``"one"``), 1/√(number of blocks) (``"depth"``), or 0 (``"zero"``). None: the
            paper's, ``"one"``, up to 8 blocks, and ``"depth"`` in a deeper network. Blocks that end
            in a standardised layer don't count and stay as they are. Only where no activation
            normaliser follows.
        min_channels: convolutions whose filters see fewer input channels than this stay plain:
            with 2 the depthwise ones, with 4 also those of images. The batch norm that such a
            layer feeds is folded into it: its scale goes into the weight, its shift is the bias. By
            default none, as published: from scratch nothing else was shown to be better on the
            target (``configs/ablations/depthwise.yaml``); conversion leaves some plain.
        min_weights: of the others, those whose filters have fewer weights than this stay plain,
            too: the smallest first, of equal ones the last, as long as 3 of 5 convolutions are
            aligned.
        exclude: names or glob patterns of layers, normalisers, or blocks of them that stay as
            they are. The batch norm after an excluded layer still goes, folded as well, unless it
            is excluded too.
        include: names or glob patterns of layers that are aligned beside the default ones, such
            as the classifier. ``exclude`` wins.
        example: an input of the model, for networks that can't be traced.
        options: those of the activation normaliser.
    """

    name: ClassVar[str] = "wa"
    eps: ClassVar[float | None] = None  # of the variance of a filter, where a subclass has its own

    def __init__(
        self,
        *,
        activation: str | None = None,
        gain: Gain | None = None,
        residual: Residual | None = None,
        min_channels: int = 1,
        min_weights: int = 1,
        exclude: str | Sequence[str] = (),
        include: str | Sequence[str] = (),
        example: Tensor | None = None,
        **options: Any,
    ):
        for kind, value, allowed in (("gain", gain, Gain), ("residual", residual, Residual)):
            if value is not None and value not in get_args(allowed):
                raise unknown(kind, value, get_args(allowed))
        if activation is not None and residual not in (None, "one"):
            raise UserError(
                f"residual={residual!r} sets g, and under activation={activation!r} layers have"
                " none; use residual='one', or no activation normaliser"
            )
        for kind, least in (("min_channels", min_channels), ("min_weights", min_weights)):
            if isinstance(least, bool) or not isinstance(least, int) or least < 1:
                raise UserError(f"{kind}: expected a whole number from 1, got {least!r}")
        self.min_channels, self.min_weights = min_channels, min_weights
        self.activation = _activation_normaliser(activation, options)
        self.single_image = self.activation is not None and self.activation.single_image
        self.mixes_domains = self.activation is not None and self.activation.mixes_domains
        self.gain, self.residual, self.example = gain, residual, checked_example(example)
        self.exclude = patterns_of(exclude, "exclude")
        self.include = patterns_of(include, "include")

    @on_split_layers
    def apply(self, model: nn.Module) -> nn.Module:
        """See :meth:`Normaliser.apply`."""
        excluded = match_patterns(model, self.exclude, "exclude")
        included = match_patterns(model, self.include, "include", layers_only=True)
        refuse_other_normalisers(model, self.name, excluded)
        norms = removable_batch_norms(model, excluded)
        flow = Flow.of(model, self.example)
        hidden = sorted({node.name for node in flow.nodes} & _FUNCTIONAL)
        if hidden:
            raise UserError(
                f"{title_of_model(model)} calls {hidden[0]} as a function, which '{self.name}'"
                " can't remove; build the network with torch.nn's batch norms, or use 'bn' to"
                " leave it as it is"
            )
        layers = self._default_layers(flow, model, norms) | included
        layers -= excluded
        if not layers and not norms:
            raise UserError(
                f"{title_of_model(model)} has no convolution and no batch norm left for"
                f" '{self.name}' to align; name layers under include, or fewer under exclude"
            )
        for name, module in model.named_modules():
            if module in layers:
                _refuse_unalignable(module, name)
                if flow.is_read(module):
                    raise UserError(
                        f"{title_of_model(model)} uses the weight of '{name}' without calling it,"
                        f" where 'wa' does not act; leave it out with exclude='{name}'"
                    )
        fed: dict[nn.Module, nn.Module] = {}
        inserted: dict[nn.Module, nn.Module] = {}
        if self.activation is None:
            fed = sole_feeders(flow, norms, layers | scalable_layers(model))
            swaps = replacements_of_removed(norms, set(fed.values()))
        else:
            swaps = self.activation.replacements(norms)
            inserted = self.activation.insertions(model, flow, excluded)
            if not norms and not inserted:
                raise UserError(
                    f"{title_of_model(model)} has no batch norm that '{self.activation.name}'"
                    " could take the place of; use 'wa' alone, or insert: true to have one after"
                    " each conv"
                )
        folded = set(fed) - layers
        refuse_tied_weights(model, folded, "folding a batch norm changes")
        staying = excluded if self.activation is None else excluded | set(norms)
        ends: set[nn.Module] = {m for m in staying if isinstance(m, NORMS)}
        aligned = self._aligned(flow, layers, fed, ends, set(inserted))
        for layer in folded:
            fold_affine(layer, *affine_parameters(fed[layer]))
        return replace_modules(replace_modules(model, swaps | inserted), aligned)

    def _default_layers(
        self, flow: Flow, model: nn.Module, norms: Collection[nn.Module]
    ) -> set[nn.Module]:
        """All convolutions but gates and those of few inputs, and the linear layers whose output
        a batch norm takes."""
        linear_layers = {
            node.inputs[0].module
            for norm in norms
            for node in flow.calls.get(norm, [])
            if node.inputs
            and isinstance(node.inputs[0].module, nn.Linear)
            and normalises_outputs(norm, node.inputs[0].module)
        }
        gates = flow.gates()
        convolutions = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
        wide = [
            m
            for m in convolutions
            if m not in gates and m.in_channels // m.groups >= self.min_channels
        ]
        most_plain = len(convolutions) * 2 // 5
        narrow = _smallest_filters(
            wide, self.min_weights, most_plain - len(convolutions) + len(wide)
        )
        return (set(wide) - narrow) | {m for m in linear_layers if m is not None}

    def _aligned(
        self,
        flow: Flow,
        layers: Collection[nn.Module],
        fed: dict[nn.Module, nn.Module],
        ends: set[nn.Module],
        before_inserted: set[nn.Module],
    ) -> dict[nn.Module, nn.Module]:
        """Each layer's aligned counterpart.

        Args:
            layers: to be aligned.
            fed: layer to the batch norm whose scale and shift it takes.
            ends: the normalisers of activations that remain.
            before_inserted: the layers that get one.
        """
        scaled = flow.leads_to(ends) | before_inserted
        shifted = flow.leads_to(ends, sums=True) | before_inserted
        blocks = flow.residual_ends(layers)
        # Standardised ones compute what they did, whatever the options.
        blocks = [layer for layer in blocks if not standardised.is_standardised(layer)]
        deep = len(blocks) > DEEP and self.activation is None
        gain = self.gain or ("balanced" if deep else "he")
        residual = self.residual or ("depth" if deep else "one")
        depth = 1 / math.sqrt(max(len(blocks), 1))
        factor = {"one": 1.0, "depth": depth, "zero": 0.0}[residual]
        aligned: dict[nn.Module, nn.Module] = {}
        for layer in layers:
            new = _align_layer(
                layer, self.gain_of(gain, flow, layer), layer not in scaled, self.eps
            )
            if layer in fed:
                g, b = affine_parameters(fed[layer])
                new.g, new.bias = copy_parameter(g, new.weight), copy_parameter(b, new.weight)
            elif layer in shifted:
                new.bias = None
            if layer in blocks and new.g is not None:
                with torch.no_grad():
                    new.g.mul_(factor)
            aligned[layer] = standardised.wrap_in_padding(layer, new)
        return aligned

    def gain_of(self, gain: Gain, flow: Flow, layer: nn.Module) -> float:
        """The factor of the variance of one layer."""
        if gain in ("auto", "balanced"):
            moments = flow.moments(layer)
            if gain == "auto":
                return 1.0 / moments.second
            return 1.0 / math.sqrt(moments.variance * moments.slope)
        return HE if gain == "he" else VARIANCE_PRESERVING


def _align_layer(layer: nn.Module, gain: float, scale: bool, eps: float | None) -> Aligned:
    """The aligned layer with the weight and bias of a plain one, at g = 1; a standardised one keeps
    its own scale.

    Args:
        layer: the plain one.
        gain: the factor of the variance.
        scale: whether there is a g.
        eps: added to the variance of a filter; None for WeightAlign's own.
    """
    if standardised.is_standardised(layer):
        return standardised.align_standardised(layer, gain, scale)
    settings: dict[str, Any] = {"gain": gain, "scale": scale}
    if eps is not None:
        settings["eps"] = eps * layer.get_parameter("weight")[0].numel() / gain
    new = rebuild_layer(layer, ALIGNED[type(layer)], bias=True, **settings)
    assert isinstance(new, Aligned)  # for the type checker
    weight = layer.get_parameter("weight")
    new.weight = weight
    new.bias = layer.bias
    if new.bias is None:
        new.bias = nn.Parameter(weight.new_zeros(len(weight)), weight.requires_grad)
    if scale:
        new.g = nn.Parameter(weight.new_ones(len(weight)), weight.requires_grad)
    return new


def _smallest_filters(layers: list[Any], min_weights: int, most: int) -> set[nn.Module]:
    """The layers of fewer weights per filter, at most so many: the smallest, then the last."""
    sizes = [(layer.weight[0].numel(), -i, layer) for i, layer in enumerate(layers)]
    narrow = sorted((one for one in sizes if one[0] < min_weights), key=lambda one: one[:2])
    return {layer for _, _, layer in narrow[: max(most, 0)]}


def _refuse_unalignable(layer: nn.Module, name: str) -> None:
    """Refuses a layer that has no aligned counterpart."""
    kind = type(layer).__name__
    if isinstance(layer, Aligned):
        raise UserError(f"'{name}' is aligned already; apply 'wa' once, to the plain network")
    if type(layer) not in ALIGNED and not standardised.is_standardised(layer):
        raise UserError(
            f"'{name}' is a {kind}, and 'wa' aligns torch.nn's own Conv1d, Conv2d, Conv3d and"
            f" Linear; leave it out with exclude='{name}'"
        )
    if "weight" not in layer._parameters:
        raise UserError(
            f"the weight of '{name}' ({kind}) is computed from other parameters; remove that"
            f" reparametrisation first, or leave it out with exclude='{name}'"
        )
    if layer.get_parameter("weight")[0].numel() == 1:
        raise UserError(
            f"'{name}' ({kind}) has filters of a single weight, which aligned would be 0;"
            f" leave it out with exclude='{name}'"
        )


def own_options() -> list[str]:
    """The options of ``wa`` and its like, whose activation normaliser is in their names."""
    return [option for option in options_of(WeightAlign) if option != "activation"]


def _activation_normaliser(
    name: str | None, options: dict[str, Any]
) -> ActivationNormaliser | None:
    """The activation normaliser of a name with its options; None without one."""
    kinds = {
        n: k
        for n, k in available_normalisers().items()
        if issubclass(k, ActivationNormaliser) and k.composes
    }
    if name is not None and name not in kinds:
        raise unknown("activation normaliser", name, kinds)
    theirs = options_of(kinds[name]) if name is not None else []
    for option in options:
        if option not in theirs:
            label = "wa" if name is None else f"wa+{name}"
            raise unknown_option(label, option, [*own_options(), *theirs])
    return None if name is None else kinds[name](**options)
