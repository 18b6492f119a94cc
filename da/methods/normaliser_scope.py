"""Which parts of a method a normaliser covers, and which it can be asked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from da.errors import UserError, unknown
from da.norms import Normaliser

Part = Literal["backbone", "bottleneck", "critic"]
PARTS: tuple[Part, ...] = get_args(Part)


def refuse_scope(scope: Sequence[str]) -> None:
    """Refuses parts that there are none of, or that are named twice.

    Raises:
        UserError: naming the first.
    """
    if not isinstance(scope, (list, tuple)):
        raise UserError(f"scope: expected a list of parts such as [backbone], got {scope!r}")
    for number, part in enumerate(scope):
        if part not in PARTS:
            raise unknown("part under scope", part, PARTS)
        if part in scope[:number]:
            raise UserError(f"scope: {part} is named twice; name each part once")


def unseen_target(norm: str, method: str) -> str:
    """What is wrong with a normaliser that learns something of a target that is never forwarded.

    Args:
        norm: its name.
        method: name of the method.
    """
    return (
        f"norm '{norm}' keeps something of the target, which {method} never "
        "forwards in training: it would stay as it began; use a method that does, or "
        "another norm"
    )


def covers_nothing(own: Normaliser, scope: Sequence[str]) -> bool:
    """Whether batch norm stays in every part that a scope names, whatever the method has."""
    return all(own.for_part(part) is None for part in scope)
