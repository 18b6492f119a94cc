"""Archives are unpacked safely: nothing outside the folder, all of it or nothing, and once."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from da.errors import UserError
from da.ops.files import SPARE, cache_folder, write_atomically

from ..files.progress_bars import in_turn, shown_bytes

log = logging.getLogger(__name__)

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OTHERS = (".rar", ".7z")
MOST_FILES = 5_000_000
"""Members of an archive; the largest of the field has less than 600,000."""
MOST_RATIO = 200
"""Unpacked over packed bytes; images hardly get smaller, a bomb is a thousand times as large."""
_FREE_RATIO = 2**20
"""Bytes up to which the ratio is not looked at."""
_BLOCK = 2**20
UNPACKED = ".unpacked"
"""Ending of the folders that archives are unpacked into."""
_MARK = ".unpacked.json"


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as the archive has it.
        content: to be read before the next member is asked for.
    """

    name: str
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive that can be unpacked, or by hand."""
    return path.name.lower().endswith((*SUFFIXES, *_OTHERS))


def unpack_archive(archive: Path, into: Path | None = None) -> Path:
    """The folder that an archive is unpacked into, beside it unless ``into`` says where.

    It appears when all of the archive is in it. A second call finds it, unless the archive has
    another size or time of change. Of several processes one unpacks and the others wait. Where the
    folder can't be written to, it is in the user's cache folder.

    Raises:
        UserError: for an archive that is broken or unsafe, names what is wrong with it; nothing
            is left of it then.
    """
    if archive.name.lower().endswith(_OTHERS):
        raise _by_hand(archive, "can't be unpacked by this program")
    if not archive.name.lower().endswith(SUFFIXES):
        raise UserError(f"'{archive}' is no archive: expected one of {', '.join(SUFFIXES)}")
    target = unpacked_folder(archive) if into is None else into
    state = archive.stat()
    key = [state.st_size, state.st_mtime_ns]
    if _done(target, key):
        return target
    if not os.access(target.parent, os.W_OK):
        # Archives of one name in several folders must not take turns in one place.
        known = hashlib.sha256(f"{archive.resolve()} {key}".encode()).hexdigest()
        target = cache_folder() / "unpacked" / f"{_stem(archive.name)}-{known[:16]}"
    with in_turn(target.with_name(f".{target.name}.lock"), f"it unpacks '{archive}'"):
        if not _done(target, key):
            _unpack(archive, target, key)
    return target


def unpacked_folder(archive: Path) -> Path:
    """The folder that an archive is unpacked into, where that can be beside it."""
    return archive.with_name(_stem(archive.name))


def _stem(name: str) -> str:
    suffix = max((s for s in (*SUFFIXES, *_OTHERS) if name.lower().endswith(s)), key=len)
    # Not the name of a domain, whose folder may lie beside: amazon.zip holds amazon/.
    return f"{name[: -len(suffix)]}{UNPACKED}"


def _done(target: Path, key: list[int]) -> bool:
    try:
        return json.loads((target / _MARK).read_bytes())["archive"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _unpack(archive: Path, target: Path, key: list[int]) -> None:
    prefix = f".{target.name}.part-"
    for left in target.parent.glob(f"{glob.escape(prefix)}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free - SPARE
    log.info("unpacking '%s' (%s MB) into '%s'", archive, f"{key[0] / 2**20:,.0f}", target)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        with shown_bytes(f"unpacking {archive.name}", key[0]) as show:
            _write(archive, partial, free, show)
        write_atomically(partial / _MARK, json.dumps({"archive": key}).encode())
        partial.chmod(0o755)
        _put(partial, target, archive)
    except _BROKEN as error:
        raise _broken(archive, error) from error
    except OSError as error:
        if error.errno is None:  # of gzip and bz2, not of the disk
            raise _broken(archive, error) from error
        raise UserError(
            f"'{archive}' can't be unpacked into '{target}': {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put(partial: Path, target: Path, archive: Path) -> None:
    """Makes a folder that is complete the target, in one step."""
    if target.exists():  # of another archive of this name, or not unpacked by this program
        if not (target / _MARK).exists():
            raise UserError(f"'{target}' is in the way of '{archive}': rename or remove it")
        # Moved away first: one that is half removed when it is killed would look whole.
        old = partial.with_name(f"{partial.name}-old")
        target.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    partial.rename(target)


_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ValueError, RuntimeError),
)
"""What tarfile, zipfile and the decompressors raise for bytes that are none of theirs."""


def _broken(archive: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(
        f"archive '{archive}' can't be unpacked: {reason}; it is cut short or broken: get it again"
    )


def _by_hand(archive: Path, why: str) -> UserError:
    return UserError(f"'{archive}' {why}: unpack it by hand (with 7z x) and name the folder")


def _write(archive: Path, folder: Path, free: int, show: Callable[[int], None]) -> None:
    """Writes every file of an archive, counting what is really written."""
    packed = archive.stat().st_size
    total = count = 0
    with archive.open("rb") as file:
        for member in _members(archive, file):
            parts = safe_parts(member.name, archive)
            if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
                continue  # what macOS notes of each file
            count += 1
            if count > MOST_FILES:
                raise UserError(
                    f"archive '{archive}' holds more than {MOST_FILES:,} files: not unpacked"
                )
            with _new(folder.joinpath(*parts), member.name, archive) as out:
                while block := member.content.read(_BLOCK):
                    total += len(block)
                    _refuse_large(total, packed, free, archive, folder.parent)
                    out.write(block)
                    show(file.tell())
    if not count:
        raise UserError(f"archive '{archive}' holds no files")


def _new(path: Path, name: str, archive: Path) -> IO[bytes]:
    """Opens a file that must not be there; also where the disk knows no upper and lower case."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"archive '{archive}' holds '{name}' twice, as a file and a folder, or in upper and "
            "lower case, which the disk does not tell apart: not unpacked"
        ) from None


def _refuse_large(total: int, packed: int, free: int, archive: Path, place: Path) -> None:
    if total > max(_FREE_RATIO, MOST_RATIO * packed):
        raise UserError(
            f"archive '{archive}' unpacks to more than {MOST_RATIO} times its size: not unpacked"
        )
    if total > free:
        raise UserError(
            f"archive '{archive}' does not fit on the disk of '{place}': "
            f"{max(free, 0) / 2**30:.1f} GB are free; free some or name another root"
        )


def safe_parts(name: str, archive: Path) -> tuple[str, ...]:
    """The parts of a member's path; refuses what would leave the folder."""
    plain = name.replace("\\", "/")
    parts = PurePosixPath(plain).parts
    drive = len(plain) > 1 and plain[1] == ":"
    if plain.startswith("/") or drive or ".." in parts or "\0" in plain or not parts:
        raise UserError(
            f"archive '{archive}' holds '{name}', which lies outside of its folder: not unpacked"
        )
    return parts


def _members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    """The files of an archive; a link is a copy of what it means, anything else is refused."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as packed:
            yield from _of_zip(archive, packed)
    else:
        with tarfile.open(fileobj=file) as tar:
            yield from _of_tar(archive, tar)


def _of_zip(archive: Path, packed: zipfile.ZipFile) -> Iterator[Member]:
    for info in packed.infolist():
        if info.filename.endswith(("/", "\\")):  # some programs on Windows write the latter
            continue
        if info.flag_bits & 1:
            raise _by_hand(archive, "is encrypted")
        meant = info
        if stat.S_ISLNK(info.external_attr >> 16) and info.file_size < 4096:
            place = posixpath.dirname(info.filename)
            path = posixpath.normpath(posixpath.join(place, packed.read(info).decode()))
            meant = packed.NameToInfo.get(path, info)
        if stat.S_IFMT(meant.external_attr >> 16) not in (0, stat.S_IFREG):
            raise _no_file(archive, info.filename)
        try:
            content = packed.open(meant)
        except NotImplementedError:  # Deflate64, which Windows takes for large files
            raise _by_hand(archive, "is packed in a way that Python can't unpack") from None
        with content:
            yield Member(info.filename, content)


def _of_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for item in tar:
        if item.isdir():
            continue
        try:
            content = tar.extractfile(item)  # of a link: what it means, looked up in the archive
        except (KeyError, RecursionError):
            content = None
        if content is None:
            raise _no_file(archive, item.name)
        yield Member(item.name, content)
    # tarfile takes what is no header for the end; a whole archive ends in a block of zeros.
    assert tar.fileobj is not None  # for mypy: it is open
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(512) != bytes(512):
        raise tarfile.ReadError("it has no end")
    for _ in range(64):  # gzip compares its checksum at its own end, which is a little later
        if not tar.fileobj.read(_BLOCK):
            break


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"archive '{archive}' holds '{name}', which is a link or device and no file: not "
        "unpacked; if you trust it, unpack it by hand and name the folder"
    )
