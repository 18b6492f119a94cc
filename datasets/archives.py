"""Archives are unpacked safely: nothing outside the folder, all of it or nothing, and once."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from da.errors import UserError
from da.ops.files import SPARE, alone, cache_folder, write_bytes_atomically

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OTHERS = (".rar", ".7z")
MOST_FILES = 5_000_000
"""Members of an archive; the largest of the field has less than 600,000."""
MOST_RATIO = 200
"""Unpacked over packed bytes; images hardly get smaller, a bomb is a thousand times as large."""
_FREE_RATIO = 2**20
"""Bytes up to which the ratio is not looked at."""
_BLOCK = 2**20
_MARK = ".unpacked.json"


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as the archive has it.
        size: in bytes, as the archive says.
        content: opens it.
    """

    name: str
    size: int
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive that can be unpacked, or by hand."""
    return path.name.lower().endswith((*SUFFIXES, *_OTHERS))


def unpacked(archive: Path, into: Path | None = None) -> Path:
    """The folder that an archive is unpacked into, beside it unless ``into`` says where.

    It appears when all of the archive is in it. A second call finds it, unless the archive has
    another size or time of change. Of several processes one unpacks and the others wait. Where the
    folder can't be written to, it is in the user's cache folder.

    Raises:
        UserError: for an archive that is broken or unsafe, names what is wrong with it; nothing
            is left of it then.
    """
    if archive.name.lower().endswith(_OTHERS):
        raise UserError(
            f"'{archive}' can't be unpacked by this program: unpack it by hand (with 7z x) and "
            "name the folder"
        )
    if not archive.name.lower().endswith(SUFFIXES):
        raise UserError(f"'{archive}' is no archive: expected one of {', '.join(SUFFIXES)}")
    target = archive.with_name(_stem(archive.name)) if into is None else into
    state = archive.stat()
    key = [state.st_size, state.st_mtime_ns]
    if _done(target, key):
        return target
    if not os.access(target.parent, os.W_OK):
        target = cache_folder() / "unpacked" / f"{_stem(archive.name)}-{state.st_mtime_ns:x}"
    with alone(target.with_name(f".{target.name}.lock")):
        if not _done(target, key):
            _unpack(archive, target, key)
    return target


def _stem(name: str) -> str:
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len)
    # Not the name of a domain, whose folder may lie beside: amazon.zip holds amazon/.
    return f"{name[: -len(suffix)]}.unpacked"


def _done(target: Path, key: list[int]) -> bool:
    try:
        return json.loads((target / _MARK).read_bytes())["archive"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _unpack(archive: Path, target: Path, key: list[int]) -> None:
    prefix = f".{target.name}.part-"
    for left in target.parent.glob(f"{prefix}*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    free = shutil.disk_usage(target.parent).free - SPARE
    print(f"unpacking '{archive}' ({key[0] / 2**20:,.0f} MB) into '{target}'", flush=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        _write(archive, partial, free)
        write_bytes_atomically(partial / _MARK, json.dumps({"archive": key}).encode())
        partial.chmod(0o755)
        if target.exists():  # of another archive of this name, or not unpacked by this program
            if not (target / _MARK).exists():
                raise UserError(f"'{target}' is in the way of '{archive}': rename or remove it")
            shutil.rmtree(target)
        partial.rename(target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise UserError(_broken(archive, error)) from error
    except OSError as error:
        if (
            error.errno is None
            or "compressed" in str(error).lower()
            or "gzip" in str(error).lower()
        ):
            raise UserError(_broken(archive, error)) from error
        raise UserError(
            f"'{archive}' can't be unpacked into '{target}': {error.strerror}"
        ) from error
    except (ValueError, RuntimeError) as error:  # of zlib, lzma, and encrypted archives
        raise UserError(_broken(archive, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _broken(archive: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"archive '{archive}' can't be unpacked: {reason}; it is cut short or broken: get it again"
    )


def _write(archive: Path, folder: Path, free: int) -> None:
    """Writes every file of an archive, counting what is really written."""
    packed = archive.stat().st_size
    total = count = 0
    seen: set[str] = set()
    for member in _members(archive):
        path = folder.joinpath(*safe_parts(member.name, archive))
        count += 1
        if count > MOST_FILES:
            raise UserError(
                f"archive '{archive}' holds more than {MOST_FILES:,} files: not unpacked"
            )
        if str(path) in seen:
            raise UserError(f"archive '{archive}' holds '{member.name}' twice: not unpacked")
        seen.add(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            while block := member.content.read(_BLOCK):
                total += len(block)
                if total > max(_FREE_RATIO, MOST_RATIO * packed):
                    raise UserError(
                        f"archive '{archive}' unpacks to more than {MOST_RATIO} times its size: "
                        "not unpacked"
                    )
                if total > free:
                    raise UserError(
                        f"archive '{archive}' does not fit on the disk of '{folder.parent}': "
                        f"{max(free, 0) / 2**30:.1f} GB are free; free some or name another root"
                    )
                out.write(block)
        if count % 20_000 == 0:
            print(f"{count:,} files unpacked", file=sys.stderr, flush=True)
    if not count:
        raise UserError(f"archive '{archive}' holds no files")


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


def _members(archive: Path) -> Iterator[Member]:
    """The files of an archive; folders are left out, anything else is refused."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise _no_file(archive, info.filename)
                with file.open(info) as content:
                    yield Member(info.filename, info.file_size, content)
        return
    with tarfile.open(archive) as tar:
        for item in tar:
            if item.isdir():
                continue
            inside = tar.extractfile(item) if item.isreg() else None
            if inside is None:
                raise _no_file(archive, item.name)
            yield Member(item.name, item.size, inside)
        # tarfile takes what is no header for the end; a whole archive ends in a block of zeros.
        assert tar.fileobj is not None  # for mypy: it is open
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(512) != bytes(512):
            raise tarfile.ReadError("it has no end")


def _no_file(archive: Path, name: str) -> UserError:
    return UserError(
        f"archive '{archive}' holds '{name}', which is a link or device and no file: not unpacked"
    )
