"""Downloads that go on where they stopped, are verified, and never look whole when they aren't."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from da.errors import UserError

from ..fetching.archives import safe_parts, unpack_archive
from ..fetching.http_download import Retry, download_missing, is_page, remove_part, server_of
from ..files.progress_bars import in_turn

log = logging.getLogger(__name__)

TRIES = 5
WAIT = 1.0
"""Seconds before the second try; twice as long before each further one."""
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
        mirrors: further addresses, each asked where those before it fail.
    """

    address: str
    file: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    unpack: bool = True
    mirrors: tuple[str, ...] = ()


def unpack_download(download: Download, path: Path) -> None:
    """Unpacks a file where it is an archive."""
    if download.unpack:
        unpack_archive(path)


def fetch_files(
    name: str,
    downloads: Sequence[Download],
    root: Path,
    by_hand: str,
    then: Callable[[Download, Path], None] = unpack_download,
) -> None:
    """Downloads, verifies and unpacks files; what is there already is left as it is.

    Args:
        name: of the data set, for people.
        downloads: what can be downloaded by a program.
        root: folder to put it into; made where it is missing.
        by_hand: what to do where a download can't be automated, or fails.
        then: what to do with each file that is whole.

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
    silent: dict[str, str] = {}
    for download in downloads:
        try:
            then(download, fetch_file(download, root, silent))
        except UserError as error:
            log.warning("failed: %s", error)
            failed.append(download.file)
    if failed:
        raise UserError(
            f"{name}: {len(failed)} of {len(downloads)} files failed: {', '.join(failed)}; the "
            f"same command goes on where it stopped. By hand: {by_hand}"
        )


def fetch_file(download: Download, root: Path, silent: dict[str, str] | None = None) -> Path:
    """The path of a file that is whole and verified, downloaded where it isn't there yet.

    Of several processes one downloads it and the others wait.

    Args:
        download: the file.
        root: folder to put it into.
        silent: servers that no connection was made to in all tries, with the reason; they are not
            asked, and those of this file added.

    Raises:
        UserError: says what went wrong and what to do; a part that can be gone on with is kept.
    """
    path = root.joinpath(*safe_parts(download.file, root))
    if not path.exists():
        try:
            with in_turn(path.with_name(f".{path.name}.lock"), f"it downloads {download.file}"):
                if not path.exists():
                    return _downloaded(download, path, {} if silent is None else silent)
        except OSError as error:
            raise UserError(
                f"'{path.parent}' can't be written to: {error.strerror}; name another root"
            ) from None
    verify_file(path, download)
    log.info("%s: there already", download.file)
    return path


def _downloaded(download: Download, path: Path, silent: dict[str, str]) -> Path:
    part = path.with_name(f"{path.name}.part")
    said = []
    for address in (download.address, *download.mirrors):
        try:
            _complete(download._replace(address=address), part, silent)
            break
        except UserError as error:
            said.append(str(error))
    else:
        raise UserError("; ".join(said))
    part.replace(path)
    remove_part(part)
    log.info("%s: %s MB", download.file, f"{path.stat().st_size / 2**20:,.1f}")
    return path


def _complete(download: Download, part: Path, silent: dict[str, str]) -> None:
    """Downloads and verifies a file."""
    if reason := silent.get(server_of(download.address)):
        raise UserError(f"{download.address}: {reason}, not tried again")
    _received(download, part, silent)
    wrong = _wrong(part, download)
    if wrong:
        remove_part(part)
        raise UserError(
            f"{download.address} gave a file that {wrong}: nothing of it is kept; fetch again, or "
            "get it in a browser"
        )


def _received(download: Download, part: Path, silent: dict[str, str]) -> None:
    """Downloads a file; what passes for a moment is tried again."""
    tried = set()
    for attempt in range(TRIES):
        try:
            download_missing(download.address, part, download.size)
            return
        except Retry as error:
            tried.add(error.silent)
            if attempt == TRIES - 1 or error.lasting:
                if error.silent and tried == {error.silent}:  # it never answered
                    silent[error.silent] = str(error)
                times = "" if error.lasting else f" ({TRIES} times)"
                raise UserError(f"{download.address}: {error}{times}") from None
            log.warning("%s: %s; trying again", download.file, error)
            time.sleep(WAIT * 2**attempt)


def verify_file(path: Path, download: Download) -> None:
    """Compares a file with what is published of it."""
    wrong = _wrong(path, download)
    if wrong:
        raise UserError(f"'{path}' {wrong}: remove it and fetch again")


def _wrong(path: Path, download: Download) -> str:
    """What is wrong with a file, as the end of a sentence; empty where nothing is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size and is_page(file.read(512)):
            return "is a web page"
    if not size:
        return "is empty"
    if download.size is not None and size != download.size:
        return f"has {size:,} bytes, expected {download.size:,}"
    for kind in ("sha256", "md5"):
        expected = getattr(download, kind)
        if expected is None:
            continue
        found = hashlib.new(kind)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        if found.hexdigest() != expected.lower():
            return f"has {kind} {found.hexdigest()}, expected {expected}"
    return ""
