"""What a grid could detect, from numbers and from an earlier grid; and the rule of stopping."""

from pathlib import Path

import numpy as np
import pytest
from refusing import refused
from test_two_runs import noise, rows, write

from da.grids.ablation import rounds
from da.grids.grid import Grid
from da.reports.fixed_tasks import on_these_tasks
from da.reports.foresight import Deviations, estimated, foresight, parse_deviation
from da.reports.runs_file import grouped
from da.reports.stopping import first_look, half_widths, may_stop

ROOT = Path(__file__).parents[2]


def grid(**settings):
    base = {"data": "x.Y", "methods": ["M"], "norms": ["bn", "wa"], "epochs": 1, "lr": 0.1}
    return Grid(**{**base, "steps_per_epoch": 10, **settings})


def test_the_deviations_of_an_earlier_grid_are_found_again():
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 0.08, (60, 1))
    differences = effects + generator.normal(0, 0.05, (60, 5))
    (found,) = estimated(grouped(rows(differences)), grid())
    assert found.what == "M, tuned, wa - bn"
    assert found.seeds == pytest.approx(5, rel=0.1)
    assert found.tasks == pytest.approx(8, rel=0.2)


def test_what_is_known_is_said_in_points():
    lines = foresight([Deviations("", 6.0, 8.0)], tasks=6, seeds=5, points=1)
    assert lines == [
        "detectable with a power of 80 % at 5 %, in points, with 6 tasks and 5 seeds:",
        "  deviation 6.0 over seeds, 8.0 between tasks: on these tasks 3.2 on average, 11.5 in one "
        "task; on tasks like these 12.1",
    ]
    (_, line) = foresight([Deviations("", 6.0, None)], tasks=1, seeds=5, points=1)
    assert line.endswith("on these tasks 10.1; on tasks like these not testable (1 task)")
    (_, line) = foresight([Deviations("", 6.0, None)], tasks=6, seeds=1, points=1)
    assert "not testable (one seed)" in line
    assert line.endswith("unknown without a deviation between tasks")


def test_a_deviation_is_a_number_two_or_a_folder(tmp_path):
    assert parse_deviation("5", grid()) == [Deviations("", 5.0, None)]
    assert parse_deviation("5,8", grid()) == [Deviations("", 5.0, 8.0)]
    assert parse_deviation(str(write(tmp_path / "a", rows(noise(1)))), grid())[0].tasks is not None
    committed = parse_deviation(str(ROOT / "docs" / "results" / "digits"), grid())
    assert "DANN, tuned, wa - bn" in [each.what for each in committed]
    for text in ("0", "-1", "nan", "1,2,3"):
        refused(lambda text=text: parse_deviation(text, grid()), "one or two numbers above 0")
    refused(lambda: parse_deviation("nowhere", grid()), "or a folder with a runs.csv, got")
    single = write(tmp_path / "b", rows(noise(1, seeds=1)))
    refused(lambda: parse_deviation(str(single), grid()), "have all of two seeds or more")
    equal = write(tmp_path / "c", rows(np.full((2, 3), 0.1)))
    said = refused(lambda: parse_deviation(str(equal), grid()), "got differences that are equal")
    assert "have all" not in said


def test_seeds_are_added_one_by_one_from_the_first_look_on():
    stopping = grid(seeds=list(range(7)), stop_at=3.5)
    assert rounds(stopping, tasks=6) == [(0, 1, 2, 3, 4), tuple(range(6)), tuple(range(7))]
    assert rounds(grid(seeds=[0, 1]), tasks=6) == [(0, 1)]
    refused(lambda: rounds(stopping, tasks=2), "more than 11 seeds", "2 tasks, got 7")


def test_a_rule_about_differences_needs_some():
    alone = grid(norms=["gn", "wa"], seeds=list(range(30)), stop_at=3.5)
    refused(
        lambda: rounds(alone, tasks=6),
        "stop_at: nothing is compared: expected wa and one of bn, bn@target-stats among the norms",
        "got gn, wa; add them",
    )


def test_the_widest_comparison_decides():
    differences = noise(1)
    half = 100 * float(on_these_tasks(differences).half)
    narrow = rows(differences)
    wide = [dict(row, method="N") for row in rows(3 * differences)]
    widths = half_widths(narrow + wide, grid())
    assert widths == pytest.approx({"M, tuned, wa - bn": half, "N, tuned, wa - bn": 3 * half})
    assert may_stop(widths, 2 * half)[0] is False
    enough, words = may_stop(widths, 3.01 * half)
    assert enough
    assert "(N, tuned, wa - bn)" in words
    assert may_stop({}, 10)[0] is False


@pytest.mark.parametrize("tasks", [6, 12])
def test_stopping_early_keeps_the_level(tasks):
    values = np.random.default_rng(4).normal(size=(6_000, tasks, first_look(tasks) + 4))
    wanted = 2.1 / np.sqrt(tasks * (first_look(tasks) + 2))
    rejects = np.zeros(len(values), dtype=bool)
    going = np.ones(len(values), dtype=bool)
    for seeds in range(first_look(tasks), values.shape[-1] + 1):
        found = on_these_tasks(values[..., :seeds])
        ends = going & ((found.half <= wanted) | (seeds == values.shape[-1]))
        rejects |= ends & (abs(found.average) > found.half)
        going &= ~ends
    assert 0.04 < rejects.mean() < 0.065
