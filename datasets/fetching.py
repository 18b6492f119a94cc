"""Downloads that go on where they stopped, are verified, and never look whole when they aren't."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from da.errors import UserError
from da.ops.files import SPARE
from datasets.archives import safe_parts, unpacked

TRIES = 5
WAIT = 1.0
"""Seconds before the second try; twice as long before each further one."""
TIMEOUT = 60.0
_BLOCK = 2**18


class Download(NamedTuple):
    """One file to download.

    Attributes:
        address: of http or https.
        file: its name under the root.
        size: in bytes, where it is published.
        sha256: hexadecimal, where it is published.
        md5: hexadecimal, where it is published.
        unpack: whether it is an archive, to be unpacked once it is verified.
    """

    address: str
    file: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: bool = True


class _Retry(Exception):
    """Something that may be better in a moment."""


def fetch(name: str, downloads: Sequence[Download], root: Path, by_hand: str) -> None:
    """Downloads, verifies and unpacks files; what is there already is left as it is.

    Args:
        name: of the data set, for people.
        downloads: what can be downloaded by a program.
        root: folder to put it into; made where it is missing.
        by_hand: what to do where a download can't be automated, or fails.

    Raises:
        UserError: where there is nothing to download, or something failed; the other files are
            downloaded all the same.
    """
    if not downloads:
        raise UserError(f"{name} can't be downloaded by a program: {by_hand}")
    if root.exists() and not root.is_dir():
        raise UserError(f"root '{root}' is a file: name a folder to download into")
    root.mkdir(parents=True, exist_ok=True)
    failed = []
    for download in downloads:
        try:
            path = fetch_file(download, root)
            if download.unpack:
                unpacked(path)
        except UserError as error:
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failed.append(download.file)
    if failed:
        raise UserError(
            f"{name}: {len(failed)} of {len(downloads)} files failed: {', '.join(failed)}; the "
            f"same command goes on where it stopped. By hand: {by_hand}"
        )


def fetch_file(download: Download, root: Path) -> Path:
    """The path of a file that is whole and verified, downloaded where it isn't there yet.

    Raises:
        UserError: says what went wrong and what to do; a part that can be gone on with is kept.
    """
    path = root.joinpath(*safe_parts(download.file, root))
    if path.exists():
        verify(path, download)
        print(f"{download.file}: there already", flush=True)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in range(TRIES):
        try:
            _receive(download, part)
            break
        except _Retry as error:
            if attempt == TRIES - 1:
                raise UserError(f"{download.address}: {error} ({TRIES} times)") from None
            print(f"{download.file}: {error}; trying again", file=sys.stderr, flush=True)
            time.sleep(WAIT * 2**attempt)
    try:
        verify(part, download)
    except UserError:
        _forget(part)
        raise
    part.replace(path)
    _forget(part)
    print(f"{download.file}: {path.stat().st_size / 2**20:,.1f} MB", flush=True)
    return path


def verify(path: Path, download: Download) -> None:
    """Compares a file with what is published of it."""
    size = path.stat().st_size
    if download.size is not None and size != download.size:
        raise UserError(
            f"'{path}' has {size:,} bytes, expected {download.size:,}: remove it and fetch again"
        )
    for kind in ("sha256", "md5"):
        expected = getattr(download, kind)
        if expected is None:
            continue
        found = hashlib.new(kind)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        if found.hexdigest() != expected.lower():
            raise UserError(
                f"'{path}' has {kind} {found.hexdigest()}, expected {expected}: remove it and "
                "fetch again"
            )
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if download.unpack and (start.startswith((b"<!doctype html", b"<html")) or not start):
        raise UserError(_page(download))


def _page(download: Download) -> str:
    return (
        f"{download.address} gave a web page and not the file (a quota, a login or a "
        "confirmation): get it in a browser"
    )


def _receive(download: Download, part: Path) -> None:
    """Downloads a file, or what is missing of it, into its part."""
    begun = part.stat().st_size if part.exists() else 0
    known = _mark(part)
    headers = {"User-Agent": "da-data-fetch"}
    if begun and known:
        # The rest is only of use if the file is still the same.
        headers |= {"Range": f"bytes={begun}-", "If-Range": known}
    try:
        request = urllib.request.Request(_checked(download.address), headers=headers)
        with _opener().open(request, timeout=TIMEOUT) as answer:
            going_on = answer.status == 206
            place = answer.headers.get("Content-Range", "")
            if going_on and not place.startswith(f"bytes {begun}-"):
                _forget(part)
                raise _Retry("the server sent another part than was asked for")
            length = answer.headers.get("Content-Length")
            total = int(length) + (begun if going_on else 0) if length else download.size
            kind = answer.headers.get_content_type()
            if download.unpack and kind == "text/html":
                _forget(part)
                raise UserError(_page(download))
            _refuse_small_disk(part, (total or 0) - begun * going_on, download)
            if not going_on:
                _remember(part, answer.headers.get("ETag") or answer.headers.get("Last-Modified"))
            _copy(answer, part, begun if going_on else 0, total, download.file)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is as long as the file, or longer
            _forget(part)
            raise _Retry("the part that was there is no part of the file") from None
        if error.code in (408, 429) or error.code >= 500:
            raise _Retry(f"the server answers {error.code}") from None
        raise UserError(
            f"{download.address}: the server answers {error.code} {error.reason}"
        ) from None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, socket.gaierror):
            raise UserError(
                f"{download.address}: no such host, or no connection to the internet"
            ) from None
        raise _Retry(f"no connection ({_text(reason)})") from None
    except (TimeoutError, http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        raise _Retry(f"the connection was cut ({_text(error)})") from None
    except OSError as error:
        raise UserError(f"'{part}' can't be written: {_text(error)}") from None


def _text(error: Any) -> str:
    found = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(found).split())


def _copy(answer: Any, part: Path, begun: int, total: int | None, name: str) -> None:
    with _Shown(name, begun, total) as advance, part.open("ab" if begun else "wb") as out:
        received = begun
        while block := answer.read(_BLOCK):
            out.write(block)
            received += len(block)
            advance(len(block))
        out.flush()
        os.fsync(out.fileno())
    if total is not None and received < total:
        raise _Retry(f"the connection was cut after {received:,} of {total:,} bytes")


class _Shown:
    """A bar on a terminal, else a line for every tenth of a large file."""

    def __init__(self, name: str, begun: int, total: int | None) -> None:
        self.name, self.done, self.total = name, begun, total
        self.bar = (
            Progress(
                "{task.description}", DownloadColumn(), TransferSpeedColumn(),
                TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )
            if sys.stderr.isatty()
            else None
        )  # fmt: skip

    def __enter__(self) -> Callable[[int], None]:
        if self.bar is None:
            return self._line
        self.bar.start()
        task = self.bar.add_task(self.name, total=self.total, completed=self.done)
        return lambda size: self.bar.advance(task, size) if self.bar else None

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _line(self, size: int) -> None:
        step = max(2**26, (self.total or 0) // 10)
        before, self.done = self.done, self.done + size
        if before // step != self.done // step:
            of = f" of {self.total / 2**20:,.0f}" if self.total else ""
            print(f"{self.name}: {self.done / 2**20:,.0f}{of} MB", file=sys.stderr, flush=True)


def _refuse_small_disk(part: Path, missing: int, download: Download) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing + SPARE > free:
        raise UserError(
            f"{download.file} needs {missing / 2**30:.1f} GB, but {free / 2**30:.1f} GB are free "
            f"in '{part.parent}': free some, or name another root"
        )


def _checked(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise UserError(f"{address}: only http and https are downloaded")
    return address


def _opener() -> urllib.request.OpenerDirector:
    class Redirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> Any:
            _checked(newurl)  # urllib alone would allow ftp
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


def _remember(part: Path, mark: str | None) -> None:
    _forget(part)
    if mark and not mark.startswith("W/"):  # a weak one doesn't say that the bytes are the same
        _note(part).write_text(json.dumps({"mark": mark}))


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)
