"""What `data check` says of a set, and whether all is well."""

from __future__ import annotations

import importlib
from typing import Any

MOST = 200
"""So many bad files are named; the rest are counted."""


def files(cls: Any, root: str | None, workers: int | None, decode: bool) -> tuple[str, bool]:
    """Checks a set that is read from files.

    Args:
        cls: its class.
        root: its folder.
        workers: processes; one per core by default.
        decode: decode every image.

    Returns:
        The text, and whether all is well.
    """
    report = importlib.import_module("datasets.files.checking").check(cls, root, workers, decode)
    lines = [line for part in report.parts if part.listing for line in _part(part, decode)]
    lines += [f"note: {text}" for text in report.duplicates()]
    lines += [f"note: {text}" for text in report.absent()]
    bad, problems = report.bad, report.problems()
    lines += [f"bad: {text}" for text in bad[:MOST]]
    if len(bad) > MOST:
        lines.append(f"bad: and {len(bad) - MOST:,} more")
    lines += [f"differs: {text}" for text in problems]
    total = sum(len(part.listing.paths) for part in report.parts if part.listing)
    how = "decoded" if decode else "listed, none decoded"
    said = [f"{total:,} images {how}"]
    said.append(f"{len(bad):,} can't be read" if bad else "all can be read" if decode else "")
    if problems:
        said.append(f"{len(problems)} differences from what is expected")
    elif any(part.published is not None for part in report.parts):
        said.append("counts as published")
    ok = not bad and not problems
    lines.append(("all is well: " if ok else "not well: ") + ", ".join(filter(None, said)))
    return "\n".join(lines), ok


def _part(part: Any, decode: bool) -> list[str]:
    found, counts = part.listing, part.counts
    published = "" if part.published is None else f" (published {part.published:,})"
    lines = [
        f"{part.name}: {len(found.paths):,} images{published}, {len(found.classes)} classes of "
        f"{counts.min():,} to {counts.max():,}",
        f"  found: {found.layout} in {found.root}",
    ]
    if found.passed_over:
        lines.append(f"  passed over: {found.passed_over:,} files that aren't called like images")
    if decode and part.kinds:
        kinds = ", ".join(f"{name} {n:,}" for name, n in part.kinds.most_common())
        (w, h), (wide, high) = part.smallest, part.largest
        turned = f"{part.turned:,} with" if part.turned else "none with"
        lines.append(
            f"  {kinds}; {w} to {wide} pixels wide, {h} to {high} high; {turned} EXIF rotation"
        )
    empty = [found.classes[k] for k in range(len(counts)) if counts[k] == 0]
    if empty:
        lines.append(f"  without images: {', '.join(empty)}")
    if decode:
        lines.append(f"  manifest sha256 {part.manifest[:16] or 'none, files are missing'}")
    return lines


def arrays(
    sets: dict[str, dict[str, Any]], published: dict[str, int] | None = None
) -> tuple[str, bool]:
    """Counts of sets in memory, per domain and split, with a checksum for each.

    Args:
        sets: image sets by domain and split.
        published: counts by ``"domain/split"``, where there are any.

    Returns:
        The text, and whether all counts are those that are published.
    """
    import numpy as np

    lines = []
    differ = []
    for domain, splits in sets.items():
        for split, data in splits.items():
            counts = np.bincount(data.labels, minlength=len(data.classes))
            lines.append(
                f"{domain:12} {split:10} {len(data):7} images  {len(data.classes)} classes of "
                f"{counts.min()} to {counts.max()}  sha256 {data.fingerprint()[:16]}"
            )
            empty = [data.classes[k] for k in np.flatnonzero(counts == 0)]
            if empty:
                lines.append(f"{'':12} {'':10} without images: {', '.join(empty)}")
            expected = (published or {}).get(f"{domain}/{split}", len(data))
            if expected != len(data):
                differ.append(
                    f"differs: {domain}/{split}: {len(data):,} images, published are {expected:,}"
                )
    return "\n".join(lines + differ), not differ


def published_arrays(cls: Any, root: str | None) -> tuple[str, bool]:
    """As :func:`arrays` of a set with published lists, one domain after the other.

    Each is loaded as a target, which is never a subset. A domain that is not there is a note where
    no published task needs it.
    """
    from da.errors import UserError

    lines, well, found = [], True, 0
    for domain in cls.domains:
        other = next(name for name in cls.domains if name != domain)
        module = cls(source=other, target=domain, root=root)
        try:
            sets = {split: module.load(domain, split) for split in ("train", "test")}
        except UserError as error:
            symbol = cls.symbols.get(domain, domain)
            needed = any(symbol in task.split("→") for task in cls.tasks())
            lines.append(f"{'differs' if needed else 'note'}: {error}")
            well = well and not needed
            continue
        text, same = arrays({domain: sets}, cls.counts)
        lines.append(text)
        well, found = well and same, found + 1
    return "\n".join(lines), well and found > 0
