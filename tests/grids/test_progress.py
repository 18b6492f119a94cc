"""How long a grid takes: expected of what was measured, and of nothing else."""

import pytest
from fake_cells import a_cell, made
from rich.console import Console

from da.cli._progress_display import ProgressDisplay
from da.grids.executors.local import Running
from da.grids.progress import Estimate, assumed
from da.grids.session import Outcome, Session
from da.grids.store import Store

SMALL = a_cell()
OFFICE = a_cell(
    model_args={"backbone": "resnet50"}, device="cuda", epochs=20, steps_per_epoch=1000, method="D"
)
SHORT = OFFICE.model_copy(update={"method": "S", "epochs": 5, "steps_per_epoch": 500})


@pytest.fixture
def session(tmp_path):
    return Session(Store(tmp_path), print, workers=2)


def finish(session, cell, seconds):
    result = made(cell)
    result.seconds.total = seconds
    session.store.begin(cell)
    session.store.finish(cell, result, keep=False)


def test_constants_are_those_of_one_network_on_one_device():
    estimate = Estimate()
    assert estimate.seconds(SMALL) == assumed(SMALL)
    assert estimate.seconds(a_cell(model_args={"backbone": "digits_resnet"})) == assumed(SMALL)
    for other in (OFFICE, a_cell(device="cuda"), a_cell(model_args={"backbone": "lenet"})):
        assert estimate.seconds(other) is None
    # How far off they are for one network says nothing of another.
    estimate.add(SMALL, 2 * assumed(SMALL))
    assert estimate.seconds(a_cell(norm="wa")) == pytest.approx(2 * assumed(SMALL))
    assert estimate.seconds(OFFICE) is None


def test_the_cost_of_a_network_that_was_not_measured_is_said_to_be_unknown(session):
    cells = [OFFICE, OFFICE.model_copy(update={"seed": 1}), SHORT]
    assert session.costs(cells) == (
        "3 of 3 cells to run: time unknown for resnet50 on cuda until a cell of each has finished; "
        "about 0.2 MB of results"
    )
    session.keep = True  # of a size that nobody has seen
    assert session.costs(cells).endswith("; about 0.2 MB of results and their checkpoints")
    finish(session, SHORT, 600)
    said = session.costs(cells)
    assert said.startswith("2 of 3 cells to run: about ")
    assert said.endswith("(from 1 finished cells)")
    # Eight times the steps of the finished one: one of these on each of two workers.
    expected = 600 * assumed(OFFICE) / assumed(SHORT)
    left = session.estimate(cells).left([OFFICE] * 2, [], 2, 0.0)
    assert left == pytest.approx(expected)
    finish(session, OFFICE, 3600)
    assert "1 of 3 cells to run: about 1 h 0 min with 2 workers" in session.costs(cells)


def test_one_cell_of_an_unknown_time_leaves_the_whole_unknown(session):
    assert "time unknown for resnet50 on cuda until" in session.costs([SMALL, OFFICE])
    assert "(from stated constants, which are" in session.costs([SMALL])


def test_a_running_cell_tells_its_own_time_and_then_that_of_its_like():
    outcome = Outcome(total=2)
    display = ProgressDisplay(Console(), workers=1)
    outcome.running[0] = Running(OFFICE, started=0.0, fraction=0.05)
    assert display.line(outcome, now=90.0).endswith(", 1 running, 0 failed, time left unknown yet")
    outcome.running[0].fraction = 0.25
    assert display.line(outcome, now=450.0).endswith("about 22 min 30 s left")
    outcome.pending.append(OFFICE.model_copy(update={"seed": 1}))
    assert display.line(outcome, now=450.0).endswith("time left unknown yet")
    finished = OFFICE.model_copy(update={"seed": 2})
    outcome.cells[finished.id] = finished
    outcome.finished[finished.id] = made(finished).seconds.model_copy(update={"total": 1800.0})
    display.update(outcome)
    assert display.line(outcome, now=450.0).endswith("about 52 min 30 s left")
