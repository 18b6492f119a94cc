"""Augmentation and normalisation of whole batches, each sample by its own random numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from ..files.decoding import resized
from ..files.image_sets import Images
from .distortion import DRAWS as STRONG_DRAWS
from .distortion import distort_strongly


def shift_images(
    images: Tensor, down: NDArray[np.int64], right: NDArray[np.int64], limit: int
) -> Tensor:
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
    scale, offset = (x.to(images.device) for x in _factors(mean, std, contrast, brightness))
    return images.float().mul_(scale).add_(offset)


def _factors(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    contrast: NDArray[np.float64] | None = None,
    brightness: NDArray[np.float64] | None = None,
) -> tuple[Tensor, Tensor]:
    """What pixels are multiplied by, and what is then added, ``(B or 1, C, 1, 1)`` float32."""
    a = np.ones(1) if contrast is None else contrast
    b = np.zeros(1) if brightness is None else brightness
    scale = a[:, None] / (255 * np.array(std))
    offset = ((1 - a[:, None]) / 2 + b[:, None] - np.array(mean)) / np.array(std)
    return _maps(scale), _maps(offset)


def _maps(values: NDArray[np.float64]) -> Tensor:
    """``(B, C)`` float64 as ``(B, C, 1, 1)`` float32."""
    return torch.from_numpy(values.astype(np.float32))[:, :, None, None]


class Transform(ABC):
    """What happens to images between the set and the network.

    In two parts, so that little has to go from the processes that make batches to the one that
    trains: pixels are still bytes where ``finish``, in the latter, has yet to make numbers of them.

    Attributes:
        draws: random numbers in [0, 1) that each sample takes in training.
    """

    draws: int

    @property
    def strong_draws(self) -> int:
        """Random numbers that each sample takes where it is augmented strongly."""
        return self.draws + STRONG_DRAWS

    @abstractmethod
    def augment(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """Augments B uint8 images by ``(B, draws)`` numbers, for ``finish``."""

    @abstractmethod
    def augment_strongly(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """As ``augment``, then distorted further; by ``(B, strong_draws)`` numbers."""

    @abstractmethod
    def prepare(self, images: Images) -> Tensor:
        """What of B uint8 images is evaluated, for ``finish``, without chance."""

    def finish(self, images: Tensor, empty: Callable[..., Tensor] = torch.empty) -> Tensor:
        """Normalises images that are not yet; ``(B, C, H, W)`` float32.

        Args:
            images: of ``augment`` or ``prepare``, on any device.
            empty: makes the memory of the result on the CPU from its shape.
        """
        return images

    def train(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """Augments and normalises B uint8 images by ``(B, draws)`` numbers.

        Returns:
            ``(B, C, H, W)`` float32.
        """
        return self.finish(self.augment(images, draws))

    def evaluate(self, images: Images) -> Tensor:
        """Normalises B uint8 images to ``(B, C, H, W)`` float32 without chance."""
        return self.finish(self.prepare(images))


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

    def augment(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.augment`; normalised already."""
        images = torch.stack(images) if isinstance(images, list) else images
        moves = np.floor(draws[:, :2] * (2 * self.pixels + 1)).astype(np.int64) - self.pixels
        sway = 2 * draws[:, 2:] - 1
        return normalise(
            shift_images(images.float(), moves[:, 0], moves[:, 1], self.pixels),
            self.mean,
            self.std,
            1 + self.contrast * sway[:, 0],
            self.brightness * sway[:, 1],
        )

    def augment_strongly(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.augment_strongly`; normalised already."""
        strong = [
            distort_strongly(x, d) for x, d in zip(images, draws[:, self.draws :], strict=True)
        ]
        return self.augment(strong, draws[:, : self.draws])

    def prepare(self, images: Images) -> Tensor:
        """See :meth:`Transform.prepare`; normalised already."""
        images = torch.stack(images) if isinstance(images, list) else images
        return normalise(images, self.mean, self.std)


def _stack(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Images ``(C, H, W)`` as ``(B, C, H, W)`` uint8, of a worker in memory that is shared."""
    shape = (len(images), *images[0].shape)
    out = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        out = out.new_empty(shape)
    else:  # as in torch's own collate function: what is made elsewhere would be copied once more
        storage = torch.UntypedStorage._new_shared(math.prod(shape), device="cpu")
        out = out.set_(storage).view(shape)
    for place, image in zip(out.numpy(), images, strict=True):
        place[...] = image
    return out


Crop = Literal["random_resized", "random", "centre"]
_TRIES = 10


def draw_crop_boxes(
    draws: NDArray[np.float64],
    sides: int | NDArray[np.int64],
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> NDArray[np.int64]:
    """Random boxes of images, drawn as in torchvision's ``RandomResizedCrop``.

    The area is uniform and the ratio of the sides log-uniform (Szegedy et al. 2015, Going deeper
    with convolutions, section 6). The first of ten boxes that fits into the image is placed
    uniformly; where none fits, the box is the largest in the centre whose ratio is allowed.

    Args:
        draws: ``(B, 22)`` float64 in [0, 1).
        sides: of square images, in pixels, or ``(B, 2)`` int64 heights and widths.
        scale: smallest and largest area, relative to the image's.
        ratio: smallest and largest width / height.

    Returns:
        ``(B, 4)`` int64: top, left, height, width.
    """
    size = np.broadcast_to(np.asarray(sides), (len(draws), 2))
    whole = size.prod(axis=1, keepdims=True)
    areas = whole * (scale[0] + (scale[1] - scale[0]) * draws[:, :_TRIES])
    low, high = np.log(ratio)
    ratios = np.exp(low + (high - low) * draws[:, _TRIES : 2 * _TRIES])
    boxes = np.rint(np.sqrt(np.stack([areas / ratios, areas * ratios], axis=2))).astype(np.int64)
    fits = ((boxes > 0) & (boxes <= size[:, None])).all(axis=2)
    first = boxes[np.arange(len(draws)), fits.argmax(axis=1)]
    height, width = size[:, 0], size[:, 1]
    most = np.stack([np.rint(width / ratio[0]), np.rint(height * ratio[1])], 1).astype(np.int64)
    found = fits.any(axis=1, keepdims=True)
    boxes = np.where(found, first, np.minimum(size, most))
    room = size - boxes
    places = np.where(found, np.floor(draws[:, 2 * _TRIES :] * (room + 1)), room // 2)
    return np.hstack([places.astype(np.int64), boxes])


class CropAndFlip(Transform):
    """Crops and horizontal flips; in evaluation the centre of the image.

    Args:
        mean: per channel.
        std: per channel.
        size: side of the square that comes out, at most that of the images.
        flip: mirror half of the images; leave it out where left and right mean something.
        crop: in training: ``random_resized`` boxes (see :func:`draw_crop_boxes`) that are resized
            bilinearly with antialiasing, a square of ``size`` at a ``random`` place, or in the
            ``centre``.
    """

    draws = 2 * _TRIES + 3

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        size: int,
        flip: bool = True,
        crop: Crop = "random_resized",
    ) -> None:
        self.mean = mean
        self.std = std
        self.size = size
        self.flip = flip
        self.crop = crop

    def augment(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.augment`; ``(B, C, H, W)`` uint8."""
        crops = []
        for i, (top, left, height, width) in enumerate(self._boxes(images, draws).tolist()):
            part = images[i][:, top : top + height, left : left + width]
            image = resized(part, self.size, self.size)
            pixels = image.numpy()
            crops.append(pixels[..., ::-1] if self.flip and draws[i, -1] < 0.5 else pixels)
        return _stack(crops)

    def finish(self, images: Tensor, empty: Callable[..., Tensor] = torch.empty) -> Tensor:
        """See :meth:`Transform.finish`."""
        if images.dtype != torch.uint8:
            return images
        if images.device.type != "cpu":
            return normalise(images, self.mean, self.std)
        scale, offset = (factor[0].numpy() for factor in _factors(self.mean, self.std))
        out = empty(*images.shape)
        # By numpy, in one thread: torch's others would wait for the processes that make batches.
        # By image, since one stays in the processor's cache.
        for place, image in zip(out.numpy(), images.numpy(), strict=True):
            place[...] = image
            place *= scale
            place += offset
        return out

    def _boxes(self, images: Images, draws: NDArray[np.float64]) -> NDArray[np.int64]:
        sides = np.array([image.shape[1:] for image in images])
        if self.crop == "random_resized":
            return draw_crop_boxes(draws[:, :-1], sides)
        room = sides - self.size
        shares = draws[:, 2 * _TRIES : -1]
        places = np.floor(shares * (room + 1)) if self.crop == "random" else room // 2
        return np.hstack([places.astype(np.int64), np.full_like(sides, self.size)])

    def augment_strongly(self, images: Images, draws: NDArray[np.float64]) -> Tensor:
        """See :meth:`Transform.augment_strongly`; ``(B, C, H, W)`` uint8."""
        weak = self.augment(images, draws[:, : self.draws])
        strong = [distort_strongly(x, d) for x, d in zip(weak, draws[:, self.draws :], strict=True)]
        return _stack([image.numpy() for image in strong])

    def prepare(self, images: Images) -> Tensor:
        """See :meth:`Transform.prepare`; ``(B, C, H, W)`` uint8."""
        return _stack([self._centre(image).numpy() for image in images])

    def _centre(self, image: Tensor) -> Tensor:
        top, left = ((side - self.size) // 2 for side in image.shape[1:])
        return image[:, top : top + self.size, left : left + self.size]
