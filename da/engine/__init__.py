"""One training path, for `fit` and for a cell of a grid, and what it leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from da.engine.spec import RunSpec
    from da.engine.training import train

__all__ = ["RunSpec", "train"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for: who plans a grid needs specifications, and no torch."""
    if name == "train":
        from da.engine.training import train

        return train
    if name == "RunSpec":
        from da.engine.spec import RunSpec

        return RunSpec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
