"""What the settings of a grid are checked for, one value at a time."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from da.errors import UserError

NAMES = ("conversion",)
"""Options of which "off" is the name of a choice."""


class Strict(BaseModel):
    """Settings of which no other may be given."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


def truths(value: dict[str, Any]) -> dict[str, Any]:
    """Refuses ``single_image: no``: the name "no", which counts as true in Python."""
    for key, option in value.items():
        if isinstance(option, dict):
            truths(option)
        elif key in NAMES:
            continue
        elif isinstance(option, str) and option.lower() in ("yes", "no", "on", "off"):
            raise ValueError(f"{key}: {option} is a name in YAML 1.2; write true or false")
    return value


def names(values: Any) -> None:
    """Refuses what is no name, and a name that is given twice."""
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"a name is expected, got {value!r}: put it in quotes")
    distinct("names", list(values))


def distinct(what: str, values: list[Any]) -> None:
    """Refuses a value that is given twice."""
    if repeated := sorted({str(value) for value in values if values.count(value) > 1}):
        raise ValueError(f"{what} given twice: {', '.join(repeated)}")


def split_task(task: str) -> tuple[str, str]:
    """The two domains of ``"source->target"``.

    >>> split_task("rendered->optical")
    ('rendered', 'optical')
    """
    source, arrow, target = str(task).partition("->")
    if not arrow or not source.strip() or not target.strip() or "->" in target:
        raise UserError(f"a task is written source->target, got '{task}'")
    return source.strip(), target.strip()
