"""Which cases of a test the README's command runs, and which the long tests of CI alone."""

from collections.abc import Iterable
from typing import Any

import pytest


def rest_long(cases: Iterable[Any], first: Iterable[Any]) -> list[Any]:
    """All cases of a test, for ``parametrize``; those that are not among the first are long.

    The first are one of each kind; what they have in common with the others is tested with them.
    """
    cases, first = list(cases), list(first)
    strange = [case for case in first if case not in cases]
    assert not strange, strange
    return [case if case in first else _long(case) for case in cases]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
