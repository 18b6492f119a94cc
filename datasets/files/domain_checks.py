"""What two domains must be to be trained on together; what isn't is refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from da.errors import UserError, unknown
from da.types import Role

if TYPE_CHECKING:
    from ..base import DomainData

ROLES: tuple[Role, ...] = ("source", "target")


def check_options(data: DomainData) -> None:
    """Refuses options that mean nothing, before anything is loaded."""
    allowed = {*data.domains, *(data.development or ())}
    for domain in (*data.sources, data.target):
        if domain not in allowed:
            raise unknown("domain", domain, allowed)
    if data.target in data.sources and not data.allow_same:
        both = "source and target are both" if len(data.sources) == 1 else "the target is a source,"
        raise UserError(
            f"{both} '{data.target}': choose two domains, or set allow_same to measure a domain "
            "against itself"
        )
    if len(set(data.sources)) < len(data.sources):
        raise UserError(f"source is '{data.source}': name each domain once")
    sizes = {"batch_size": data.batch_size, "eval_batch_size": data.eval_batch_size}
    for name, count in sizes.items():
        _refuse_less(name, count, 1)
    _refuse_less("num_workers", data.num_workers, 0)
    if data.steps_per_epoch not in ("source", "target", "longest"):
        if not isinstance(data.steps_per_epoch, int):
            raise UserError(
                f"steps_per_epoch is '{data.steps_per_epoch}': give a number of steps, or one "
                "of: source, target, longest"
            )
        _refuse_less("steps_per_epoch", data.steps_per_epoch, 1)


def check_classes(data: DomainData) -> None:
    """Refuses a source and a target of different classes."""
    source, target = (data.set_of(role, "train").classes for role in ROLES)
    if source != target:
        raise UserError(
            f"{name_differences(data.source, source, data.target, target)}; rename or remove them "
            "so that both agree"
        )


def check_sizes(data: DomainData) -> None:
    """Refuses domains that are too small to be trained on."""
    for role in ROLES:
        images = data.set_of(role, "train")
        if len(images) < data.batch_size:
            raise UserError(
                f"{role} '{data.domain_of(role)}' has {len(images)} training images, fewer than "
                f"one batch of {data.batch_size}: set batch_size to {max(len(images), 1)} or less, "
                "or choose a larger domain"
            )
    source = data.set_of("source", "train")
    counts = np.bincount(source.labels, minlength=len(source.classes))
    if data.balanced and not counts.all():
        missing = [source.classes[k] for k in np.flatnonzero(counts == 0)]
        raise UserError(
            f"source '{data.source}' has no training images of {', '.join(missing)}: it can't "
            "be drawn by class; leave out balanced"
        )


def _refuse_less(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name} is {value}: it must be at least {least}")


def name_differences(a: str, of_a: Sequence[str], b: str, of_b: Sequence[str]) -> str:
    """Says which classes only one of two domains has."""
    only_a, only_b = (
        ", ".join(name for name in names if name not in others) or "none"
        for names, others in ((of_a, of_b), (of_b, of_a))
    )
    return (
        f"'{a}' and '{b}' have different classes: only in '{a}': {only_a}; only in '{b}': {only_b}"
    )
