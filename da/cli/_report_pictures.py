"""Pictures of the networks that a grid kept, drawn into its folder by analyse and inspect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from da.errors import UserError

if TYPE_CHECKING:
    from da.analysis.kept_checkpoints import Kept
    from da.reports.model import Report

DRAWN = "tsne,confusion,classes"
"""What ``analyse`` draws for the page."""


def draw_pictures(report: Report) -> None:
    """Draws t-SNE, confusion, classes and activations of one seed of every task and method.

    They go into the folder of the grid, where the page finds them; what is there already, and no
    older than its checkpoints, stays.

    Args:
        report: of the grids that the networks are of.

    Raises:
        UserError: no network was kept, or one can't be drawn.
    """
    from da.analysis.kept_checkpoints import find_checkpoints
    from da.cli import analyse, inspect
    from da.reports.page.pictures import FOLDER, has_checkpoints

    if not has_checkpoints(report.folders):
        raise UserError(
            "--pictures: these trainings kept no checkpoints; ablate keeps them where it is given "
            "--keep, of what it trains then; or leave it out"
        )
    for folder in report.folders:
        if not has_checkpoints((folder,)):
            continue
        for name, networks in _comparisons(find_checkpoints(folder)):
            out = folder / FOLDER / name
            paths = [str(one.path) for one in networks]
            newest = max(one.path.stat().st_mtime for one in networks)
            if not _is_newer(out / "tsne.png", newest):
                analyse.main([*paths, "--out", str(out), "--only", _drawn(report)])
            if not _is_newer(out / "activations.png", newest):
                inspect.main(["activations", *paths, "--out", str(out)])


def _drawn(report: Report) -> str:
    """Without labels of the target there is no confusion to draw."""
    return DRAWN if report.has_labels else "tsne"


def _is_newer(file: Path, time: float) -> bool:
    return file.is_file() and file.stat().st_mtime >= time


def _comparisons(found: list[Kept]) -> Iterator[tuple[str, list[Kept]]]:
    """The networks to set side by side: of each task and method those of its first seed."""
    groups: dict[tuple[str, str], list[Kept]] = {}
    for one in found:
        groups.setdefault((one.spec.task, one.spec.method), []).append(one)
    for (task, method), kept in groups.items():
        seed = min(one.spec.seed for one in kept)
        mine = [one for one in kept if one.spec.seed == seed]
        order = sorted({one.spec.norm for one in mine}, key=lambda name: (name != "bn", name))
        mine.sort(key=lambda one: (order.index(one.spec.norm), one.spec.lr, one.spec.batch_size))
        name = f"{task.replace('->', '-')}-{method}-seed{seed}"
        yield name.replace("/", "-"), mine
