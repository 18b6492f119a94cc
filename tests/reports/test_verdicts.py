"""What is said in a sentence, and of whom it is not said."""

import pytest
from made_grids import TASKS, fill, made_grid, markdown, noisy

from da.reports.tables import tables
from da.reports.verdicts import verdict


def test_with_one_seed_the_average_is_not_testable_either(tmp_path):
    plan, runs = fill(tmp_path, made_grid(seeds=(0,)), noisy)
    assert verdict(tables(plan, runs)[0]).startswith(
        "last: WA beats bn beyond its interval on 0 of 2 tasks and loses on 0 (2 not testable), "
        "and is not testable on average; "
    )


def test_an_average_over_the_survivors_is_called_so_and_what_diverged_is_not_missing(tmp_path):
    grid = made_grid(tasks=TASKS)

    def accuracy(cell):
        return None if (cell.task, cell.norm, cell.seed) == ("b->a", "bn", 2) else noisy(cell)

    plan, runs = fill(
        tmp_path,
        grid,
        accuracy,
        lambda cell: cell.norm == "wa" and cell.task == "a->b" and cell.seed == 0,
    )
    said = verdict(tables(plan, runs)[0])
    assert (
        "on 2 of 4 tasks and loses on 0 (1 diverged) (1 missing), and wins on average over 2 "
        in (said)
    )
    assert "average over 2 of 4 tasks; " in said
    assert "highest average over 2 of 4 tasks: " in said


@pytest.fixture
def without_scores():
    """Takes the label-free scores of WA's first epoch with one seed."""

    def change(cell, result):
        if cell.norm == "wa" and cell.seed == 1:
            for scores in result.evaluations[0].forms[""].values():
                scores.label_free = dict.fromkeys(scores.label_free)

    return change


def test_a_score_that_is_no_number_is_named(tmp_path, without_scores):
    plan, runs = fill(tmp_path, made_grid(), noisy, change=without_scores)
    last, by_score, _ = tables(plan, runs)
    assert "WA beats bn beyond its interval on 2 of 2 tasks" in verdict(last)
    assert verdict(by_score).startswith(
        "label-free: WA and bn cannot be compared: InformationMaximisation is not a number in 2 "
        "runs; WA and bn@target-stats cannot be compared: "
    )
    assert "no score" not in markdown(plan, runs, [last])
    assert "| no score (1 of 3) |" in markdown(plan, runs, [by_score])


def test_a_sweep_says_at_which_value_a_normaliser_is_complete_nowhere(tmp_path):
    grid = made_grid(sweep={"batch_size": (1, 64)})
    plan, runs = fill(tmp_path, grid, noisy, lambda cell: (cell.norm, cell.batch_size) == ("wa", 1))
    text = markdown(plan, runs, tables(plan, runs))
    line = "- complete in no task with batch_size 1, so left out of that average: wa\n"
    assert text.count(line) == 4  # three selections, and the source's table
    assert "batch_size 64, so" not in text
    still, runs = fill(tmp_path / "still", made_grid(), noisy, lambda cell: cell.norm == "wa")
    text = markdown(still, runs, tables(still, runs))
    assert "- complete in no task, so left out of the average: wa\n" in text
