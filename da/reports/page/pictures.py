"""Pictures of trained networks that lie beside the results, as parts of the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from da.ops.files import path_from
from da.ops.shown_text import visible

FOLDER = "analysis"
"""Where ``analyse`` and ``report --pictures`` put them, in a grid's folder."""

CAPTIONS = {
    "tsne": "t-SNE of the features, by domain and by class",
    "confusion": "what the classes of the target are taken for",
    "classes": "accuracy by class of the target",
    "activations": "what every layer puts out for both domains",
    "mmd": "maximum mean discrepancy of the domains at every layer",
    "a_distance": "proxy A-distance of the domains",
    "calibration": "calibration on the target",
    "wrong": "images of the target that are wrong, surest mistakes first",
}

WIDEST, PALETTE = 1000, 64
"""Pixels and colours of a picture on the page; the file itself has all of them."""

MOST_BYTES = 2_500_000
"""Of all pictures on the page; what comes after is a link to its file."""


@dataclass(frozen=True)
class Picture:
    """One picture: what it shows, its file as seen from the page, and its bytes as a data URI."""

    caption: str
    file: str
    data: str


@dataclass(frozen=True)
class Group:
    """The pictures of one comparison of networks: of a task, a method and a seed."""

    title: str
    pictures: list[Picture]


def groups(folders: tuple[Path, ...], out: Path) -> Iterator[Group]:
    """All pictures that lie in the folders, as far as they are known.

    Args:
        folders: of the grids.
        out: of the page.
    """
    left = MOST_BYTES
    places = [place for folder in folders for place in sorted((folder / FOLDER).glob("*"))]
    for place in [*(folder / FOLDER for folder in folders), *places]:
        shown = []
        for name, caption in CAPTIONS.items():
            file = place / f"{name}.png"
            if not file.is_file():
                continue
            data = data_uri(file) if left > 0 else ""
            left -= len(data)
            shown.append(Picture(caption, path_from(out, file), data))
        if shown:
            yield Group(visible(place.name), shown)


def data_uri(file: Path) -> str:
    """A picture at the size of a page; empty where the file is none that can be read."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            small = picture.convert("RGB")
    except OSError:
        return ""
    small.thumbnail((WIDEST, 10 * WIDEST))
    buffer = io.BytesIO()
    small.quantize(PALETTE).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def has_checkpoints(folders: tuple[Path, ...]) -> bool:
    """Whether any finished training of the grids kept its network."""
    return any(True for folder in folders for _ in folder.glob("cells/*/last.ckpt"))
