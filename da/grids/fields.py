"""What the settings of a grid are checked for, one value at a time."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from da.errors import UserError

NAMES = ("conversion",)
"""Options of which "off" is the name of a choice."""


class Strict(BaseModel):
    """Settings of which no other may be given."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,  # what `--help keys` shows
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses ``epochs: true``, which counts as 1 in Python."""
        expected = str(cls.model_fields[str(info.field_name)].annotation)
        if "bool" not in expected and "Any" not in expected:
            for item in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(item, bool):
                    truth = str(item).lower()
                    raise ValueError(f"got {truth}; put it in quotes if it is a name")
        return value


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
        if isinstance(value, dict):
            raise ValueError(
                "names with options can't stand in a list; write {bn: {}, wa: {gain: balanced}}, "
                f"not [bn, wa: {{gain: balanced}}], got {value!r}"
            )
        if not isinstance(value, str):
            raise ValueError(f"a name is expected, got {value!r}: put it in quotes")
    distinct("names", list(values))


def with_options(value: Any) -> Any:
    """Names with their options, from these or from a list of names; what is neither as it is.

    >>> with_options(["bn", "wa"]), with_options({"bn": None, "wa": {"gain": 2}})
    ({'bn': {}, 'wa': {}}, {'bn': {}, 'wa': {'gain': 2}})
    """
    if isinstance(value, (list, tuple)):
        names(value)
        return {name: {} for name in value}
    if isinstance(value, dict):
        names(value)
        return {name: {} if options is None else options for name, options in value.items()}
    return value


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


def check_tasks(tasks: Any) -> None:
    """Refuses what is no task, for validators of settings."""
    for task in tasks:
        try:
            split_task(task)
        except UserError as error:
            raise ValueError(str(error)) from None


def plain_problems(value: Any, key: str = "") -> list[str]:
    """What can stand in no setting: keys that are no names, numbers that are none.

    Args:
        value: what a YAML file holds.
        key: its place in the file, ``"model.backbone"``.
    """
    if isinstance(value, list):
        return [p for i, item in enumerate(value) for p in plain_problems(item, f"{key}.{i}")]
    if isinstance(value, dict):
        problems = [
            f"{key or 'keys'}: a key is a name, got {name!r}; put it in quotes"
            for name in value
            if not isinstance(name, str)
        ]
        for name, item in value.items():
            problems += plain_problems(item, f"{key}.{name}" if key else str(name))
        return problems
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{key}: expected a finite number, got {value}"]
    if isinstance(value, int) and abs(value) >= 2**63:
        return [f"{key}: expected a number of at most 18 digits, got one of {len(str(value))}"]
    return []
