"""Rows as CSV, in which no name is taken for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Sequence[dict[str, Any]], header: Sequence[str] = ()) -> str:
    """Rows with equal keys as CSV; None is an empty field.

    A text that a spreadsheet would take for a formula begins with an apostrophe, as it would if
    it were typed there as a text; numbers stay as they are.

    Args:
        rows: nothing is written of none, unless there is a header.
        header: the keys, for tables that may have no row.

    >>> csv_text([{"task": "=1+1", "gain": -0.5}])
    "task,gain\\n'=1+1,-0.5\\n"
    """
    buffer = io.StringIO()
    names = list(dict.fromkeys([*header, *(key for row in rows for key in row)]))
    if names:
        writer = csv.DictWriter(buffer, names, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    # Half a surrogate, as in names of files that are no UTF-8, can only be written escaped.
    return buffer.getvalue().encode(errors="backslashreplace").decode()


def _plain(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _is_number(value):
        return value
    return f"'{value}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
