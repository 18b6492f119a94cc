"""Bottleneck and classifier of a checkpoint that a training starts from, as far as they fit."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from da.errors import UserError
from da.networks.network import Network
from da.networks.weight_files import WeightFile, read_weight_file
from da.norms import normaliser, short_name
from da.norms.weight_align.conversion import PLAIN
from da.ops.files import CHOICE, chosen_file, split_choice

log = logging.getLogger(__name__)

OF_THE_BACKBONE = {"include", "exclude", *PLAIN}
"""Options of normalisers that say which layers of a backbone they are for."""


def start_heads(network: Network, settings: Mapping[str, Any], classes: Sequence[str]) -> None:
    """Gives a network the heads of the file that ``weights`` names; says what is taken of it.

    Args:
        network: changed in place; its backbone has its weights already.
        settings: of the module that holds it.
        classes: of the data, in the order of the labels.
    """
    weights = settings["weights"]
    if chosen_file(weights) is not None:
        log.info(start_heads_from(network, read_weight_file(weights), settings, classes))


def start_heads_from(
    network: Network, file: WeightFile, settings: Mapping[str, Any], classes: Sequence[str]
) -> str:
    """Gives a network the bottleneck and the classifier of a checkpoint, as far as they fit.

    The bottleneck is taken where it has the same shape and the same normaliser; the classifier
    where the features that it reads are taken and its classes are the same, in whatever order.
    A file from elsewhere says of no class what it is called, so that its heads are left alone.

    Args:
        network: changed in place.
        file: a checkpoint, or any other file of weights.
        settings: of the module that holds the network.
        classes: of the data, in the order of the labels.

    Returns:
        One line that says what is taken, what is new, and why.
    """
    parts = {"bottleneck": network.bottleneck, "classifier": network.classifier}
    if isinstance(network.bottleneck, nn.Identity):
        del parts["bottleneck"]
    taken, why = ["backbone"], ""
    prefix = _prefix_of_heads(file)
    if prefix is not None:
        why = _start_bottleneck(network.bottleneck, file, prefix, settings)
        if not why:
            taken += [name for name in parts if name == "bottleneck"]
            why = _start_classifier(network.classifier, file, prefix, classes)
        if not why:
            taken += ["classifier"]
    elif file.settings is not None:
        why = "nothing else of the file is named"
    new = [name for name in parts if name not in taken]
    said = f"weights: of '{file.path}' {_join(taken)} taken"
    if new:
        said += f"; {_join(new)} new"
    return f"{said} ({why})" if why else said


def refuse_unequal_starts(file: WeightFile, settings: Sequence[Mapping[str, Any]]) -> None:
    """Refuses a checkpoint whose heads some normalisers of a comparison take and others don't.

    Args:
        file: what all start from.
        settings: of a module, for each normaliser.

    Raises:
        UserError: names both, and the backbone, from which all start alike.
    """
    prefix = _prefix_of_heads(file)
    if prefix is None or not _behind(file.tensors, f"{prefix}bottleneck."):
        return
    theirs = bottleneck_normaliser(file.settings or {})
    takes: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for one in settings:
        takes[bottleneck_normaliser(one) == theirs][one["norm"]] = None
    if takes[True] and takes[False]:
        alone = f"{split_choice(file.path)[0]}{CHOICE}{file.backbone or 'backbone'}"
        raise UserError(
            f"weights: {', '.join(takes[True])} would start from the bottleneck and the classifier "
            f"in '{file.path}', and {', '.join(takes[False])} can't: the comparison would be of "
            f"unequal starts; name the backbone alone, '{alone}'"
        )


def bottleneck_normaliser(settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The normaliser of a bottleneck and its options, from the settings of a module.

    >>> bottleneck_normaliser({"norm": "wa", "norm_options": {"min_weights": 9}})
    ('wa', {})
    >>> bottleneck_normaliser({"norm": "wa", "norm_options": None, "scope": ["backbone"]})
    ('bn', {})
    """
    if "bottleneck" not in settings.get("scope", ("bottleneck",)):
        return "bn", {}
    options = settings["norm_options"] or {}
    options = {name: x for name, x in options.items() if name not in OF_THE_BACKBONE}
    own = normaliser(settings["norm"], **options)
    chosen = own.for_part("bottleneck")
    if chosen is own:
        return short_name(settings["norm"]), options
    return ("bn" if chosen is None else chosen.name), {}


def _prefix_of_heads(file: WeightFile) -> str | None:
    """What the heads' names are behind; None where the file has none that are known."""
    if file.settings is None:
        return None
    for backbone in (file.backbone or "backbone", "backbone"):
        if any(name.startswith(f"{backbone}.") for name in file.tensors):
            return backbone.removesuffix("backbone")
    return None


def _start_bottleneck(
    bottleneck: nn.Module, file: WeightFile, prefix: str, settings: Mapping[str, Any]
) -> str:
    """Gives a bottleneck its tensors; or the reason why not."""
    tensors = _behind(file.tensors, f"{prefix}bottleneck.")
    theirs, mine = bottleneck_normaliser(file.settings or {}), bottleneck_normaliser(settings)
    if tensors and theirs != mine:
        one, other = (f"'{norm}' {options or ''}".rstrip() for norm, options in (theirs, mine))
        return f"its bottleneck was trained with norm {one}, the model has {other}"
    if not _fit(bottleneck, tensors):
        return "its bottleneck has another shape"
    bottleneck.load_state_dict(tensors)
    return ""


def _start_classifier(
    classifier: nn.Module, file: WeightFile, prefix: str, classes: Sequence[str]
) -> str:
    """Gives a classifier its tensors, in the order of the data's classes; or the reason why not."""
    # An accent may be spelt in two ways, which look alike.
    theirs, mine = ([unicodedata.normalize("NFC", x) for x in y] for y in (file.classes, classes))
    if sorted(theirs) != sorted(mine):
        return "its classes are others"
    tensors = _behind(file.tensors, f"{prefix}classifier.")
    if not _fit(classifier, tensors):
        return "its classifier has another shape"
    order = [theirs.index(name) for name in mine]
    if theirs != mine and not isinstance(classifier, nn.Linear):  # whose rows are classes
        return "its classes are in another order"
    if theirs != mine:
        tensors = {name: tensor[order] for name, tensor in tensors.items()}
    classifier.load_state_dict(tensors)
    return ""


def _behind(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _fit(module: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    return own == {name: tensor.shape for name, tensor in tensors.items()}


def _join(parts: Sequence[str]) -> str:
    """Names in words, with their verb."""
    if len(parts) == 1:
        return f"the {parts[0]} is"
    return f"{', '.join(parts[:-1])} and {parts[-1]} are"
