"""How often the intervals of a report exclude the truth, in simulated grids.

Everything is run as a report runs it: check of equal variances, pooling or Welch's form,
simultaneous intervals; and the rule that stops early.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from da.reports.fixed_tasks import CONFIDENCE, Floats, on_these_tasks
from da.reports.stopping import first_look

TASKS = (2, 6, 12)
"""All ordered pairs of two, three and four domains."""
SEEDS = (3, 5)
SEED_DEVIATION, TASK_DEVIATION = 5.0, 8.0
"""In points: of a paired difference over seeds, and of true differences over tasks."""
CHUNK = 10_000
"""Grids at a time."""

Kind = Literal["holds", "unequal", "violated"]
Generator = np.random.Generator
Draw = Callable[[Generator, tuple[int, int, int]], Floats]


@dataclass(frozen=True)
class Scenario:
    """How differences arise: (R, T, S) of noise over seeds, with variance 1 on average."""

    name: str
    kind: Kind
    """Whether the assumptions on these tasks hold, variances alone differ, or else."""
    noise: Draw
    effects: Draw | None = None
    """True differences of tasks, (R, T, 1) with variance 1; independent normal ones by default."""


def _normal(random: Generator, shape: tuple[int, ...]) -> Floats:
    return random.normal(size=shape)


def _with_variances(of: Callable[[int], Floats]) -> Draw:
    def draw(random: Generator, shape: tuple[int, int, int]) -> Floats:
        variances = of(shape[1])
        return _normal(random, shape) * np.sqrt(variances / variances.mean())[:, None]

    return draw


def _one(times: float) -> Callable[[int], Floats]:
    return lambda tasks: np.r_[times, np.ones(tasks - 1)]


def _heavy(random: Generator, shape: tuple[int, ...]) -> Floats:
    return random.standard_t(3, shape) / math.sqrt(3)  # with variance 1


def _skewed(random: Generator, shape: tuple[int, ...]) -> Floats:
    return random.exponential(size=shape) - 1


def _shared(random: Generator, shape: tuple[int, int, int]) -> Floats:
    """A quarter of the variance is the seed's, the same in every task."""
    grids, _, seeds = shape
    return math.sqrt(0.75) * _normal(random, shape) + 0.5 * _normal(random, (grids, 1, seeds))


def _by_domain(random: Generator, shape: tuple[int, int, int]) -> Floats:
    """Effects of ordered pairs of domains: two fifths each of the source and the target."""
    grids, tasks, _ = shape
    domains = next(d for d in range(2, 99) if d * (d - 1) >= tasks)
    pairs = [(a, b) for a in range(domains) for b in range(domains) if a != b]
    source, target = np.array(pairs).T
    of_source, of_target = (_normal(random, (grids, domains)) for _ in range(2))
    own = _normal(random, (grids, tasks))
    mixed = math.sqrt(0.4) * (of_source[:, source] + of_target[:, target]) + math.sqrt(0.2) * own
    return np.asarray(mixed[..., None])


SCENARIOS = (
    Scenario("equal variances", "holds", _normal),
    Scenario(
        "variances 1 and 4 in turn",
        "unequal",
        _with_variances(lambda tasks: np.where(np.arange(tasks) % 2, 4.0, 1.0)),
    ),
    Scenario("one task with 4 times the variance", "unequal", _with_variances(_one(4))),
    Scenario(
        "variances from 1 to 4", "unequal", _with_variances(lambda tasks: np.geomspace(1, 4, tasks))
    ),
    Scenario("one task with 9 times the variance", "violated", _with_variances(_one(9))),
    Scenario("one task with 25 times the variance", "violated", _with_variances(_one(25))),
    Scenario("heavy tails (t with 3 degrees of freedom)", "violated", _heavy),
    Scenario("skewed (exponential)", "violated", _skewed),
    Scenario("a seed's effect shared by all tasks", "violated", _shared),
    Scenario("effects of domains, shared by tasks", "violated", _normal, _by_domain),
)


@dataclass(frozen=True)
class Rates:
    """Shares of grids in which an interval excludes the truth; None where it is not testable."""

    scenario: str
    kind: Kind
    tasks: int
    seeds: int
    average: float
    """On these tasks."""
    any_task: float
    """On these tasks: at least one of the simultaneous intervals."""
    like: float | None
    """On tasks like these."""
    check_fails: float
    """Share of grids in which variances are not pooled."""


def rates(scenario: Scenario, tasks: int, seeds: int, grids: int, seed: int = 0) -> Rates:
    """Simulates grids of one kind.

    Args:
        scenario: how differences arise.
        tasks: of a grid.
        seeds: of each task.
        grids: how many.
        seed: of the simulation.
    """
    random = np.random.default_rng((seed, tasks, seeds))
    counts = np.zeros(4)
    quantile = float(stdtrit(tasks - 1, (1 + CONFIDENCE) / 2)) if tasks > 2 else math.inf
    for size in _chunks(grids):
        shape = (size, tasks, seeds)
        effects = TASK_DEVIATION * (scenario.effects or _normal)(random, (size, tasks, 1))
        found = on_these_tasks(effects + SEED_DEVIATION * scenario.noise(random, shape))
        truth = effects[..., 0]  # on these tasks
        error = found.means.std(-1, ddof=1) / math.sqrt(tasks)
        counts += [
            (abs(found.average - truth.mean(-1)) > found.half).sum(),
            (abs(found.means - truth) > found.halves).any(-1).sum(),
            (abs(found.average) > quantile * error).sum(),  # the mean of all tasks is 0
            (~found.fair).sum(),
        ]
    average, any_task, like, fails = (float(count) / grids for count in counts)
    return Rates(
        scenario.name, scenario.kind, tasks, seeds, average, any_task,
        like if tasks > 2 else None, fails,
    )  # fmt: skip


@dataclass(frozen=True)
class StoppingRates:
    """The same for grids that stop early at a half-width."""

    scenario: str
    tasks: int
    first: int
    """Seeds at the first look."""
    most: int
    wanted: float
    """Half-width that was named, in points."""
    average: float
    any_task: float
    seeds: float
    """Used, on average."""
    reached: float
    """Share of grids that are as narrow as wanted at the end."""


def stopping_rates(
    scenario: Scenario, tasks: int, expected: int, grids: int, seed: int = 0
) -> StoppingRates:
    """Simulates grids to which seeds are added, up to twice as many as at the first look.

    Args:
        scenario: how differences arise.
        tasks: of a grid.
        expected: seeds with which the wanted half-width is that of the true deviation.
        grids: how many.
        seed: of the simulation.
    """
    random = np.random.default_rng((seed, tasks, expected))
    first = first_look(tasks)
    most = 2 * first
    wanted = 2 * SEED_DEVIATION / math.sqrt(tasks * expected)
    counts = np.zeros(4)
    for size in _chunks(grids):
        noise = SEED_DEVIATION * scenario.noise(random, (size, tasks, most))
        for seeds in range(first, most + 1):
            found = on_these_tasks(noise[..., :seeds])
            narrow = found.half <= wanted
            ends = narrow | (seeds == most)
            counts += [
                (abs(found.average) > found.half)[ends].sum(),
                (abs(found.means) > found.halves)[ends].any(-1).sum(),
                seeds * ends.sum(),
                narrow.sum(),
            ]
            noise = noise[~ends]
    average, any_task, used, reached = (float(count) / grids for count in counts)
    return StoppingRates(
        scenario.name, tasks, first, most, wanted, average, any_task, used, reached
    )


def _chunks(grids: int) -> Iterator[int]:
    """Sizes that add up to a number of grids."""
    yield from [CHUNK] * (grids // CHUNK)
    if grids % CHUNK:
        yield grids % CHUNK
