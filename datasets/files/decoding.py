"""How an image file becomes pixels."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg

from da.errors import UserError

ORIENTATION = 0x0112
_END_OF_JPEG = b"\xff\xd9"


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


def read_image(path: Path, reading: Reading, fast: bool = False) -> NDArray[np.uint8]:
    """Decodes a file of any mode and resizes it, ``(3, H, W)`` uint8.

    Grey is repeated, palettes and CMYK are converted, 16 bits are scaled to 8 (by 257; Pillow
    alone would saturate). An alpha channel is dropped and EXIF rotation is not applied, as in
    torchvision's ``ImageFolder``, unless ``reading`` says otherwise. The resize is bilinear with
    antialiasing; it differs from Pillow's by one level at most.

    Args:
        path: of the file.
        reading: what to make of it.
        fast: let the decoder of JPEG halve images of four times the size asked for or more, down
            to twice that size. Pixels then differ by a few levels.

    Raises:
        UnreadableImage: names the file and says what is wrong with it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            pixels = _decoded(path.read_bytes(), reading, fast)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error
    width, height = _size((pixels.shape[2], pixels.shape[1]), reading)
    return resized(pixels, height, width).numpy()


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """An image ``(3, H, W)`` uint8 as ``(3, height, width)``, bilinear with antialiasing.

    It comes out in memory pixel by pixel, as decoders have it.
    """
    if image.shape[1:] == (height, width):
        return image
    # Only in this layout, which torch does not see in one image by itself, a fast kernel is taken.
    # Part of an image is copied into it, by numpy: in one thread, and sooner.
    pixels = torch.from_numpy(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    one = pixels[None].permute(0, 3, 1, 2)
    return functional.interpolate(one, (height, width), mode="bilinear", antialias=True)[0]


def _decoded(content: bytes, reading: Reading, fast: bool) -> Tensor:
    """The pixels of a file, ``(3, H, W)`` uint8."""
    with Image.open(io.BytesIO(content)) as file:
        turned = reading.exif and file.getexif().get(ORIENTATION, 1) != 1
        plain = file.format == "JPEG" and file.mode in ("RGB", "L") and not turned
        # torchvision's decoder takes two thirds of the time of Pillow's. What is missing of a file
        # that was cut short it fills with grey, so that such a file is left to Pillow.
        halve = fast and min(file.size) >= 4 * reading.size  # below that it isn't faster
        if plain and not halve and content.rstrip(b"\0").endswith(_END_OF_JPEG):
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            with suppress(RuntimeError):  # what it can't decode, Pillow may, or say why not
                return decode_jpeg(data, mode=ImageReadMode.RGB)
        if halve:
            file.draft("RGB", (2 * reading.size, 2 * reading.size))
        image = _rgb(ImageOps.exif_transpose(file) if reading.exif else file, reading)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


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
    if isinstance(error, UnidentifiedImageError):  # it names an object in memory
        text = "it is no image, or its beginning is missing"
    reason = " ".join(text.split())
    return UnreadableImage(f"image '{path}' can't be read: {reason}; repair or remove it")
