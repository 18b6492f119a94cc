"""Networks that were trained elsewhere: which tensor of a file is what, by names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from da.errors import UserError
from da.networks.weight_files import count_prefixes
from da.ops.files import CHOICE, split_choice

#: What a batch norm keeps beside its parameters; other normalisers have none of it.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

Layers = Mapping[str, Mapping[str, Tensor]]
"""Tensors by the name of their layer, then by their own: ``{"fc": {"weight": …}}``."""


class MappedNetwork(NamedTuple):
    """A file's tensors under the names of :class:`da.methods.base.Method`.

    Attributes:
        state: ``backbone.…``, ``bottleneck.…`` and ``classifier.…``.
        width: of the bottleneck; None where the file has none.
        classes: how many.
        said: one line of what was taken for what.
    """

    state: dict[str, Tensor]
    width: int | None
    classes: int
    said: str


def map_network(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    features: int,
    network: str,
    file: str,
) -> MappedNetwork:
    """Finds backbone, bottleneck and classifier in a file.

    The backbone is where its names are, behind whatever prefix. What is left must be a linear
    classifier, alone or after a bottleneck of a linear layer, a normaliser and a ReLU. The
    bottleneck here has no bias, which the batch norm after it cancels: a file's bias b goes into
    the running mean, BN(Wx + b; m) = BN(Wx; m − b), exact in evaluation. A classifier without a
    bias gets one of zeros. A classifier within the backbone that another one outside of it makes
    idle (TLLib's ResNets keep ImageNet's) is left out.

    Args:
        tensors: of the file, by name.
        own: the backbone's tensors as it is built here, with batch norm and without a classifier.
        features: that the backbone gives.
        network: its name, for messages.
        file: its name, for messages.

    Raises:
        UserError: in one line, for what is missing, of another shape, left over or ambiguous.
    """
    prefix, names = _find_backbone(tensors, own, network, file)
    state = {f"backbone.{name}": tensors[there] for name, there in names.items()}
    heads = {k: v for k, v in tensors.items() if k not in set(names.values())}
    layers = _group_by_layer(heads)
    idle = _idle_classifiers(layers, features, prefix)
    norm, linear, classifier = _find_heads(
        {k: v for k, v in layers.items() if k not in idle}, features, network, file
    )
    weight = layers[classifier]["weight"]
    state["classifier.weight"] = weight
    state["classifier.bias"] = layers[classifier].get("bias", torch.zeros(len(weight)))
    taken = [f"backbone {network} from {_describe_prefix(prefix)}"]
    width = None
    if linear is not None and norm is not None:
        state |= _map_bottleneck(layers[linear], layers[norm], linear, file)
        width = len(layers[linear]["weight"])
        folded = " (its bias in the running mean)" if "bias" in layers[linear] else ""
        # Activations hold no tensors.
        taken.append(
            f"bottleneck of {width} from '{linear}'{folded} and '{norm}', a ReLU after it assumed"
        )
    taken.append(f"classifier of {len(weight)} classes from '{classifier}'")
    if idle:
        taken.append(f"left out: {', '.join(sorted(idle))}")
    return MappedNetwork(state, width, len(weight), f"{file}: {', '.join(taken)}")


def _find_backbone(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], network: str, file: str
) -> tuple[str, dict[str, str]]:
    """The prefix of the backbone in a file, and the backbone's names with those in the file."""
    shared = len(common_prefix(own))
    short = {name[shared:]: name for name in own}
    needed = {k: own[name] for k, name in short.items() if not k.endswith(STATISTICS)}
    counts = count_prefixes(tensors, needed)
    named = [p for p in counts if counts[p] == len(needed)]
    matching = [p for p in named if all(tensors[p + k].shape == v.shape for k, v in needed.items())]
    advice = "name the network that it was trained with, --model.backbone NAME"
    if len(matching) > 1:
        raise UserError(
            f"checkpoint: '{file}' holds {network} {len(matching)} times "
            f"({', '.join(_describe_prefix(p) for p in sorted(matching))}); name one of them: "
            f"{split_choice(file)[0]}{CHOICE}{max(matching).removesuffix('.')}"
        )
    if not matching and named:
        wrong = [k for k, v in needed.items() if tensors[named[0] + k].shape != v.shape]
        first = named[0] + wrong[0]
        raise UserError(
            f"checkpoint: '{file}' does not fit {network}: {len(wrong)} tensors are of another "
            f"shape (first: {first}, {_describe_shape(tensors[first])} and not "
            f"{_describe_shape(needed[wrong[0]])}); {advice}"
        )
    if not matching:
        best = counts.most_common(1)[0][0] if counts else ""
        missing = [k for k in needed if best + k not in tensors]
        raise UserError(
            f"checkpoint: '{file}' does not fit {network}: {len(missing)} of its {len(needed)} "
            f"tensors are missing (first: {best + missing[0]}); {advice}"
        )
    prefix = matching[0]
    names = {name: prefix + k for k, name in short.items() if prefix + k in tensors}
    return prefix, names


def common_prefix(names: Iterable[str]) -> str:
    """The dotted prefix that all names share.

    >>> common_prefix(["network.conv1.weight", "network.bn1.weight"])
    'network.'
    """
    split = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(f"{parts[0]}.")
    return "".join(shared)


def _group_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        layers.setdefault(layer, {})[kind] = value
    return layers


def _is_linear(layer: Mapping[str, Tensor]) -> bool:
    return {"weight"} <= layer.keys() <= {"weight", "bias"} and layer["weight"].dim() == 2


def _is_norm(layer: Mapping[str, Tensor]) -> bool:
    kinds = {"weight", "bias"}
    return kinds <= layer.keys() <= {*kinds, *STATISTICS} and layer["weight"].dim() == 1


def _idle_classifiers(layers: Layers, features: int, prefix: str) -> set[str]:
    """The backbone's own classifiers, where there is another linear layer outside of it."""
    linear = [name for name, layer in layers.items() if _is_linear(layer)]
    if not prefix or all(name.startswith(prefix) for name in linear):
        return set()
    return {n for n in linear if n.startswith(prefix) and layers[n]["weight"].shape[1] == features}


def _find_heads(
    layers: Layers, features: int, network: str, file: str
) -> tuple[str | None, str | None, str]:
    """The layers of the bottleneck (normaliser, linear; None for none) and of the classifier."""
    linear = {n: layer["weight"].shape for n, layer in layers.items() if _is_linear(layer)}
    norms = [name for name, layer in layers.items() if _is_norm(layer)]
    unexpected = [name for name in layers if name not in {*linear, *norms}]
    reads = [name for name, shape in linear.items() if shape[1] == features]
    if unexpected or len(norms) > 1:
        first = (unexpected or norms)[0]
        raise UserError(
            f"checkpoint: '{file}' holds {len(unexpected or norms)} layers beyond {network}, a "
            f"bottleneck and a classifier (first: {first}); save the network without them, or name "
            "the one that it was trained with, --model.backbone NAME"
        )
    if not reads:
        raise UserError(
            f"checkpoint: '{file}' holds {network} without a classifier: no linear layer takes its "
            f"{features} features; train one from it: fit --model.weights FILE"
        )
    choices: list[tuple[str | None, str | None, str]]
    if norms:
        width = len(layers[norms[0]]["weight"])
        pairs = [
            (norms[0], a, b)
            for a in reads
            for b in linear
            if a != b and linear[a][0] == width == linear[b][1]
        ]
        near = [x for x in pairs if _parent_name(x[1]) == _parent_name(x[0]) != _parent_name(x[2])]
        choices = [*(near if len(near) == 1 else pairs)]
    else:
        choices = [(None, None, name) for name in reads]
    if len(choices) == 1 and len(linear) == len({*choices[0]} - {None, *norms}):
        return choices[0]
    if len(choices) > 1:
        either = " or ".join(f"'{name}'" for name in sorted({c[2] for c in choices}))
        raise UserError(
            f"checkpoint: '{file}' is ambiguous: {either} could be the classifier; save the "
            "network with one"
        )
    shapes = ", ".join(f"{name} {s[1]} to {s[0]}" for name, s in linear.items())
    raise UserError(
        f"checkpoint: '{file}' has linear layers that are no classifier and no bottleneck of a "
        f"linear layer, a normaliser and a ReLU ({shapes}); save the network without them"
    )


def _map_bottleneck(
    linear: Mapping[str, Tensor], norm: Mapping[str, Tensor], name: str, file: str
) -> dict[str, Tensor]:
    """The bottleneck under its names here, the linear layer's bias in the running mean."""
    state = {"bottleneck.0.weight": linear["weight"]}
    state |= {f"bottleneck.1.{kind}": value for kind, value in norm.items()}
    if "bias" in linear:
        if "running_mean" not in norm:
            raise UserError(
                f"checkpoint: '{file}' has a bias in '{name}', and no batch norm after it that "
                "would take it; a bottleneck here has none"
            )
        mean = norm["running_mean"].float() - linear["bias"].float()
        state["bottleneck.1.running_mean"] = mean
    return state


def _parent_name(name: str | None) -> str:
    return (name or "").rpartition(".")[0]


def _describe_prefix(prefix: str) -> str:
    return f"'{prefix}…'" if prefix else "the file's own names"


def _describe_shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def order_of_numbers(classes: Sequence[str]) -> str:
    """A word where classes are numbers that another program would have in another order.

    >>> order_of_numbers(["0", "1", "2"])
    ''
    >>> print(order_of_numbers([str(i) for i in range(11)]))
    classes are taken in the order of their numbers: 0, 1, 2, …; torchvision's ImageFolder sorts \
them as text: 0, 1, 10, …; for a network that was trained so, put a letter before the folders' \
names: c0, c1, …
    """
    numbers = all(name.isdecimal() for name in classes)
    if not numbers or sorted(classes) == list(classes):
        return ""
    ours, theirs = (", ".join(list(names)[:3]) for names in (classes, sorted(classes)))
    return (
        f"classes are taken in the order of their numbers: {ours}, …; torchvision's ImageFolder "
        f"sorts them as text: {theirs}, …; for a network that was trained so, put a letter before "
        "the folders' names: c0, c1, …"
    )
