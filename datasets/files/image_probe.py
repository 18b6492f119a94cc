"""What is to be said of one image file: whether it can be read, its kind, its size."""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from .decoder_complaints import read_with_complaints
from .decoding import ORIENTATION, Reading, UnreadableImage
from .peculiarities import Peculiar, look_at

_KINDS = {"L": "grey", "1": "black and white", "P": "palette", "CMYK": "CMYK", "F": "float"}


class Seen(NamedTuple):
    """One file.

    Attributes:
        problem: why it can't be read; empty where it can.
        kind: grey, colour, alpha, palette, CMYK or 16-bit.
        size: width and height as stored.
        turned: its EXIF orientation is not the upright one.
        content: the first 8 bytes of a hash of the file.
        peculiar: what is to be said of it besides.
        damage: what is wrong inside a file that is decoded all the same; empty where nothing.
    """

    problem: str
    kind: str = ""
    size: tuple[int, int] = (0, 0)
    turned: bool = False
    content: int = 0
    peculiar: Peculiar = Peculiar()
    damage: str = ""


def probe_image(path: Path, reading: Reading) -> Seen:
    """Reads and decodes one file, as a training would."""
    try:
        if path.is_symlink() and not path.exists():
            return Seen(f"it is a link to '{path.readlink()}', which does not exist")
        raw = path.read_bytes()
    except OSError as error:
        return Seen(_of_system(error))
    if not raw:
        return Seen("it is empty (zero bytes)")
    content = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                found = Seen("", _kind(image), image.size, _turned(image), content)
                found = found._replace(peculiar=look_at(image))
        _, damage = read_with_complaints(path, reading)
        found = found._replace(damage=damage)
    except UnreadableImage as error:
        cause = error.__cause__
        return Seen(_of_decoder(cause if isinstance(cause, Exception) else error, raw))
    except Exception as error:  # whatever a broken file provokes in a decoder
        return Seen(_of_decoder(error, raw))
    return found


def touched(path: Path) -> str:
    """What is wrong with a file that is not opened; empty where nothing is."""
    try:
        if path.stat().st_size == 0:
            return "it is empty (zero bytes)"
    except OSError as error:
        if path.is_symlink():
            return f"it is a link to '{path.readlink()}', which does not exist"
        return _of_system(error)
    return "" if os.access(path, os.R_OK) else "no permission to read it"


def _of_system(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return "it is gone" if isinstance(error, FileNotFoundError) else str(error.strerror or error)


def _of_decoder(error: Exception, raw: bytes) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        start = raw[:24]
        if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
            return f"it is no image but text ('{' '.join(start.decode().split())}…')"
        return "it is no image, or its beginning is damaged"
    if "truncated" in text or "broken PNG" in text or "unrecognized data" in text:
        return f"it is cut short or damaged ({text})"
    return text


def _kind(image: Image.Image) -> str:
    if image.mode.startswith("I"):
        return "16-bit"
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        return "alpha"
    return _KINDS.get(image.mode, "colour")


def _turned(image: Image.Image) -> bool:
    with contextlib.suppress(Exception):  # EXIF that can't be read turns nothing
        return image.getexif().get(ORIENTATION, 1) != 1
    return False
