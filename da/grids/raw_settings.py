"""Settings of a grid as they are written, which need not have the form of settings."""

from __future__ import annotations

from typing import Any


def mapping_of(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """What stands under a key, where it has options by name; else nothing."""
    value = settings.get(key)
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """One value or several as a list; nothing of ``all``, or of what is neither."""
    if isinstance(value, str):
        return [] if value == "all" else [value]
    return list(value) if isinstance(value, (list, tuple)) else []


def names_of(value: Any) -> list[str]:
    """Names from a name, a list of them, or names with options."""
    names = list(value) if isinstance(value, dict) else list_of(value)
    return [name for name in names if isinstance(name, str)]


def text_of(value: Any) -> str:
    """A text, and of anything else none."""
    return value if isinstance(value, str) else ""
