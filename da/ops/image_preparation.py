"""How image files become what a network takes, as plain values: kept with networks, not with data.

A checkpoint and an exported network say by it how their images are to look, wherever the data that
they were trained on are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from da.errors import UserError

#: What is the same for all: the resize, the range before normalisation, and the order of channels.
FIXED = {"interpolation": "bilinear", "antialias": True, "range": [0.0, 1.0], "channels": "RGB"}


class ImagePreparation(NamedTuple):
    """Decoded as RGB, resized bilinearly with antialiasing, cropped in the centre, normalised.

    Attributes:
        resize: side of the square that images are resized to, or of the shorter side; pixels.
        image_size: side of the square in the centre that the network sees, in pixels.
        mean: of the normalisation, per channel, of images in [0, 1].
        std: of the normalisation, per channel.
        keep_aspect: resize the shorter side to ``resize`` instead of both.
        alpha: of images with transparency: ``drop`` the channel, or put them on ``white``.
        exif: turn images as their EXIF orientation says.
    """

    resize: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    keep_aspect: bool = False
    alpha: Literal["drop", "white"] = "drop"
    exif: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it, with what is the same for all.

        >>> one = ImagePreparation(256, 224, (0.5,) * 3, (0.5,) * 3)
        >>> preparation_of(one.as_dict(), "a.onnx") == one
        True
        """
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in self._asdict().items()}
        return {**own, **FIXED}


def preparation_of(content: object, path: str) -> ImagePreparation:
    """The preparation that a file holds, see :meth:`ImagePreparation.as_dict`.

    Args:
        content: what came out of the file.
        path: of it, for the error.

    Raises:
        UserError: where it is not one, or of a kind that this version does not know.
    """
    try:
        if not isinstance(content, Mapping):
            raise TypeError("no mapping")
        own = {name: content[name] for name in ImagePreparation._fields}
        own |= {name: tuple(float(x) for x in own[name]) for name in ("mean", "std")}
        own |= {name: int(own[name]) for name in ("resize", "image_size")}
        if any(content.get(name) != value for name, value in FIXED.items()):
            raise ValueError("another resize")
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"'{path}' does not say in a way that this version knows how images are prepared; "
            "use the version that wrote it"
        ) from None
    return ImagePreparation(**own)
