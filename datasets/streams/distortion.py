"""Strong augmentation of single images: RandAugment and Cutout, from numbers that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torchvision.transforms.v2.functional as T
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode

#: Distortions of an image that follow one another.
OPERATIONS = 2
#: Numbers in [0, 1) that an image takes: which distortion, how much and in which direction, for
#: each; then size and place of the square that is cut out.
DRAWS = 3 * OPERATIONS + 3
#: Side of the square that is cut out, at most, as a share of the image's.
CUTOUT = 0.5

#: Those of RandAugment (Cubuk et al. 2020, arXiv:1909.13719) in the ranges of FixMatch (Sohn et al.
#: 2020, table 12): s from 0 to 1 is the strength, sign -1 or 1. Where its factors only take away
#: (0.05 to 0.95), ours also add (1.05 to 1.95), as RandAugment's own do.
DISTORTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "identity": lambda x, s, sign: x,
    "autocontrast": lambda x, s, sign: T.autocontrast(x),
    "equalize": lambda x, s, sign: T.equalize(x),
    "brightness": lambda x, s, sign: T.adjust_brightness(x, 1 + 0.95 * s * sign),
    "contrast": lambda x, s, sign: T.adjust_contrast(x, 1 + 0.95 * s * sign),
    "saturation": lambda x, s, sign: T.adjust_saturation(x, 1 + 0.95 * s * sign),
    "sharpness": lambda x, s, sign: _sharpen(x, 1 + 0.95 * s * sign),
    "posterize": lambda x, s, sign: T.posterize(x, 8 - round(4 * s)),
    "solarize": lambda x, s, sign: _solarise(x, round(256 * (1 - s))),
    "rotate": lambda x, s, sign: _turn_or_shear(x, angle=30 * s * sign),
    "shear_x": lambda x, s, sign: _turn_or_shear(x, right=0.3 * s * sign),
    "shear_y": lambda x, s, sign: _turn_or_shear(x, down=0.3 * s * sign),
    "translate_x": lambda x, s, sign: _shift(x, right=round(0.3 * s * sign * x.shape[2])),
    "translate_y": lambda x, s, sign: _shift(x, down=round(0.3 * s * sign * x.shape[1])),
}
GREY = 128


def distort_strongly(image: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """An image after two random distortions, a random square of it grey.

    Args:
        image: ``(C, H, W)`` uint8; it is left as it is.
        draws: ``(DRAWS,)`` float64 in [0, 1).
    """
    distortions = list(DISTORTIONS.values())
    for which, strength, direction in draws[: 3 * OPERATIONS].reshape(OPERATIONS, 3).tolist():
        distort = distortions[int(which * len(distortions))]
        image = distort(image, strength, 1.0 if direction < 0.5 else -1.0)
    return _cut_square(image.clone(), *draws[3 * OPERATIONS :].tolist())


def _solarise(image: Tensor, threshold: int) -> Tensor:
    """Inverts what is at least as bright; 256, which torchvision refuses, inverts nothing."""
    return image if threshold > 255 else T.solarize(image, threshold)


def _cut_square(image: Tensor, size: float, down: float, right: float) -> Tensor:
    """Greys a square in place (Cutout, DeVries & Taylor 2017); its centre lies in the image."""
    height, width = image.shape[1:]
    side = round(size * CUTOUT * min(height, width))
    top, left = round(down * height - side / 2), round(right * width - side / 2)
    image[:, max(top, 0) : top + side, max(left, 0) : left + side] = GREY
    return image


def _sharpen(image: Tensor, factor: float) -> Tensor:
    """Blends each pixel with the mean around it, as Pillow's ``ImageEnhance.Sharpness``.

    Of the nine pixels the middle one counts five times; the edge of the image stays as it is. On
    integers, which is several times as fast as torchvision's convolution.
    """
    pixels = image.numpy().astype(np.int16)
    inner = pixels[:, 1:-1, 1:-1]
    if not inner.size:
        return image
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / np.float32(13)
    blended = smooth + np.float32(factor) * (inner - smooth)
    out = image.clone()
    out.numpy()[:, 1:-1, 1:-1] = blended.round().clip(0, 255)
    return out


def _shift(image: Tensor, right: int = 0, down: int = 0) -> Tensor:
    """Moves an image by whole pixels; what comes in is grey."""
    height, width = image.shape[1:]
    out = torch.full_like(image, GREY)
    out[:, max(down, 0) : height + down, max(right, 0) : width + right] = image[
        :, max(-down, 0) : height - down, max(-right, 0) : width - right
    ]
    return out


def _turn_or_shear(
    image: Tensor, angle: float = 0.0, right: float = 0.0, down: float = 0.0
) -> Tensor:
    """Turns an image by degrees, or shears it by pixels per pixel; what comes in is grey."""
    return T.affine(
        image,
        angle=angle,
        translate=[0, 0],
        scale=1.0,
        shear=[float(np.degrees(np.arctan(share))) for share in (right, down)],
        interpolation=InterpolationMode.BILINEAR,
        fill=[float(GREY)] * image.shape[0],
    )
