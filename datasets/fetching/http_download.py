"""One file by http: what is missing of it is added, and nothing else is taken for it."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from da.errors import UserError
from da.ops.files import SPARE

from ..files.progress_bars import shown_bytes

TIMEOUT = 60.0
_BLOCK = 2**18
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<!--")
"""How web pages begin; no file of a data set does."""
_UNREACHABLE = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH)


class Retry(Exception):
    """Something that may be better in a moment.

    Attributes:
        silent: the server, as of :func:`server_of`, where no connection was made to it; after a
            redirect not that of the address.
        lasting: it may be better later, but not in a moment.
    """

    def __init__(self, text: str, silent: str = "", lasting: bool = False) -> None:
        super().__init__(text)
        self.silent = silent
        self.lasting = lasting


def server_of(address: str) -> str:
    """What a connection is made to.

    >>> server_of("https://example.org/sets/a.zip")
    'https://example.org'
    """
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def is_page(start: bytes) -> bool:
    """Whether a file that begins so is a web page."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES)


def download_missing(address: str, part: Path, size: int | None) -> None:
    """Downloads a file, or what is missing of it, into its part.

    Args:
        address: of http or https.
        part: file that is added to where the server's file is still the same, else begun anew.
        size: in bytes, where it is published.

    Raises:
        Retry: for what may be better in a moment.
        UserError: for what won't.
    """
    asked = [_checked(address)]
    begun = part.stat().st_size if part.exists() else 0
    known = _mark(part)
    headers = {"User-Agent": "da-data-fetch"}
    if begun and known:
        # The rest is only of use if the file is still the same.
        headers |= {"Range": f"bytes={begun}-", "If-Range": known}
    try:
        request = urllib.request.Request(address, headers=headers)
        with _opener(asked).open(request, timeout=TIMEOUT) as answer:
            going_on = answer.status == 206
            first = begun if going_on else 0
            _refuse_other(answer, address, part, size)
            total = size if answer.length is None else answer.length + first
            _refuse_small_disk(part, (total or 0) - first)
            if not going_on:
                _remember(part, _mark_of(answer))
            _copy(answer, part, first, total)
    except urllib.error.HTTPError as error:
        whole = error.headers.get("Content-Range") == f"bytes */{begun}"
        if error.code == 416 and begun and whole:
            return  # all of it was there: the last process was killed before it could say so
        if error.code == 416:
            remove_part(part)
            raise Retry("the part that was there is no part of the file") from None
        if error.code in (408, 429) or error.code >= 500:
            raise Retry(f"the server answers {error.code}") from None
        raise UserError(f"{address}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        reason, server = error.reason, server_of(asked[-1])
        if isinstance(reason, socket.gaierror):
            text = "no such host, or no connection to the internet"
            raise Retry(text, server, lasting=True) from None
        raise Retry(f"no connection ({_text(reason)})", server) from None
    except (TimeoutError, http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise Retry(f"the connection was cut ({_text(error)})") from None
    except OSError as error:
        if error.errno in _UNREACHABLE:
            raise Retry(f"the connection was cut ({_text(error)})") from None
        raise UserError(
            f"'{part}' can't be written: {_text(error)}; what is there is kept: make room, or name "
            "another root, and run it again"
        ) from None


def _refuse_other(answer: Any, address: str, part: Path, size: int | None) -> None:
    """Refuses what is not the file, before a part that may be gone on with is replaced."""
    begun = part.stat().st_size if answer.status == 206 else 0
    if answer.status == 206:
        place = answer.headers.get("Content-Range", "")
        known = _mark(part) or ""
        mark = answer.headers.get("ETag" if known.startswith('"') else "Last-Modified", known)
        if not place.startswith(f"bytes {begun}-") or mark != known:
            remove_part(part)
            raise Retry("the server sent another part than was asked for")
    elif is_page(answer.peek(512)):
        raise UserError(
            f"{address} gave a web page and not the file (a quota, a login or a "
            "confirmation): get it in a browser"
        )
    packed = answer.headers.get("Content-Encoding", "identity")
    if packed != "identity" and not part.stem.endswith((".gz", ".tgz")):
        raise UserError(
            f"{address}: the server packs the file ({packed}), which was not asked for: "
            "get it in a browser"
        )
    total = None if answer.length is None else answer.length + begun
    if total is not None and size is not None and total != size:
        raise UserError(
            f"{address} has {total:,} bytes, expected {size:,}: it is another file by now; get "
            "the published one by hand"
        )


def _text(error: Any) -> str:
    found = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(found).split())


def _copy(answer: Any, part: Path, begun: int, total: int | None) -> None:
    with shown_bytes(part.stem, total, begun) as show, part.open("ab" if begun else "wb") as out:
        received = begun
        while block := answer.read(_BLOCK):
            out.write(block)
            received += len(block)
            show(received)
        out.flush()
        os.fsync(out.fileno())
    if total is not None and received < total:
        raise Retry(f"the connection was cut after {received:,} of {total:,} bytes")


def _refuse_small_disk(part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing + SPARE > free:
        raise UserError(
            f"{part.stem} needs {missing / 2**30:.1f} GB, but {free / 2**30:.1f} GB are free "
            f"in '{part.parent}': free some, or name another root"
        )


def _checked(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise UserError(f"{address}: only http and https are downloaded")
    return address


def _opener(asked: list[str]) -> urllib.request.OpenerDirector:
    """Adds to ``asked`` the addresses that it is sent on to."""

    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            asked.append(_checked(newurl))  # urllib alone would allow ftp
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    return urllib.request.build_opener(Redirects)  # with the proxies of the environment


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _mark(part: Path) -> str | None:
    """What the server called the file that a part is of."""
    try:
        return json.loads(_note(part).read_bytes())["mark"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mark_of(answer: Any) -> str | None:
    """What a server calls a file as long as no byte of it changes."""
    tag = answer.headers.get("ETag")
    if tag and not tag.startswith("W/"):  # a weak one doesn't say that the bytes are the same
        return tag
    return answer.headers.get("Last-Modified")


def _remember(part: Path, mark: str | None) -> None:
    remove_part(part)
    if mark:
        _note(part).write_text(json.dumps({"mark": mark}), encoding="utf-8")


def remove_part(part: Path) -> None:
    """Removes a part and what is known of it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
