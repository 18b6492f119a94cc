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

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from da.cli._data_fetch import fetch_data
from da.cli._data_list import describe, describe_all
from da.cli._options import parse, plain_parser
from da.data_sets import data_sets, find_data_set
from da.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from da.types import ImagesOfDomain, Split


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
        print(list_data(name))
    elif options.what == "check":
        return check_data(name or "Digits", options.root, options.workers, not options.no_decode)
    elif options.what == "fetch":
        if name is None:
            raise UserError("name the data set: python run.py data fetch VisDA2017 --root DIR")
        return fetch_data(find_data_set(name), options.root)
    elif options.out is None:
        raise UserError("--out is missing: name the picture to write, such as --out sheet.png")
    else:
        file = write_sheet(name or "Digits", options.root, options.out, options.per_class)
        print(f"wrote {file}")
    return 0


def list_data(name: str | None = None) -> str:
    """One paragraph per data set on disk, or all that is known of one."""
    if name is None:
        return describe_all(data_sets())
    return "\n".join(describe(find_data_set(name), whole=True))


def check_data(name: str, root: str | None, workers: int | None, decode: bool) -> int:
    """Prints what there is of a set and what is wrong with it; 2 where something is."""
    if workers is not None and workers < 1:
        raise UserError(f"--workers: expected a whole number from 1, got {workers}")
    check = find_data_set(name).check(root, workers, decode)
    print(check.text)
    return 0 if check.well else UserError.exit_code


def write_sheet(name: str, root: str | None, out: str, per_class: int) -> Path:
    """Writes the contact sheet of a data set and returns its path."""
    path = Path(out)
    if per_class < 1:
        raise UserError(f"per_class is {per_class}: it must be at least 1")
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(f"'{out}' is no picture that can be written: end it in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"folder '{path.parent}' of '{out}' does not exist: create it first")
    from da.reports.figure_style import texts_as_written

    figure = draw_sheet(find_data_set(name).read_all(root), per_class)
    with texts_as_written(figure):
        figure.savefig(path, dpi=110)
    return path


def draw_sheet(sets: Mapping[str, Mapping[Split, ImagesOfDomain]], per_class: int) -> Figure:
    """One block per domain: classes side by side, the first training images of each below."""
    import numpy as np
    from matplotlib.figure import Figure

    columns, pad = 2, 2
    rows = -(-len(sets) // columns)
    wide = min(max(len(splits["train"].classes) for splits in sets.values()), 12) or 2
    figure = Figure(figsize=(columns * 0.45 * wide, rows * (0.45 * per_class + 0.55)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (domain, splits) in zip(axes, sets.items(), strict=False):
        data = splits["train"]
        labelled = bool((np.asarray(data.labels) >= 0).any())
        side = data.images(np.zeros(1, np.int64))[0].shape[-1]
        step = side + pad
        canvas = np.full((per_class * step, wide * step, 3), 255, np.uint8)
        for label in range(wide):
            chosen = np.flatnonzero(data.labels == label)[:per_class]
            if not labelled:  # one image after the other
                chosen = np.arange(len(data))[label * per_class : (label + 1) * per_class]
            for row, image in enumerate(data.images(chosen) if len(chosen) else ()):
                top, left = row * step, label * step
                canvas[top : top + side, left : left + side] = image.permute(1, 2, 0).numpy()
        axis.imshow(canvas, interpolation="nearest")
        total = sum(len(split) for split in splits.values())
        axis.set_title(f"{domain} ({total:,} images)", fontsize=9, loc="left", pad=14)
        for label in range(min(wide, len(data.classes)) if labelled else 0):
            centre = label * step + side / 2
            axis.text(centre, -2 * pad, data.classes[label][:9], ha="center", fontsize=7)
    return figure
