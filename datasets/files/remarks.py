"""What is to be said of files that are read, or passed over: nobody would notice by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from da.errors import UserError

from .class_matching import NO_LABEL
from .content_hashes import content_hashes
from .file_names import BESIDE, HIDDEN
from .image_sets import FileImages
from .peculiarities import Peculiar, look_at_files, peculiarities

SIXTEEN_BITS = 65535
FEW = 4095
"""Grey values of a 16-bit file up to here, 12 bits, come out as 15 of 255 at most."""


def remarks_of_names(domain: str, passed_over: Counter[str]) -> list[str]:
    """Which files of a domain were passed over by their names; hidden ones are not worth a word."""
    shown = {ending: n for ending, n in passed_over.most_common() if ending != HIDDEN}
    if not shown:
        return []
    endings = ", ".join(f"{ending} {n:,}" for ending, n in shown.items())
    count = sum(shown.values())
    are, why = "files are", "they aren't called like images"
    if count == 1:
        are, why = "file is", "it isn't called like an image"
    if BESIDE in shown:
        why += f", or {'lies' if count == 1 else 'lie'} {BESIDE}"
    return [
        f"{domain}: {count:,} {are} passed over, as {why} ({endings}); convert, rename or move "
        "what is meant"
    ]


def remarks_of_files(domain: str, found: Peculiar) -> list[str]:
    """What the images of a domain come out as that nobody would expect, a line each."""
    said = []
    if found.frames:
        hold = f"{found.frames:,} files hold" if found.frames > 1 else "a file holds"
        such = f", such as '{found.first}'" if found.frames > 1 else f" ('{found.first}')"
        said.append(
            f"{domain}: {hold} several frames or pages, of which the first is read{such}; save "
            "others as files of their own"
        )
    if found.deep and found.brightest <= FEW:
        bits = found.brightest.bit_length()
        most = round(found.brightest / 257)
        said.append(
            f"{domain}: no grey image of 16 bits ({found.deep:,}) has a value above "
            f"{found.brightest:,}, which takes {bits} bits: they come out nearly black, {most} of "
            f"255 at most; multiply them by {SIXTEEN_BITS // max(found.brightest, 1)}"
        )
    return said


def remarks_of_two(a: str, one: FileImages, b: str, other: FileImages) -> list[str]:
    """Which images two domains have in common, by their content."""
    try:
        first, second = (content_hashes(files.root, files.paths) for files in (one, other))
    except UserError:  # a file is gone, which is said elsewhere
        return []
    both = set(first) & set(second)
    if not both:
        return []
    i = next(i for i, content in enumerate(first) if content in both)
    j = second.index(first[i])
    return [
        f"{sum(x in both for x in second):,} of {len(second):,} images of {b} are the same as "
        f"images of {a}, such as '{other.paths[j]}' and '{one.paths[i]}'"
    ]


def remarks_of_domains(
    sources: Sequence[str],
    target: str,
    files: Mapping[str, FileImages],
    passed_over: Mapping[str, Counter[str]],
) -> list[str]:
    """All that is to be said of the domains of a training, a line each."""
    said = []
    for domain, own in files.items():
        said += remarks_of_names(domain, passed_over[domain])
        said += remarks_of_files(domain, peculiarities(own))
        left_out = int((own.labels == NO_LABEL).sum())
        if domain in sources and left_out:
            said.append(f"{domain}: {left_out:,} images have no label, and are not of the source")
    for domain in sources:
        if domain != target:
            said += remarks_of_two(domain, files[domain], target, files[target])
    return said


def remarks_of_folder(
    called: str, root: Path, names: Sequence[str], passed_over: Counter[str]
) -> list[str]:
    """All that is to be said of image files that are to be predicted, a line each.

    Args:
        called: what the user called the folder or the file.
        root: folder that the names are relative to.
        names: of the files.
        passed_over: the other files, see :class:`Found`.
    """
    return [
        *remarks_of_names(called, passed_over),
        *remarks_of_files(called, look_at_files(root, names)),
    ]
