import pytest
from made_grids import TASKS, fill, lines_of, made_grid, written

from da.engine.alarms.record import Alarm
from da.ops.csv_text import csv_text
from da.reports.alarms import raised_alarms, sections, summary
from da.reports.runs import tidy


def alarm(name, step):
    return Alarm(name=name, about="target/test", step=step, epoch=1, text="as it went on")


def alarms_of(cell):
    """WA collapses on one task, at a step that its seed decides; one run has two alarms."""
    if cell.norm != "wa" or cell.task != TASKS[0] or cell.seed > 1:
        return []
    more = [alarm("critic-perfect", 250)] if cell.seed == 1 else []
    return [alarm("one-class", 120 - 60 * cell.seed), *more]


@pytest.fixture
def found(tmp_path):
    def change(cell, result):
        result.alarms = alarms_of(cell)

    return fill(tmp_path, made_grid(), lambda cell: 0.9, change=change)


def test_a_report_says_which_runs_raised_which_alarm_and_when(found):
    _, runs = found
    perfect, collapsed = raised_alarms(runs)
    assert (perfect.name, perfect.watched, perfect.first_step) == ("critic-perfect", 6, 250)
    assert (collapsed.name, collapsed.norm, collapsed.first_step) == ("one-class", "wa", 60)
    text = "\n".join(lines_of(sections(runs)))
    assert text.startswith("## Alarms\n\nWhat 12 finished runs said of themselves: critic-perfect,")
    assert (
        "| one-class | published | M | wa | 2 of 6 | 60 | a->b seed 0 at 120; a->b seed 1 at 60 |"
        in text
    )
    assert summary(runs) == (
        "2 of 12 runs raised some (critic-perfect 1, one-class 2), see report.md"
    )


def test_the_section_stands_in_the_report_and_the_column_in_the_runs(found, tmp_path):
    plan, runs = found
    written(tmp_path, plan)
    assert "## Alarms" in (tmp_path / "report.md").read_text()
    columns = {(row["norm"], row["task"], row["seed"]): row["alarms"] for row in tidy(runs)}
    assert columns["wa", TASKS[0], 1] == "one-class@60 critic-perfect@250"
    assert columns["bn", TASKS[0], 1] == "none"
    assert ",one-class@60 critic-perfect@250," in (tmp_path / "runs.csv").read_text()


def test_swept_settings_are_named(tmp_path):
    grid = made_grid(sweep={"batch_size": (8, 16)}, seeds=(0,))

    def change(cell, result):
        result.alarms = [alarm("one-class", 5)] if cell.batch_size == 8 else []

    _, runs = fill(tmp_path, grid, lambda cell: 0.9, change=change)
    assert "a->b seed 0, batch_size 8 at 5; b->a seed 0, batch_size 8 at 5" in "\n".join(
        lines_of(sections(runs))
    )


def test_runs_without_alarms_say_so_and_those_of_before_say_nothing(tmp_path):
    grid = made_grid(seeds=(0,))

    def change(cell, result):
        result.alarms = [] if cell.norm == "wa" else None

    _, runs = fill(tmp_path, grid, lambda cell: 0.9, change=change)
    assert lines_of(sections(runs)) == ["## Alarms", "", "None, in 2 finished runs.", ""]
    assert summary(runs) == ""
    _, runs = fill(tmp_path / "before", grid, lambda cell: 0.9)
    assert lines_of(sections(runs)) == []
    assert {row["alarms"] for row in tidy(runs)} == {None}
    assert "None" not in csv_text(tidy(runs))


def test_runs_that_diverged_are_counted_beside_those_that_finished(tmp_path):
    grid = made_grid(seeds=(0, 1))
    raising = [alarm("one-class", 5)]
    for name, alarms in (("none", []), ("some", raising)):

        def change(cell, result, alarms=alarms):
            result.alarms = alarms

        _, runs = fill(
            tmp_path / name, grid, lambda cell: 0.9, lambda cell: cell.norm == "wa", change
        )
        text = "\n".join(lines_of(sections(runs)))
        assert "4 finished runs" in text
        assert "4 runs diverged: what was said there is in log.txt alone." in text
