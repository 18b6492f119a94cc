"""How an image file becomes pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from da.errors import UserError


class Reading(NamedTuple):
    """How files are decoded; results and caches depend on all of it.

    Attributes:
        size: side of the square that images are resized to, or of the shorter side.
        keep_aspect: resize the shorter side to ``size`` instead of both.
        alpha: ``drop`` the channel, or put the image on ``white``.
        exif: turn images as their EXIF orientation says.
    """

    size: int
    keep_aspect: bool = False
    alpha: Literal["drop", "white"] = "drop"
    exif: bool = False


class UnreadableImage(UserError):
    """An image that can't be read, by its path.

    Raised in a worker of a DataLoader, it is made again in the main process from the worker's whole
    traceback, which ends with the message: that alone is kept.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].rstrip())


def read_image(path: Path, reading: Reading) -> NDArray[np.uint8]:
    """Decodes a file of any mode and resizes it, ``(3, H, W)`` uint8.

    Grey is repeated, palettes and CMYK are converted, 16 bits are scaled to 8 (by 257; Pillow
    alone would saturate). An alpha channel is dropped and EXIF rotation is not applied, as in
    torchvision's ``ImageFolder``, unless ``reading`` says otherwise.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = _rgb(ImageOps.exif_transpose(file) if reading.exif else file, reading)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    size = _size(image.size, reading)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _size(size: tuple[int, int], reading: Reading) -> tuple[int, int]:
    """Width and height after the resize, rounded down as in torchvision's ``Resize``."""
    if not reading.keep_aspect:
        return reading.size, reading.size
    short = min(size)
    width, height = (max(reading.size, reading.size * side // short) for side in size)
    return width, height


def _rgb(image: Image.Image, reading: Reading) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point images have no fixed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("grey values beyond 16 bits; save it with 8 or 16 bits")
        image = Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode == "RGBA" and reading.alpha == "white":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def unreadable(path: Path, error: Exception) -> UnreadableImage:
    """The user's error of what a decoder or the file system says of a file."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    reason = " ".join(text.split())
    return UnreadableImage(f"image '{path}' can't be read: {reason}; repair or remove it")
