"""Files of tensors: written with a checksum of all their bytes, read without running any code."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from da.errors import UserError
from da.ops.files import write_atomically

#: torch.load heeds these even where it is told ``weights_only=True``.
_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_SEAL = b"sha256:"
_SEAL_BYTES = len(_SEAL) + 64
_END_BYTES = 22
"""Of the last record of a ZIP archive, without its comment."""


PLAIN: list[Any] = [argparse.Namespace]
"""Classes that hold values and run nothing: training scripts keep their options beside tensors."""


class Damaged(ValueError):
    """A file is not as it was written; says in which way."""


def write_checkpoint(path: Path, content: Any) -> None:
    """Writes a file of torch.save with a SHA-256 of all its other bytes, atomically.

    torch.save writes a ZIP archive. The checksum is the archive's comment, its very last bytes, so
    that torch.load and any other reader of ZIP files read on as if it weren't there.

    Args:
        path: the file; the temporary one lies beside it, wherever TMPDIR is.
        content: what torch.save takes.

    Raises:
        OSError: it can't be written; the old file and nothing else is there then.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(-2, os.SEEK_END)  # the length of the comment, 0 so far
    buffer.write(_SEAL_BYTES.to_bytes(2, "little"))
    with buffer.getbuffer() as view:
        seal = _SEAL + hashlib.sha256(view).hexdigest().encode()
    buffer.write(seal)
    with buffer.getbuffer() as view:
        write_atomically(path, view)


def read_tensors(kind: str, path: str, advice: str) -> Any:
    """What is in a file of torch.save or a .safetensors file, on the CPU.

    What :func:`write_checkpoint` wrote is compared with its checksum. Other files of torch.save
    have at least one of 32 bits for each tensor, which torch itself does not look at.

    Args:
        kind: what the file is to the user, ``"weights"``; begins the error.
        path: the file.
        advice: what to give instead; ends the error.

    Raises:
        UserError: where there is no such file, it is damaged, or it is not one that tensors can be
            read from.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"{kind}: no file '{path}'; {advice}")
    refuse_unsafe_loading(kind)
    try:
        if place.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(place)
        with place.open("rb") as file:  # the same file is verified and read, whatever is renamed
            verify_checksums(file)
            file.seek(0)
            with torch.serialization.safe_globals(PLAIN):
                return torch.load(file, map_location="cpu", weights_only=True)
    except Damaged as error:
        raise UserError(f"{kind}: '{path}' is damaged: {error}; {advice}") from error
    except pickle.UnpicklingError as error:
        # torch says how to load it all the same, which would run whatever is in it.
        reason = "it is no file of tensors"
        raise UserError(f"{kind}: '{path}' can't be read: {reason}; {advice}") from error
    except Exception as error:  # whatever a broken file provokes in zip, pickle or safetensors
        reason = f"it is cut short or no file of tensors ({type(error).__name__})"
        raise UserError(f"{kind}: '{path}' can't be read: {reason}; {advice}") from error


def verify_checksums(file: BinaryIO) -> None:
    """Compares a file with the checksums that it carries; one without any passes.

    Args:
        file: open at any position, which changes.

    Raises:
        Damaged: says in one clause what is wrong.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    archive = file.read(4) == b"PK\x03\x04"
    file.seek(max(0, size - _SEAL_BYTES))
    seal = file.read()
    if seal.startswith(_SEAL):
        if seal[len(_SEAL) :].decode("latin-1") != _sha256(file, size - _SEAL_BYTES):
            raise Damaged("its checksum does not match")
    elif archive:
        end = seal[-_END_BYTES:]
        if not (end.startswith(b"PK\x05\x06") and end.endswith(b"\0\0")):
            raise Damaged("it is cut short, or its checksum does not match")
        _verify_records(file)


def _sha256(file: BinaryIO, size: int) -> str:
    """Of the first ``size`` bytes."""
    total = hashlib.sha256()
    file.seek(0)
    while size > 0 and (chunk := file.read(min(size, 2**20))):
        total.update(chunk)
        size -= len(chunk)
    return total.hexdigest()


def _verify_records(file: BinaryIO) -> None:
    """Compares every record of an archive with its CRC."""
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            broken = [info.filename for info in records if not _is_whole(archive, info)]
    except zipfile.BadZipFile as error:
        raise Damaged("its list of records does not match") from error
    # torch can be told to write no CRCs at all; then none of them is right.
    if broken and len(broken) < len(records):
        raise Damaged(f"the checksum of its record '{broken[0]}' does not match")


def _is_whole(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(info) as record:
            while record.read(2**20):
                pass
    except (zipfile.BadZipFile, EOFError):
        return False
    return True


def refuse_unsafe_loading(kind: str) -> None:
    """Refuses to read anything where torch.load was told to run what files hold.

    Args:
        kind: see :func:`read_tensors`.
    """
    if os.environ.get(_UNSAFE, "").lower() in ("1", "y", "yes", "true"):
        raise UserError(f"{kind}: the environment variable {_UNSAFE} lets files run code; unset it")
