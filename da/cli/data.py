"""Say what data sets there are, what they hold and what they look like.

examples:
  python run.py data list                            data sets, their domains, classes, citations
  python run.py data list Office31                   one of them, with all of its classes
  python run.py data check Folder --root my/images   counts; every image decoded, bad ones named
  python run.py data fetch VisDA2017 --root visda    download it, or say what to do by hand
  python run.py data check VisDA2017 --root visda --no-decode          a fast count
  python run.py data sheet Digits --out digits.png   some images of every class
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from da.cli._data_check import arrays, files, published_arrays
from da.cli._data_fetch import fetched
from da.cli._data_list import described, overview
from da.cli._options import parse, plain_parser
from da.errors import UserError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PACKAGE = "datasets"
_SPLITS: tuple[str, ...] = ("train", "validation", "test")


def main(argv: list[str]) -> int:
    """Runs one of ``list``, ``check``, ``fetch`` and ``sheet``; returns the exit code."""
    parser = plain_parser("data", __doc__)
    parser.add_argument("what", choices=["list", "check", "fetch", "sheet"], help="what to do")
    parser.add_argument("name", nargs="?", type=str, help="data set, short or dotted")
    parser.add_argument("--data", type=str, help="the same as NAME")
    parser.add_argument("--root", type=str, help="folder of the data")
    parser.add_argument("--workers", type=int, help="check: processes, by default one per core")
    parser.add_argument("--no-decode", action="store_true", help="check: count files, open none")
    parser.add_argument("--out", type=str, help="sheet: picture to write: .png, .pdf or .svg")
    parser.add_argument("--per_class", type=int, default=6, help="sheet: images of each class")
    options = parse(parser, argv)
    name = options.name or options.data
    if options.what == "list":
        print(listing(name))
    elif options.what == "check":
        return checked(name or "Digits", options.root, options.workers, not options.no_decode)
    elif options.what == "fetch":
        if name is None:
            raise UserError("name the data set: python run.py data fetch VisDA2017 --root DIR")
        return fetched(data_class(name), name.rpartition(".")[2], options.root)
    elif options.out is None:
        raise UserError("--out is missing: name the picture to write, such as --out sheet.png")
    else:
        file = sheet_file(name or "Digits", options.root, options.out, options.per_class)
        print(f"wrote {file}")
    return 0


def data_class(name: str) -> Any:
    """The data module of a short (``Digits``) or dotted (``datasets.digits.Digits``) name."""
    if "." not in name:
        found = _found()
        if name not in found:
            raise unknown("data set", name, found)
        return found[name]
    module, _, short = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), short)
    except (ImportError, AttributeError):
        raise unknown("data set", name, _dotted()) from None


def listing(name: str | None = None) -> str:
    """One paragraph per data set found on disk, or all of one."""
    if name is None:
        return overview(_found())
    cls = data_class(name)
    return "\n".join(described(cls.__name__, cls, whole=True))


def checked(name: str, root: str | None, workers: int | None, decode: bool) -> int:
    """Prints what there is of a set and what is wrong with it; 2 where something is."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers: expected a whole number from 1, got {workers}")
    cls = data_class(name)
    if not _of_files(cls) and hasattr(cls, "published_splits"):
        text, well = published_arrays(cls, root)
    elif not _of_files(cls):
        text, well = arrays(_sets(name, root), getattr(cls, "counts", None))
    else:
        text, well = files(cls, root, workers, decode)
    print(text)
    return 0 if well else UserError.exit_code


def sheet_file(name: str, root: str | None, out: str, per_class: int) -> Path:
    """Writes the contact sheet of a data set and returns its path."""
    path = Path(out)
    if per_class < 1:
        raise UserError(f"per_class is {per_class}: it must be at least 1")
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"'{out}' is no picture that can be written: end it in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"folder '{path.parent}' of '{out}' does not exist: create it first")
    contact_sheet(_sets(name, root), per_class).savefig(path, dpi=110)
    return path


def contact_sheet(sets: dict[str, dict[str, Any]], per_class: int) -> Figure:
    """One block per domain: classes side by side, the first training images of each below."""
    import numpy as np
    from matplotlib.figure import Figure

    columns, pad = 2, 2
    rows = -(-len(sets) // columns)
    first = next(iter(sets.values()))["train"]
    wide = min(len(first.classes), 12)
    figure = Figure(figsize=(columns * 0.45 * wide, rows * (0.45 * per_class + 0.55)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (domain, splits) in zip(axes, sets.items(), strict=False):
        data = splits["train"]
        side = data.images(np.zeros(1, np.int64))[0].shape[-1]
        step = side + pad
        canvas = np.full((per_class * step, wide * step, 3), 255, np.uint8)
        for label in range(wide):
            chosen = np.flatnonzero(data.labels == label)[:per_class]
            for row, image in enumerate(data.images(chosen) if len(chosen) else ()):
                top, left = row * step, label * step
                canvas[top : top + side, left : left + side] = image.permute(1, 2, 0).numpy()
        axis.imshow(canvas, interpolation="nearest")
        total = sum(len(split) for split in splits.values())
        axis.set_title(f"{domain} ({total:,} images)", fontsize=9, loc="left", pad=14)
        for label in range(wide):
            centre = label * step + side / 2
            axis.text(centre, -2 * pad, data.classes[label][:9], ha="center", fontsize=7)
    return figure


def _sets(name: str, root: str | None) -> dict[str, dict[str, Any]]:
    """All splits of all domains, development included, as image sets.

    Splits that are the same images are one; of files none is put into the cache.
    """
    cls = data_class(name)
    domains = cls.available(root)
    splits, options = _SPLITS, {}
    if hasattr(cls, "published_splits"):
        splits = ("train", "test") if cls.published_splits else ("train",)
        options = {"cache": False} if _of_files(cls) else {}
    module = cls(source=domains[0], target=domains[1], root=root, **options)
    names = [*domains, *(cls.development or ())]
    return {domain: {split: module.load(domain, split) for split in splits} for domain in names}


def _of_files(cls: type) -> bool:
    return issubclass(cls, importlib.import_module(f"{_PACKAGE}.files.file_data").FileData)


def _found() -> dict[str, type]:
    from da.discovery import subclasses

    base = importlib.import_module(f"{_PACKAGE}.base").DomainData
    return subclasses(_PACKAGE, base)


def _dotted() -> list[str]:
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in _found().values()]
