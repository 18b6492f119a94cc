"""Errors that are the user's to mend: one clear line and an exit code, never a traceback."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: says what was expected, what came and what to do. Exit code 2."""

    exit_code = 2


class Diverged(UserError):
    """The loss is not finite. The run is over and is never counted as done. Exit code 3."""

    exit_code = 3


def refuse_negative(**numbers: float | None) -> None:
    """Refuses weights and the like below 0, by the name of their option; None is passed over.

    >>> refuse_negative(trade_off=0.0, penalty=None)
    >>> refuse_negative(trade_off=1.0, penalty=-0.5)
    Traceback (most recent call last):
        ...
    da.errors.UserError: penalty: expected a number from 0, got -0.5
    """
    for option, number in numbers.items():
        if number is not None and not number >= 0:  # nor NaN
            raise UserError(f"{option}: expected a number from 0, got {number}")


def refuse_infinite(**values: object) -> None:
    """Refuses numbers that are infinite or NaN, by the name of their option; others pass.

    >>> refuse_infinite(temperature=2.5, norm="bn")
    >>> refuse_infinite(temperature=float("nan"))
    Traceback (most recent call last):
        ...
    da.errors.UserError: temperature: expected a finite number, got nan
    """
    for option, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{option}: expected a finite number, got {value}")


def unknown(kind: str, name: object, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist, with the nearest right one first.

    >>> print(unknown("normaliser", "bm", ["bn", "wa"]))
    unknown normaliser 'bm'; did you mean 'bn'? One of: bn, wa
    >>> print(unknown("normaliser", "WA", ["bn", "gn", "wa"]))
    unknown normaliser 'WA'; did you mean 'wa'? One of: bn, gn, wa
    """
    names = sorted(allowed)
    near = [right for right in names if right.casefold() == str(name).casefold()]
    near = near or difflib.get_close_matches(str(name), names, n=1, cutoff=0.4)
    hint = f" did you mean '{near[0]}'?" if near else ""
    choice = f"{' One' if hint else ' one'} of: {', '.join(names)}"
    return UserError(f"unknown {kind} '{name}';{hint}{choice}")
