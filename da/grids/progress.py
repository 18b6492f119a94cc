"""How long a grid still takes, and where its time went."""

from __future__ import annotations

from collections.abc import Iterable

from da.engine.result import Seconds
from da.engine.spec import RunSpec
from da.grids.executors.local import Running

SECONDS_PER_STEP = 0.004
SECONDS_PER_SAMPLE = 0.0005
SECONDS_PER_EVALUATION = 0.4
"""One core, the digits network: what is assumed before a cell of it has finished."""

MEASURED = (("default", "cpu"), ("digits_resnet", "cpu"))
"""Backbones and devices that these constants hold for; of others nothing is assumed."""

STARTUP = 10.0
"""Seconds until the workers have imported their libraries."""


def steps(cell: RunSpec) -> int:
    """Training steps; a hundred per epoch where only the data knows."""
    return cell.epochs * (cell.steps_per_epoch if isinstance(cell.steps_per_epoch, int) else 100)


def assumed(cell: RunSpec) -> float:
    """Seconds of a cell, from constants."""
    step = SECONDS_PER_STEP + SECONDS_PER_SAMPLE * cell.batch_size
    return steps(cell) * step + cell.epochs * SECONDS_PER_EVALUATION


class Estimate:
    """Seconds of cells to come, from those that have finished.

    A cell is expected to take what its like took (method, normaliser, backbone, batch size); where
    none of these has finished, the constants are scaled by how far off they were for others of the
    backbone. Before any has, the time is known of the network alone that they were measured on.
    """

    def __init__(self) -> None:
        self._likes: dict[tuple[object, ...], list[float]] = {}
        self._ratios: dict[tuple[str, str], list[float]] = {}

    def add(self, cell: RunSpec, seconds: float) -> None:
        """Learns from a finished cell."""
        self._likes.setdefault(_like(cell), []).append(seconds)
        self._ratios.setdefault(_network(cell), []).append(seconds / assumed(cell))

    @property
    def measured(self) -> bool:
        """Some cell has finished."""
        return bool(self._ratios)

    def seconds(self, cell: RunSpec) -> float | None:
        """The expected time of a cell, None where there is nothing to expect it from."""
        if like := self._likes.get(_like(cell)):
            return sum(like) / len(like)
        if ratios := self._ratios.get(_network(cell)):
            return sum(ratios) / len(ratios) * assumed(cell)
        return assumed(cell) if _network(cell) in MEASURED else None

    def unknown(self, cells: Iterable[RunSpec]) -> list[str]:
        """The backbones, with the device, of cells whose time nothing is known of."""
        missing = (_network(cell) for cell in cells if self.seconds(cell) is None)
        return [" on ".join(network) for network in dict.fromkeys(missing)]

    def left(
        self, pending: Iterable[RunSpec], running: Iterable[Running], workers: int, now: float
    ) -> float | None:
        """Seconds until all is done: no less than the longest cell takes."""
        each = [*(self._rest(item, now) for item in running), *map(self.seconds, pending)]
        expected = [seconds for seconds in each if seconds is not None]
        if len(expected) < len(each):
            return None
        return max([0.0, sum(expected) / workers, *expected])

    def _rest(self, item: Running, now: float) -> float | None:
        elapsed = now - item.started
        if item.fraction > 0.1:
            return elapsed * (1 - item.fraction) / item.fraction
        expected = self.seconds(item.cell)
        return None if expected is None else max(0.0, expected - elapsed)


def _network(cell: RunSpec) -> tuple[str, str]:
    return cell.backbone, cell.device


def _like(cell: RunSpec) -> tuple[object, ...]:
    return (cell.method, cell.norm, cell.backbone, cell.batch_size, steps(cell))


def duration(seconds: float) -> str:
    """Time in words.

    >>> duration(42.3), duration(754), duration(7260)
    ('42 s', '12 min 34 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def time_shares(seconds: Iterable[Seconds], wall: float, workers: int) -> str:
    """The split of the wall time of this run over training, evaluation and everything else."""
    each = list(seconds)
    whole = max(wall * workers, 1e-9)
    training = sum(item.training for item in each) / whole
    evaluation = sum(item.evaluation for item in each) / whole
    other = max(0.0, 1 - training - evaluation)
    plural = "s" if workers != 1 else ""
    return (
        f"wall time {duration(wall)} x {workers} worker{plural}: training steps {training:.0%}, "
        f"evaluations {evaluation:.0%}, everything else {other:.0%}"
    )
