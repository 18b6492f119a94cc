"""JSON files for people that carry a checksum of what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from da.errors import UserError
from da.ops.files import write_atomically

SEAL = "sha256"
"""The field of the checksum, the last one of a file."""


class Sealed(NamedTuple):
    """What a file says.

    Attributes:
        content: without the checksum.
        sealed: whether there was one; older files have none, and nothing vouches for them.
    """

    content: dict[str, Any]
    sealed: bool


def write_sealed(path: Path, content: Mapping[str, Any], indent: int | None = 1) -> None:
    """Writes a JSON object and, as its last field, the SHA-256 of all others, atomically.

    Args:
        path: see :func:`.files.write_atomically`.
        content: what JSON can hold; a tuple becomes a list, and a key a text.
        indent: spaces; None writes one line, for what is long and read by nobody.

    Raises:
        ValueError: NaN or infinity, which JSON can't hold, or a field of the checksum's name.
        OSError: it can't be written; see there.
    """
    write_atomically(path, seal_json(content, indent))


def read_sealed(path: Path, kind: str, advice: str) -> Sealed:
    """Reads what :func:`write_sealed` wrote, or an older file without a checksum.

    Args:
        path: the file.
        kind: what the file is to the user, ``"result"``; begins the error.
        advice: what to do about a broken file; ends the error.

    Raises:
        UserError: there is no such file, or it is not as it was written.
    """
    try:
        return parse_sealed(path.read_bytes())
    except FileNotFoundError:
        reason = f"no file '{path}'"
    except OSError as error:
        reason = f"'{path}' can't be read ({error.strerror})"
    except ValueError as error:
        reason = f"'{path}' is damaged: {error}"
    raise UserError(f"{kind}: {reason}; {advice}")


def seal_json(content: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """The bytes of a file; see :func:`write_sealed`.

    >>> parse_sealed(seal_json({"accuracy": 0.5, "task": "a→b"}))
    Sealed(content={'accuracy': 0.5, 'task': 'a→b'}, sealed=True)
    """
    # As it will be read, so that the checksum is of the same: tuples and numbers as keys change.
    plain = json.loads(json.dumps(content, allow_nan=False))
    if SEAL in plain:
        raise ValueError(f"the field '{SEAL}' is the checksum's")
    text = json.dumps(
        {**plain, SEAL: _checksum(plain)}, indent=indent, ensure_ascii=False, allow_nan=False
    )
    # Half a surrogate, as in names of files that are no UTF-8, can only be written escaped.
    return f"{text}\n".encode(errors="backslashreplace")


def parse_sealed(text: bytes) -> Sealed:
    """What the bytes of a file say; layout and the spelling of a number don't count.

    Raises:
        ValueError: they are no JSON object, or not what the checksum is of; says so in one line.
    """
    try:
        content = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_without_doubles
        )
    except (ValueError, RecursionError) as error:
        raise ValueError("it is cut short or no JSON") from error
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if SEAL in content:
        seal = content.pop(SEAL)
        if seal != _checksum(content):
            raise ValueError("its checksum does not match")
        return Sealed(content, True)
    # A damaged name of the checksum must not make an older file of a new one.
    last = next(reversed(content), None)
    if last is not None and content[last] == _checksum(
        {key: value for key, value in content.items() if key != last}
    ):
        raise ValueError("its checksum does not match")
    return Sealed(content, False)


def _checksum(content: dict[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:  # 1e999 is read as infinity, which was never written
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a field stands twice")
    return content
