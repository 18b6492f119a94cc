"""What the pictures of a report show, and what they own up to."""

import pytest
from made_grids import TASKS, fill, made_grid, noisy

from da.reports import figure_style, figures
from da.reports.tables import tables

SWEPT = {"batch_size": (1, 16, 64)}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a grid of which some cells diverged; gives the figure."""

    def draw(grid, diverged=lambda cell: False, accuracy=noisy):
        kept = []
        monkeypatch.setattr(figures, "write", lambda figure, path, kinds: kept.append(figure))
        plan, runs = fill(tmp_path, grid, accuracy, diverged)
        figures.save(tmp_path, plan, tables(plan, runs))
        return kept[0]

    return draw


def lines_of(axis):
    """By normaliser, positions and heights; and the positions of crosses."""
    kept = {}
    for container in axis.containers:
        line = container.lines[0]
        kept[container.get_label()] = (list(line.get_xdata()), list(line.get_ydata()))
    crosses = [x.get_xdata() for x in axis.get_lines() if x.get_marker() == figure_style.CROSS]
    return kept, [value for values in crosses for value in values]


def test_points_of_a_line_are_of_the_same_tasks_and_a_divergence_is_marked(drawn):
    figure = drawn(
        made_grid(tasks=TASKS, sweep=SWEPT),
        lambda cell: (cell.norm, cell.task, cell.batch_size) == ("wa", "a->b", 1),
    )
    target = figure.axes[1]
    kept, crosses = lines_of(target)
    assert kept["bn"][0] == [1, 16, 64]
    # The made-up accuracies do not depend on the batch: what differs would be the tasks alone.
    assert kept["bn"][1] == pytest.approx([62.0] * 3)
    assert crosses == [1]
    assert target.get_title().endswith("last epoch, 3 of 4 tasks")
    assert figure._suptitle.get_text() == "× at the foot: diverged or missing"


def test_what_is_complete_nowhere_at_a_value_leaves_the_others_their_tasks(drawn):
    figure = drawn(
        made_grid(tasks=TASKS, sweep=SWEPT), lambda cell: (cell.norm, cell.batch_size) == ("wa", 1)
    )
    kept, crosses = lines_of(figure.axes[1])
    assert kept["bn"][0] == [1, 16, 64]
    assert kept["wa"][0] == [16, 64]
    assert crosses == [1]
    assert figure.axes[1].get_title().endswith("last epoch")


@pytest.mark.parametrize("settings", [{"tasks": TASKS, "sweep": SWEPT}, {"tasks": TASKS}])
def test_a_whole_grid_has_no_cross_and_no_caption(drawn, settings):
    figure = drawn(made_grid(**settings), lambda cell: False)
    for axis in figure.axes:
        kept, crosses = lines_of(axis)
        assert set(kept) == {"bn", "bn@source-stats", "bn@target-stats", "wa"}
        assert crosses == []
    assert figure._suptitle is None


def test_names_with_dollars_and_swept_numbers_are_written_as_they_are(tmp_path):
    grid = made_grid(tasks=("a$^$->b", "b->a$^$"), sweep={"batch_size": (4, 8)})
    for name, drawn_grid in (("sweep", grid), ("tasks", grid.model_copy(update={"sweep": {}}))):
        out = tmp_path / name
        plan, runs = fill(out, drawn_grid, lambda cell: 0.5)
        figures.save(out, plan, tables(plan, runs))
        text = (out / "figure.svg").read_text()
        assert "mathdefault" not in text
        assert ("a$^$-&gt;b" in text or "a$^$->b" in text) == (name == "tasks")
        assert (out / "figure.png").stat().st_size > 1000


def test_a_logarithmic_axis_has_plain_numbers(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axis = figure.subplots()
    axis.plot([1, 2], [0.001, 100])
    axis.set_yscale("log")
    figure_style.number_plainly(axis.yaxis)
    figure_style.write(figure, tmp_path / "figure")
    text = (tmp_path / "figure.svg").read_text()
    assert ">1e−02<" in text  # with the minus of its own that matplotlib writes
    assert "mathdefault" not in text


def test_panels_of_many_methods_stand_in_columns_of_which_each_names_its_tasks(drawn):
    methods = {f"M{number}": {} for number in range(7)}
    figure = drawn(made_grid(methods=methods, seeds=(0, 1)))
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title().partition("\n")[0] for axis in panels] == [
        *("M0", "M4", "M1", "M5", "M2", "M6", "M3")
    ]
    width, height = figure.get_size_inches()
    assert height < 1.8 * width
    named = [axis for axis in panels if any(x.get_visible() for x in axis.get_xticklabels())]
    assert [axis.get_title()[:2] for axis in named] == ["M6", "M3"]  # at the foot of a column
    assert [text.get_text() for text in named[0].get_xticklabels()] == ["a->b", "b->a", "average"]


@pytest.mark.parametrize("sweep", [{}, SWEPT])
def test_before_anything_is_complete_the_axis_is_the_whole_range_and_every_cross_is_seen(
    drawn, sweep
):
    figure = drawn(made_grid(sweep=sweep), accuracy=lambda cell: None)
    assert {axis.get_ylim() for axis in figure.axes} == {(0, 100)}
    crosses = [x for x in figure.axes[-1].get_lines() if x.get_marker() == figure_style.CROSS]
    places = [tuple(place) for x in crosses for place in x.get_xydata()]
    assert len(set(places)) == len(places) == 6
