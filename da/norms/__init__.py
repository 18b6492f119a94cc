"""Normalisers: one per file, found on disk by short name, and WeightAlign with any of them."""

from __future__ import annotations

from typing import Any

from da.discovery import find_class
from da.errors import unknown
from da.norms.base import (
    ActivationNormaliser,
    Normaliser,
    available_normalisers,
    options_of,
    unknown_option,
)
from da.norms.running_statistics import (
    batch_norms,
    keeping_without_statistics,
    layers_of_batch_statistics,
    reestimated,
)
from da.norms.weight_align.conversion import Conversion, LayerError, convert_pretrained
from da.norms.weight_align.layers import align, fold, naive_align
from da.norms.weight_align.normaliser import WeightAlign, own_options
from da.norms.weight_align.sharing import aligned_once

__all__ = [
    "ActivationNormaliser",
    "Conversion",
    "LayerError",
    "Normaliser",
    "WeightAlign",
    "align",
    "aligned_once",
    "batch_norms",
    "convert_pretrained",
    "fold",
    "keeping_without_statistics",
    "layers_of_batch_statistics",
    "naive_align",
    "normaliser",
    "normaliser_names",
    "options_of",
    "reestimated",
    "short_name",
]


def normaliser_names() -> list[str]:
    """The short names of all normalisers, those composed with WeightAlign included.

    >>> {"bn", "gn", "wa", "wa+bn", "wa+gn"} <= set(normaliser_names())
    True
    """
    kinds = available_normalisers()
    composed = [f"wa+{name}" for name, kind in kinds.items() if kind.composes]
    return sorted([*kinds, *composed])


def normaliser(name: str, **options: Any) -> Normaliser:
    """The normaliser of a short name, or of a class of one's own by its dotted path.

    Args:
        name: one of :func:`normaliser_names`; ``"wa+gn"`` is WeightAlign with group norm. Or
            ``"package.module.Class"``, of a subclass of :class:`Normaliser`.
        options: its own, see the class; those of ``"wa+gn"`` are of both.

    >>> normaliser("wa+gn", groups=16, gain="auto").activation.groups
    16
    """
    if "." in name:
        own = find_class(name, "da.norms", Normaliser, "normaliser")  # type: ignore[type-abstract]
        return _with_options(own, name, options)
    if name not in normaliser_names():
        raise unknown("normaliser", name, normaliser_names())
    kinds = available_normalisers()
    if name in kinds and name != WeightAlign.name:
        return _with_options(kinds[name], name, options)
    _, _, activation = name.partition("+")
    if "activation" in options:
        raise unknown_option(name, "activation", own_options())
    return WeightAlign(activation=activation or None, **options)


def short_name(name: str) -> str:
    """What a normaliser is called in specifications: ``"bn"`` also for the path of its class.

    >>> short_name("wa+bn"), short_name("da.norms.batch_norm.BatchNorm")
    ('wa+bn', 'bn')
    """
    if "." not in name:
        return name
    kind = find_class(name, "da.norms", Normaliser, "normaliser")  # type: ignore[type-abstract]
    on_disk = [short for short, other in available_normalisers().items() if other is kind]
    return on_disk[0] if on_disk else f"{kind.__module__}.{kind.__qualname__}"


def _with_options(kind: type[Normaliser], name: str, options: dict[str, Any]) -> Normaliser:
    for option in options:
        if option not in options_of(kind):
            raise unknown_option(name, option, options_of(kind))
    return kind(**options)
