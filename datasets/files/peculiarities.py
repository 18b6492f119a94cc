"""What is peculiar about image files: several frames, few of the bits that they could hold."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from da.errors import UserError
from da.ops.files import cache_folder
from da.ops.sealed_json import parse_sealed, write_sealed

from .image_sets import FileImages
from .parallel import in_parallel

log = logging.getLogger(__name__)

_JPEG = b"\xff\xd8"


class Peculiar(NamedTuple):
    """What is peculiar about one file, or about the files of a domain.

    Attributes:
        frames: of how many files only the first of several frames or pages is read.
        first: the name of the first of these.
        deep: how many grey files have 16 bits.
        brightest: the highest value in any of those.
    """

    frames: int = 0
    first: str = ""
    deep: int = 0
    brightest: int = 0


def look_at(image: Image.Image) -> Peculiar:
    """What is peculiar about an open image; of 16-bit grey all pixels are read."""
    several = image.format not in ("JPEG", "MPO") and getattr(image, "n_frames", 1) > 1
    if not image.mode.startswith("I"):
        return Peculiar(int(several))
    return Peculiar(int(several), deep=1, brightest=int(np.asarray(image).max()))


def _look(root: Path, path: str) -> Peculiar:
    """That of a file; nothing of one that can't be read, which is said elsewhere."""
    try:
        with (root / path).open("rb") as file:
            if file.read(2) == _JPEG:
                return Peculiar()
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(file) as image:
                    return look_at(image)
    except Exception:  # whatever a broken file provokes in a decoder
        return Peculiar()


def sum_up(looked: Mapping[str, Peculiar]) -> Peculiar:
    """What is peculiar about several files, by their names."""
    return Peculiar(
        sum(one.frames for one in looked.values()),
        next((name for name, one in looked.items() if one.frames), ""),
        sum(one.deep for one in looked.values()),
        max((one.brightest for one in looked.values()), default=0),
    )


def peculiarities(files: FileImages) -> Peculiar:
    """What is peculiar about files; looked at once, and kept until one of them changes."""
    try:
        path = cache_folder() / "remarks" / f"{files.fingerprint()}.json"
    except UserError:  # a file is gone or can't be read, which is said where it is wanted
        return look_at_files(files.root, files.paths)
    try:
        content, sealed = parse_sealed(path.read_bytes())
        if sealed:
            return Peculiar(**content["files"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is broken (%s): looking at all images again", path, error)
    found = look_at_files(files.root, files.paths)
    try:
        write_sealed(path, {"files": found._asdict()}, indent=None)
    except OSError as error:
        log.warning("%s can't be written (%s): it is not kept", path, error.strerror)
    return found


def look_at_files(root: Path, names: Sequence[str]) -> Peculiar:
    """What is peculiar about the files of these names in a folder; nothing is kept."""
    jobs = [(root, name) for name in names]
    looked = in_parallel(_look, jobs, None, "looking at images", show=len(jobs) > 5000)
    return sum_up(dict(zip(names, looked, strict=True)))
