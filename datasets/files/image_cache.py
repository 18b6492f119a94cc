"""Decoded images on disk: made once, mapped into memory by all workers and all runs.

One file holds the images of one listing, in its order, as they come out of
:func:`.decoding.read_image`: raw bytes ``(H, W, 3)``, or, beyond a limit, JPEG at quality
95. Its name is a digest of the content of the source files, of how they are read, and of the
version of this file: what changes gets another name. Beside it a small index says where each image
begins, what its checksum is, and, written last, that the file is whole. An image is compared with
its checksum when it is first read; a damaged one is made again from its file.
"""

from __future__ import annotations

import logging
import mmap
import multiprocessing
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg

from da.ops.files import SPARE, cache_folder, exclusive_lock

from ..files.array_cache import Arrays, read_arrays, write_arrays
from ..files.content_hashes import content_hashes, digest
from ..files.decoder_complaints import decoder_complaints
from ..files.decoding import UnreadableImage, read_image
from ..files.image_sets import FileImages, Images, ImageSet
from ..files.parallel import in_parallel
from ..files.shared_flags import SharedFlags

log = logging.getLogger(__name__)

VERSION = 3
QUALITY = 95
"""Of re-encoded images."""
_COLUMNS = {"starts": np.int64, "lengths": np.int64, "sizes": np.int32, "checksums": np.uint32}
"""What the index holds of each image: first byte, bytes, height and width, CRC-32."""


class CachedImages(ImageSet):
    """Images of a cache file; it is mapped anew in every process.

    Args:
        path: of the file, without suffix.
        files: what it was made of.
    """

    def __init__(self, path: Path, files: FileImages) -> None:
        self.path = path
        self.files = files
        self.labels = files.labels
        self.classes = files.classes
        index = _index(path)
        if index is None:
            raise FileNotFoundError(path)
        self.encoded = bool(index["encoded"])
        self.starts: NDArray[np.int64] = index["starts"]
        self.lengths: NDArray[np.int64] = index["lengths"]
        self.sizes: NDArray[np.int32] = index["sizes"]
        self.checksums: NDArray[np.uint32] = index["checksums"]
        self._map: mmap.mmap | None = None
        # An image is compared with its checksum once in a run. The last flag: damage was reported.
        self._seen = SharedFlags(len(self) + 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_map": None}

    def images(self, indices: NDArray[np.int64]) -> Images:
        """See :meth:`ImageSet.images`; a list of views ``(3, H, W)``.

        Raises:
            UnreadableImage: an image is damaged, and its file is gone or another one.
        """
        return [self._image(int(i)) for i in indices]

    def names(self, indices: NDArray[np.int64]) -> list[str]:
        """Those of the files."""
        return self.files.names(indices)

    def _image(self, i: int) -> torch.Tensor:
        data = self._stored(i)
        if self._seen.flags[i] == 0:
            if zlib.crc32(data.numpy().data) == self.checksums[i]:
                self._seen.flags[i] = 1
            else:
                data = self._repaired(i)
        if self.encoded:
            return decode_jpeg(data.clone(), mode=ImageReadMode.RGB)
        height, width = self.sizes[i].tolist()
        return data.view(height, width, 3).permute(2, 0, 1)

    def _stored(self, i: int) -> torch.Tensor:
        """The bytes of an image."""
        if self._map is None:
            with self.path.with_suffix(".bin").open("rb") as file:
                # Copy-on-write, since a tensor can't be of read-only memory; nothing writes to it.
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        start, length = int(self.starts[i]), int(self.lengths[i])
        return torch.frombuffer(self._map, dtype=torch.uint8, count=length, offset=start)

    def _repaired(self, i: int) -> torch.Tensor:
        """The bytes of a damaged image from its file; they take the place of the damaged ones."""
        place = self.path.with_suffix(".bin")
        name = self.files.root / self.files.paths[i]
        damaged = f"image '{name}' can't be read: its copy in '{place}' is damaged, and its file"
        try:
            content, _ = _content(self.files, i, self.encoded)
        except UnreadableImage as error:
            raise UnreadableImage(f"{damaged} is no help: {error}") from error
        if zlib.crc32(content.data) != self.checksums[i]:
            raise UnreadableImage(
                f"{damaged} gives other pixels by now; remove '{place}', and it is built again"
            )
        if self._seen.set_first(-1):  # once for a run, however many are damaged
            log.warning(
                "'%s' is damaged at '%s': what is damaged in it is made again from the files",
                *(place, self.files.paths[i]),
            )
        try:
            with place.open("r+b") as file:
                file.seek(int(self.starts[i]))
                file.write(content.data)
            self._map = None  # whether it shows what was written is not said anywhere
        except OSError as error:
            log.warning("'%s' can't be mended (%s)", place, error.strerror)
        return torch.from_numpy(content).flatten()

    def compute_fingerprint(self) -> str:
        """That of the files, since the pixels are the same; re-encoded ones are not."""
        known = self.files.fingerprint()
        return digest(known, "jpeg", QUALITY, VERSION) if self.encoded else known


def cached(
    files: FileImages, folder: Path | None = None, limit_gb: float = 8.0, workers: int | None = None
) -> ImageSet:
    """The images of files from the cache, which is built where it is missing or out of date.

    Of several processes that need it one builds it while the others wait. Where the disk is too
    small or can't be written to, the files themselves are returned, with one line of notice.

    Args:
        files: of one domain, or of one published list of it.
        folder: of the cache; ``images`` in the user's cache folder where not given.
        limit_gb: decoded images beyond so many GB are kept re-encoded.
        workers: processes that build; one per core where not given.

    Raises:
        UnreadableImage: names the first image that can't be read; nothing is kept then.
    """
    place = cache_folder() / "images" if folder is None else folder
    name = digest(str(files.root.resolve()), len(files), tuple(files.reading))[:16]
    try:
        with exclusive_lock(place / f"{name}.lock"):
            return _opened(files, place, limit_gb, workers)
    except OSError as error:
        log.warning("no cache of decoded images in '%s' (%s)", place, error.strerror or error)
        return files


def _opened(files: FileImages, place: Path, limit_gb: float, workers: int | None) -> ImageSet:
    hashes = content_hashes(files.root, files.paths, workers)
    encoded = _bytes(files) > limit_gb * 2**30
    how = (tuple(files.reading), encoded)
    listing = digest(str(files.root.resolve()), files.paths, *how)[:16]
    name = digest(VERSION, hashes, *how)[:32]
    path = place / f"{listing}-{name}"
    if _index(path) is None:
        for old in place.glob(f"{listing}-*"):  # of files as they were, or of a killed build
            old.unlink(missing_ok=True)
        if not _build(path, files, encoded, workers):
            return files
    return CachedImages(path, files)


def _bytes(files: FileImages) -> int:
    """What the decoded images take; an estimate where sizes differ."""
    return round(
        len(files) * 3 * files.reading.size**2 * (4 / 3 if files.reading.keep_aspect else 1)
    )


def _build(path: Path, files: FileImages, encoded: bool, workers: int | None) -> bool:
    """Writes the file and then its index; says whether there was room for it."""
    size = _bytes(files) // (8 if encoded else 1)
    how = f"re-encoded as JPEG of quality {QUALITY}" if encoded else "decoded"
    free = shutil.disk_usage(path.parent).free
    what = f"cache of {len(files):,} {how} images, {size / 2**30:.2f} GB, in '{path.parent}'"
    if size + SPARE > free:
        log.warning("%s: only %.2f GB are free, so images are read from files", what, free / 2**30)
        return False
    log.info("building a %s (--data.cache false: none)", what)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        partial.write_bytes(b"")
        # Processes write by themselves, each image where there is room next: what they would send
        # to this one would be copied twice.
        into = _Into(files, encoded, partial, multiprocessing.Value("q", 0))
        jobs = [(into, i) for i in range(len(files))]
        made = list(in_parallel(_write, jobs, workers, "decoding images"))
        with partial.open("rb") as out:
            os.fsync(out.fileno())
        partial.replace(path.with_suffix(".bin"))
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _warn_of_damage(files, [complaint for *_, complaint in made])
    index: Arrays = {"encoded": np.array(encoded), "bytes": np.array(into.end.value)}
    columns = list(zip(*made, strict=True))[:-1]
    for (name, dtype), column in zip(_COLUMNS.items(), columns, strict=True):
        index[name] = np.array(column, dtype)
    write_arrays(path.with_suffix(".npz"), index)
    return True


class _Into(NamedTuple):
    """Where images are written: a file, and its end so far, which all processes share."""

    files: FileImages
    encoded: bool
    path: Path
    end: Any


def _warn_of_damage(files: FileImages, complaints: list[str]) -> None:
    """Names the first file that the decoder has complained about, and says how many there are."""
    damaged = [i for i, complaint in enumerate(complaints) if complaint]
    if damaged:
        first = damaged[0]
        log.warning(
            "%d of %d images are damaged inside, and parts of them come out grey or shifted, such "
            "as '%s' (%s); data check names all",
            *(len(damaged), len(files), files.root / files.paths[first], complaints[first]),
        )


def _write(into: _Into, i: int) -> tuple[int, int, tuple[int, int], int, str]:
    """Writes what is kept of one image; says what the index does, and what the decoder said."""
    with decoder_complaints() as complaints:
        content, shape = _content(into.files, i, into.encoded)
    with into.end.get_lock():
        start = into.end.value
        into.end.value += content.nbytes
    with into.path.open("r+b") as out:
        out.seek(start)
        out.write(content.data)
    return start, content.nbytes, shape, zlib.crc32(content.data), "; ".join(complaints)


def _content(files: FileImages, i: int, encoded: bool) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What is kept of one image, made from its file; its height and width."""
    pixels = read_image(files.root / files.paths[i], files.reading, fast=encoded)
    shape = (pixels.shape[1], pixels.shape[2])
    if not encoded:
        return np.ascontiguousarray(pixels.transpose(1, 2, 0)), shape
    image = torch.from_numpy(np.ascontiguousarray(pixels))
    return encode_jpeg(image, quality=QUALITY).numpy(), shape


def _index(path: Path) -> Arrays | None:
    """Where the images begin; None where there is no cache, or it is not whole."""
    place = path.with_suffix(".npz")
    try:
        index, _ = read_arrays(place)
        if path.with_suffix(".bin").stat().st_size != index["bytes"]:
            raise ValueError("its size is another")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s is broken (%s): making it again", place, error)
        return None
    return index
