"""Augmentation and normalisation of whole batches, each sample by its own random numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, down: NDArray[np.int64], right: NDArray[np.int64], limit: int) -> Tensor:
    """Moves each image by whole pixels; what comes in repeats the edge.

    Args:
        images: ``(B, C, H, W)`` float32.
        down: ``(B,)`` int64 in ``[-limit, limit]``.
        right: ``(B,)`` int64 in ``[-limit, limit]``.
        limit: the largest shift.
    """
    padded = functional.pad(images, (limit, limit, limit, limit), mode="replicate").numpy()
    # All (2 limit + 1)^2 windows are views; indexing copies one per image, whole rows at a time.
    windows = sliding_window_view(padded, images.shape[2:], axis=(2, 3))
    return torch.from_numpy(windows[np.arange(len(images)), :, limit - down, limit - right])


def normalise(
    images: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    contrast: NDArray[np.float64] | None = None,
    brightness: NDArray[np.float64] | None = None,
) -> Tensor:
    """``(x / 255 - mean) / std``, with the colour change folded into the same two operations.

    With v = x / 255, contrast a and brightness b, the image becomes a (v - 1/2) + 1/2 + b first; it
    isn't clipped to [0, 1].

    Args:
        images: ``(B, C, H, W)`` uint8, or float32 with the same range; float32 is overwritten.
        mean: per channel, of images in [0, 1].
        std: per channel.
        contrast: ``(B,)`` float64 factors, or None for 1.
        brightness: ``(B,)`` float64 offsets, or None for 0.
    """
    a = np.ones(1) if contrast is None else contrast
    b = np.zeros(1) if brightness is None else brightness
    scale = a[:, None] / (255 * np.array(std))
    offset = ((1 - a[:, None]) / 2 + b[:, None] - np.array(mean)) / np.array(std)
    return images.float().mul_(_maps(scale)).add_(_maps(offset))


def _maps(values: NDArray[np.float64]) -> Tensor:
    """``(B, C)`` float64 as ``(B, C, 1, 1)`` float32."""
    return torch.from_numpy(values.astype(np.float32))[:, :, None, None]


class Transform(ABC):
    """What happens to images between the set and the network.

    Attributes:
        draws: random numbers in [0, 1) that each sample takes in training.
    """

    draws: int

    @abstractmethod
    def train(self, images: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """Augments and normalises ``(B, C, H, W)`` uint8 by ``(B, draws)`` numbers."""

    @abstractmethod
    def evaluate(self, images: Tensor) -> Tensor:
        """Normalises ``(B, C, H, W)`` uint8 to float32 without chance."""


class ShiftAndJitter(Transform):
    """Random shifts, contrast and brightness: for small images whose sides mean something.

    Args:
        mean: per channel.
        std: per channel.
        pixels: largest shift.
        contrast: largest relative change of the contrast.
        brightness: largest change of the brightness, in [0, 1].
    """

    draws = 4

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        pixels: int = 2,
        contrast: float = 0.2,
        brightness: float = 0.1,
    ) -> None:
        self.mean = mean
        self.std = std
        self.pixels = pixels
        self.contrast = contrast
        self.brightness = brightness

    def train(self, images: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.train`."""
        moves = np.floor(draws[:, :2] * (2 * self.pixels + 1)).astype(np.int64) - self.pixels
        sway = 2 * draws[:, 2:] - 1
        return normalise(
            shift(images.float(), moves[:, 0], moves[:, 1], self.pixels),
            self.mean,
            self.std,
            1 + self.contrast * sway[:, 0],
            self.brightness * sway[:, 1],
        )

    def evaluate(self, images: Tensor) -> Tensor:
        """See :meth:`Transform.evaluate`."""
        return normalise(images, self.mean, self.std)


_TRIES = 10


def crop_boxes(
    draws: NDArray[np.float64],
    side: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> NDArray[np.int64]:
    """Random boxes of square images, drawn as in torchvision's ``RandomResizedCrop``.

    The area is uniform and the ratio of the sides log-uniform (Szegedy et al. 2015, Going deeper
    with convolutions, section 6). The first of ten boxes that fits into the image is placed
    uniformly; where none fits, the box is the whole image.

    Args:
        draws: ``(B, 22)`` float64 in [0, 1).
        side: of the images, in pixels.
        scale: smallest and largest area, relative to the image's.
        ratio: smallest and largest width / height.

    Returns:
        ``(B, 4)`` int64: top, left, height, width.
    """
    areas = side**2 * (scale[0] + (scale[1] - scale[0]) * draws[:, :_TRIES])
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * draws[:, _TRIES : 2 * _TRIES])
    sides = np.rint(np.sqrt(np.stack([areas / ratios, areas * ratios], axis=2))).astype(np.int64)
    fits = ((sides > 0) & (sides <= side)).all(axis=2)
    chosen = sides[np.arange(len(draws)), fits.argmax(axis=1)]
    boxes = np.where(fits.any(axis=1, keepdims=True), chosen, side)
    places = np.floor(draws[:, 2 * _TRIES :] * (side - boxes + 1)).astype(np.int64)
    return np.hstack([places, boxes])


class CropAndFlip(Transform):
    """Random resized crops and horizontal flips; in evaluation the centre of the image.

    Crops are resized bilinearly with antialiasing, in float32.

    Args:
        mean: per channel.
        std: per channel.
        size: side of the square that comes out, at most that of the images.
        flip: mirror half of the images; leave it out where left and right mean something.
    """

    draws = 2 * _TRIES + 3

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], size: int, flip: bool = True
    ) -> None:
        self.mean = mean
        self.std = std
        self.size = size
        self.flip = flip

    def train(self, images: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.train`; the images are square."""
        out = torch.empty(*images.shape[:2], self.size, self.size)
        boxes = crop_boxes(draws[:, :-1], images.shape[-1])
        for i, (top, left, height, width) in enumerate(boxes.tolist()):
            crop = images[i : i + 1, :, top : top + height, left : left + width].float()
            out[i] = functional.interpolate(
                crop, (self.size, self.size), mode="bilinear", antialias=True
            )[0]
            if self.flip and draws[i, -1] < 0.5:
                out[i] = out[i].flip(-1)
        return normalise(out, self.mean, self.std)

    def evaluate(self, images: Tensor) -> Tensor:
        """See :meth:`Transform.evaluate`."""
        first = (images.shape[-1] - self.size) // 2
        inside = slice(first, first + self.size)
        return normalise(images[:, :, inside, inside], self.mean, self.std)
