"""A trained network under the names of torchvision or timm, so that their users load its weights.

There every batch norm is in its place. Of a network that was trained with batch norm they are its
own. Where WeightAlign, a conversion or a folded batch norm left a plain layer with a bias, or a
scale and a shift, those go into the scale and shift of a batch norm whose statistics do nothing: a
network that was trained with WA loads into torchvision's ``resnet50`` and computes the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from da.errors import UserError
from da.exports.plain_network import fold_all_batch_norms
from da.networks.backbones.base import find_backbone_family, without_weights
from da.networks.network import Network
from da.norms.flow import Flow
from da.norms.frozen_batch_norm import FrozenBatchNorm
from da.norms.joined_layers import split_joined_layers
from da.norms.surgery import BATCH_NORMS, Affine, scalable_layers, sole_feeders
from da.ops.seeding import seeded

OTHERWISE = "export it as onnx or torch-export, which hold any network"


class LibraryNetwork(NamedTuple):
    """How a user of the library builds a network, and its tensors.

    Attributes:
        library: ``torchvision``, ``timm``, or ``da`` for this project.
        model: its name there.
        head: what its classifier is called there.
        layers: of the head, in order: ``[in, out]`` of a linear layer, or ``"relu"``.
        state: tensors by their names there.
    """

    library: str
    model: str
    head: str
    layers: Sequence[Any]
    state: Mapping[str, Tensor]

    def facts(self) -> dict[str, Any]:
        """What a file says, for :func:`build_library_network`."""
        return {
            name: list(value) if name == "layers" else value
            for name, value in self._asdict().items()
            if name != "state"
        }


def library_network(network: Network, backbone: str) -> LibraryNetwork:
    """A network's tensors under the names of its library.

    Args:
        network: of :func:`da.exports.plain_network.plain_network`; its heads are changed.
        backbone: the name of its backbone.

    Raises:
        UserError: where a layer has no place in the library's network, such as a group norm where
            that has a batch norm.
    """
    family = find_backbone_family(backbone)
    with without_weights(), seeded("library"):
        ours, native = family(backbone), family.build_library_model(backbone)
    if not ours.head:
        raise UserError(f"{family.library} names no classifier of {backbone}; {OTHERWISE}")
    tensors = {**dict(native.named_parameters()), **dict(native.named_buffers())}
    state = {name: tensors[name] for name in native.state_dict() if name in tensors}
    # Layers that timm joins are taken apart, whose parts have the very tensors of the whole.
    _fill(split_joined_layers(native).eval(), network.backbone, backbone)
    layers, head = _head_of(network, backbone)
    prefix = "" if family.library != "da" else "backbone."
    state = {f"{prefix}{name}": tensor.detach().contiguous() for name, tensor in state.items()}
    state |= {f"{ours.head}.{name}": value.contiguous() for name, value in head.items()}
    model = backbone.removeprefix(family.prefix)
    return LibraryNetwork(family.library, model, ours.head, layers, state)


def build_library_network(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The network of a file, in evaluation mode; images ``(B, 3, H, W)`` to logits ``(B, K)``.

    Args:
        facts: see :meth:`LibraryNetwork.facts`.
        state: the tensors.

    Raises:
        UserError: where it can't be built, or the tensors don't fit.
    """
    try:
        prefix = "timm/" if facts["library"] == "timm" else ""
        family = find_backbone_family(f"{prefix}{facts['model']}")
        layers = [nn.ReLU() if s == "relu" else nn.Linear(*s) for s in facts["layers"]]
        head = nn.Sequential(*layers) if len(layers) > 1 else layers[0]
        with without_weights(), seeded("library"):
            model = family.build_library_model(f"{prefix}{facts['model']}")
        if facts["library"] == "da":
            model = nn.Sequential(OrderedDict({"backbone": model, facts["head"]: head}))
        else:
            model.set_submodule(facts["head"], head)
        model.load_state_dict(dict(state), strict=True)
    except UserError:
        raise
    except Exception as error:  # whatever the library says of a state that is not its network's
        reason = " ".join(str(error).split())
        raise UserError(
            f"the tensors do not fit {facts.get('library')}'s {facts.get('model')}: {reason}"
        ) from error
    return model.eval()


@torch.no_grad()
def _fill(native: nn.Module, trained: nn.Module, name: str) -> None:
    """Gives a library's network what a trained one computes, layer by layer.

    Args:
        native: changed in place; its joined layers are taken apart.
        trained: of the same structure but for its normalisers.
        name: of the network, for errors.
    """
    theirs = dict(trained.named_modules())
    norms = [m for m in native.modules() if type(m) in BATCH_NORMS]
    biases: dict[nn.Module, Tensor] = {}
    for path, layer in native.named_modules():
        own, other = _own_tensors(layer), theirs.get(path)
        if not own:
            continue
        if layer in norms:
            _fill_norm(layer, other, path, name)
            continue
        given = {} if other is None else _own_tensors(other)
        if "bias" not in own and "bias" in given:
            biases[layer] = given.pop("bias")
        if {k: v.shape for k, v in given.items()} != {k: v.shape for k, v in own.items()}:
            raise _no_place(path, other, name)
        for key, tensor in own.items():
            tensor.copy_(given[key])
    if not biases:
        return
    fed = sole_feeders(Flow.of(native), norms, scalable_layers(native))
    for layer, bias in biases.items():
        norm: Any = fed.get(layer)
        if norm is None:
            path = next(path for path, other in native.named_modules() if other is layer)
            raise _no_place(path, theirs[path], name)
        norm.bias.add_(bias * norm.weight)


def _own_tensors(layer: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module itself, without those of modules in it."""
    own = {**layer._parameters, **layer._buffers}
    return {name: value for name, value in own.items() if value is not None}


def _fill_norm(norm: Any, other: nn.Module | None, path: str, name: str) -> None:
    """Gives a batch norm the function of what stands in its place."""
    if other is not None and type(other) in {*BATCH_NORMS, FrozenBatchNorm}:
        if other.state_dict().keys() != norm.state_dict().keys():
            raise _no_place(path, other, name)
        norm.load_state_dict(other.state_dict())
        return
    # The very class: subclasses of it have a scale and a shift, and normalise.
    affine = other if type(other) is Affine else None
    if not (affine or isinstance(other, nn.Identity)) or not norm.affine:
        raise _no_place(path, other, name)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.copy_(affine.weight) if affine else norm.weight.fill_(1)
    norm.bias.copy_(affine.bias) if affine else norm.bias.zero_()


def _no_place(path: str, layer: nn.Module | None, name: str) -> UserError:
    parts = layer if isinstance(layer, nn.Sequential) else [] if layer is None else [layer]
    kind = ", ".join(type(part).__name__ for part in parts) or "nothing"
    return UserError(
        f"'{path}' of this network ({kind}) has no place in {name} as its library has it; "
        f"{OTHERWISE}"
    )


def _head_of(network: Network, name: str) -> tuple[list[Any], dict[str, Tensor]]:
    """The layers between the backbone and the logits, and their tensors by name."""
    heads = Network(nn.Identity(), network.bottleneck, network.classifier)
    fold_all_batch_norms(heads)
    parts = [*_in_turn(heads.bottleneck), *_in_turn(heads.classifier)]
    parts = [part for part in parts if not isinstance(part, (nn.Identity, nn.Dropout))]
    if len(parts) == 2 and all(isinstance(part, nn.Linear) for part in parts):
        parts = [_product(*parts)]
    layers: list[Any] = []
    state: dict[str, Tensor] = {}
    for i, part in enumerate(parts):
        if type(part) is nn.Linear:
            layers.append([part.in_features, part.out_features])
            key = f"{i}." if len(parts) > 1 else ""
            state[f"{key}weight"] = part.weight.detach()
            state[f"{key}bias"] = _bias_of(part).detach()
        elif type(part) is nn.ReLU:
            layers.append("relu")
        else:
            raise _no_place("the head", part, name)
    return layers, state


def _in_turn(part: nn.Module) -> list[nn.Module]:
    """The layers of a part that are called one after the other."""
    if isinstance(part, nn.Sequential):
        return [layer for inner in part for layer in _in_turn(inner)]
    return [part]


def _product(first: Any, second: Any) -> nn.Linear:
    """The one linear layer that two in turn are."""
    one = nn.Linear(first.in_features, second.out_features)
    one.weight = nn.Parameter(second.weight @ first.weight)
    one.bias = nn.Parameter(second.weight @ _bias_of(first) + _bias_of(second))
    return one


def _bias_of(layer: nn.Linear) -> Tensor:
    """The bias of a linear layer, ``(O,)``; zero where it has none, as before a normaliser."""
    bias: Tensor | None = layer.bias
    return layer.weight.new_zeros(layer.out_features) if bias is None else bias
