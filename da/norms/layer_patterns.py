"""Layers and normalisers that are named by patterns, as ``exclude`` and ``include`` do."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from da.errors import UserError, unknown
from da.norms.surgery import title_of_model
from da.norms.tracing import NORMS, is_layer


def patterns_of(given: object, option: str) -> tuple[str, ...]:
    """The patterns of an option: one, or a list of them.

    Raises:
        UserError: for anything else.

    >>> patterns_of("stem.*", "exclude"), patterns_of(["a", "b"], "exclude")
    (('stem.*',), ('a', 'b'))
    """
    patterns = (given,) if isinstance(given, str) else given
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(x, str) for x in patterns):
        raise UserError(f"{option}: expected a name or a list of names of layers, got {given!r}")
    return tuple(patterns)


def match_patterns(
    model: nn.Module, patterns: Sequence[str], option: str, layers_only: bool = False
) -> set[nn.Module]:
    """The layers and normalisers that patterns name, themselves or by a block they are in."""
    matched: set[nn.Module] = set()
    candidates = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if is_layer(module) or (isinstance(module, NORMS) and not layers_only)
    ]
    for pattern in patterns:
        hits = {m for name, m in candidates if _pattern_matches(pattern, name)}
        if not hits:
            near = unknown("layer", pattern, {name for name, _ in candidates})
            raise UserError(f"{option} matches nothing in {title_of_model(model)}: {near}")
        matched |= hits
    return matched


def _pattern_matches(pattern: str, name: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))
