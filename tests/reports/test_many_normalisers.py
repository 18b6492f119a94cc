"""Grids of many normalisers: rows in place of columns, and which differ from batch norm."""

import io
import re

import pytest
from made_grids import TASKS, fill, made_grid, markdown
from rich.console import Console

from da.reports import figure_style, figures, terminal
from da.reports.against_baseline import against_baseline, holm, sections
from da.reports.model import Report
from da.reports.page.comparison import methods
from da.reports.page.overview import overviews
from da.reports.tables import headline, tables
from da.reports.texts import Strong, transposed

NORMS = ("bn", "brn", "ibn", "gn", "in", "ln", "wa", "wa+bn", "sws", "none")


def uneven(cell):
    """Each normaliser has an accuracy of its own, and noise over seeds."""
    number, task = NORMS.index(cell.norm), TASKS.index(cell.task)
    noise = 0.002 * ((7 * cell.seed + 3 * number + 5 * task) % 4)
    return round(0.3 + 0.02 * number + 0.05 * task + noise, 6)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    norms = {key: {} for key in NORMS}
    return fill(
        tmp_path_factory.mktemp("grid"), made_grid(norms=norms, methods={"M": {}, "N": {}}), uneven
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One method at three batch sizes, of which `ln` diverged once at the largest."""
    norms = {key: {} for key in NORMS}
    sweep = {"batch_size": (1, 8, 64)}
    lost = lambda cell: (cell.norm, cell.task, cell.batch_size) == ("ln", "a->b", 64)  # noqa: E731
    rising = lambda cell: round(uneven(cell) + cell.batch_size / 500, 6)  # noqa: E731
    return fill(tmp_path_factory.mktemp("swept"), made_grid(norms=norms, sweep=sweep), rising, lost)


def said_by(plan, runs, width, full=False):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs)), full=full)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 150])
@pytest.mark.parametrize("full", [False, True])
def test_a_terminal_has_them_in_rows_and_cuts_nothing(grid, width, full):
    said = said_by(*grid, width, full)
    assert "…" not in said
    (table, *_) = tables(*grid)
    average = table.lines[-1]
    for column in table.columns:
        mean = f"{100 * average.fields[column].summary.mean:.1f}"
        assert re.search(rf"^{re.escape(str(column))} .*\b{mean}\b", said, re.MULTILINE)
    assert re.search(r"^(task|method) .*wa - bn", said, re.MULTILINE)
    assert max(map(len, said.split("all tables")[0].splitlines())) <= width


def test_a_report_has_them_in_rows_with_the_numbers_of_their_lines(grid):
    plan, runs = grid
    shown = tables(plan, runs)
    text = markdown(plan, runs, shown)
    assert "| normaliser | M | N |" in text
    assert "| normaliser | a->b | b->a | average (2 of 2 tasks) |" in text
    assert "| sampling error (n) |" in text
    own = text.split("## M, published learning rate\n")[1]
    for column in shown[0].columns:
        fields = [line.fields[column].summary for line in shown[0].lines]
        numbers = [f"{100 * s.mean:.1f} ± {100 * s.std:.1f}" for s in fields]
        (line,) = re.findall(rf"^\| {re.escape(str(column))} \|(.*)\|$", own, re.MULTILINE)[:1]
        assert [one.strip(" *") for one in line.split("|")] == numbers
    assert own.count("**") >= 6  # the best of each task is bold


def test_the_page_begins_with_them_in_rows(grid):
    plan, runs = grid
    shown = overviews(Report(plan, runs, tables(plan, runs)))[0]
    assert shown.header == ["normaliser", "M", "N"]
    assert next(row.label for row in shown.rows) == "bn"
    assert [row.label for row in shown.rows][-2:] == ["wa - bn", "wa - bn@target-stats"]
    (best,) = {row.label for row in shown.rows for cell in row.cells if cell.style == "best"}
    assert best == "none"


def test_a_table_is_turned_with_what_is_bold_in_it():
    header, rows = transposed(["task", "bn", "wa"], [["a", "1", Strong("2")], ["b", "3", "4"]])
    assert header == ["normaliser", "a", "b"]
    assert rows == [["bn", "1", "3"], ["wa", "2", "4"]]
    assert isinstance(rows[1][1], Strong)


def test_the_picture_has_a_row_for_each_and_a_panel_for_each_task(grid, tmp_path, monkeypatch):
    plan, runs = grid
    kept = []
    monkeypatch.setattr(figures, "write", lambda figure, path, kinds: kept.append(figure))
    figures.save(tmp_path, plan, tables(plan, runs))
    (figure,) = kept
    assert [axis.get_title() for axis in figure.axes] == [
        f"{method}, published rate\n{name}"
        for method in "MN"
        for name in ("a->b", "b->a", "average")
    ]
    (first, *_) = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == list(NORMS)
    assert first.get_ylim()[0] > first.get_ylim()[1]  # as in the tables, from above
    trained = next(box for box in first.containers if box.get_label() == "as trained")
    (table, *_) = tables(plan, runs)
    expected = [100 * f.summary.mean for c, f in table.lines[0].fields.items() if not c.form]
    assert list(trained.lines[0].get_xdata()) == pytest.approx(expected)
    assert list(trained.lines[0].get_ydata()) == list(range(len(NORMS)))


def test_the_picture_owns_up_to_what_diverged_and_draws_averages_alone_of_many_tasks(
    tmp_path, monkeypatch
):
    kept = []
    monkeypatch.setattr(figures, "write", lambda figure, path, kinds: kept.append(figure))
    domains = ["a->b", "b->a", "a->c", "c->a"]
    norms = {key: {} for key in NORMS}
    lost = lambda cell: (cell.norm, cell.task) == ("ln", "a->b")  # noqa: E731
    plan, runs = fill(tmp_path, made_grid(norms=norms, tasks=domains), uneven, lost)
    figures.save(tmp_path, plan, tables(plan, runs))
    axes = kept[0].axes
    assert len(axes) == 5
    crosses = [x for x in axes[0].get_lines() if x.get_marker() == figure_style.CROSS]
    assert [list(x.get_ydata()) for x in crosses] == [[NORMS.index("ln")]]
    monkeypatch.setattr("da.reports.normaliser_rows.PANELS", 3)
    figures.save(tmp_path, plan, tables(plan, runs))
    assert [axis.get_title().split("\n")[1] for axis in kept[1].axes] == ["average of 3"]


def test_every_normaliser_stands_beside_batch_norm_and_bold_holds_for_all_together(grid):
    (section,) = sections(tables(*grid))
    assert section.header == ["normaliser", "M, published", "N, published"]
    assert [row[0] for row in section.rows] == list(NORMS[1:])
    by_name = {name: fields for name, *fields in section.rows}
    assert by_name["none"][0].startswith("+18.")
    assert by_name["none"][0].endswith("▲")
    assert isinstance(by_name["none"][0], Strong)
    assert "Holm" in section.text


def test_few_normalisers_have_no_such_table(tmp_path):
    norms = {key: {} for key in NORMS[:3]}
    assert not sections(tables(*fill(tmp_path / "few", made_grid(norms=norms), uneven)))


def test_holms_procedure_against_its_adjusted_p_values():
    """Adjusted p, as R's p.adjust defines it: cumulative maxima of (m - i + 1) p_(i)."""
    p = {"a": 0.001, "b": 0.012, "c": 0.013, "d": 0.04, "e": 0.9}
    adjusted, most = {}, 0.0
    for i, (name, value) in enumerate(sorted(p.items(), key=lambda item: item[1])):
        most = max(most, min(1.0, (len(p) - i) * value))
        adjusted[name] = most
    for level in (0.004, 0.006, 0.047, 0.049, 0.05, 0.081, 1.0):
        assert holm(p, level) == {name for name, value in adjusted.items() if value <= level}
    assert holm({}) == set()


@pytest.mark.parametrize("width", [80, 150])
def test_differences_to_many_baselines_stand_below_each_other_where_they_do_not_fit(
    tmp_path, width
):
    norms = ("bn", "wa", "gn", "in", "ln", "sws", "none")
    baselines = ("bn", "gn", "in", "ln", "sws", "none")
    grid = made_grid(norms={norm: {} for norm in norms}, baselines=baselines)
    plan, runs = fill(tmp_path, grid, uneven)
    said = said_by(plan, runs, width)
    assert "…" not in said
    assert max(map(len, said.split("all tables")[0].splitlines())) <= width
    assert all(f"wa - {name}" in said for name in baselines)
    below = [name for name in baselines if re.search(rf"wa - {name} +[+-]\d", said)]
    assert below == (list(baselines) if width == 80 else [])


@pytest.mark.parametrize("width", [80, 100, 150])
@pytest.mark.parametrize("full", [False, True])
def test_a_sweep_on_a_terminal_breaks_no_word_and_keeps_a_batch_size_in_one_table(
    swept, width, full
):
    said = said_by(*swept, width, full)
    assert "…" not in said
    assert max(map(len, said.split("trainings: ")[0].splitlines())) <= width
    accuracies = said.partition("difference in points")[0]
    heads = re.findall(r"^((?:.*\n){1,5})─", accuracies, re.MULTILINE)
    assert heads
    for head in heads:
        names = head.splitlines()[-1] if full else head
        assert "batch_size" in names
        assert set(re.findall(r"batch\S*", head)) == {"batch_size"}
    (table, *_) = tables(*swept)
    average = next(x for x in table.lines if x.is_average and x.point == {"batch_size": 8})
    for column in table.columns:
        mean = f"{100 * average.fields[column].summary.mean:.1f}"
        assert re.search(rf"^{re.escape(str(column))} .*\b{mean}\b", accuracies, re.MULTILINE)


def test_a_screen_of_several_methods_at_several_points_has_a_table_for_each(tmp_path):
    norms, methods_ = {key: {} for key in NORMS}, {"M": {}, "N": {}}
    grid = made_grid(norms=norms, methods=methods_, sweep={"batch_size": (1, 8, 16, 64)})
    said = said_by(*fill(tmp_path, grid, uneven), width=80)
    accuracies = said.partition("difference in points")[0]
    tables_of = accuracies.split("target accuracy in %")[1:]
    named = [{*re.findall(r"\b[MN]\b", one.partition("─")[0])} for one in tables_of]
    assert named == [{"M"}, {"N"}]
    assert {*re.findall(r"batch\S*", accuracies)} == {"batch_size"}


def test_a_report_of_a_sweep_begins_with_its_averages(swept):
    plan, runs = swept
    text = markdown(plan, runs, tables(plan, runs))
    begin, _, own = text.partition("## M, published learning rate\n")
    header = "| normaliser | M, batch_size 1 | M, batch_size 8 | M, batch_size 64 (1 of 2) |"
    assert header in begin
    assert header not in own
    shown = overviews(Report(plan, runs, tables(plan, runs)))[0]
    assert [f" {name} " for name in shown.header] == header.split("|")[1:-1]


def test_at_each_point_of_a_sweep_normalisers_stand_beside_batch_norm(swept):
    (section,) = sections(tables(*swept))
    assert section.header == [
        "normaliser",
        *(f"M, batch_size {size}, published" for size in (1, 8, 64)),
    ]
    by_name = {name: fields for name, *fields in section.rows}
    assert all(field.startswith("+18.") for field in by_name["none"])
    assert ["(1 of 2 tasks)" in field for field in by_name["ln"]] == [False, False, True]
    of_points = headline(tables(*swept))
    assert [table.name for table in of_points] == [f"M, batch_size {n}" for n in (1, 8, 64)]
    differences = [against_baseline(table)["wa"].average.difference for table in of_points]
    assert differences == pytest.approx([0.12] * 3)  # what rises with the batch does so for both


def test_the_picture_of_a_sweep_has_a_panel_for_each_with_batch_norm_behind(
    swept, tmp_path, monkeypatch
):
    plan, runs = swept
    kept = []
    monkeypatch.setattr(figures, "write", lambda figure, path, kinds: kept.append(figure))
    shown = tables(plan, runs)
    figures.save(tmp_path, plan, shown)
    (figure,) = kept
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert list(panels) == list(NORMS)
    lines = [x for x in shown[0].lines if x.task == "b->a"]  # complete everywhere
    for name, panel in panels.items():
        behind = [x for x in panel.get_lines() if x.get_label() == "target, bn as trained"]
        assert len(behind) == (name != "bn")
        for box in panel.containers:
            form = box.get_label().removeprefix("target, ").removesuffix("as trained")
            (column,) = (c for c in shown[0].columns if (c.norm, c.form) == (name, form))
            means = [(x.point["batch_size"], x.fields[column].summary.mean) for x in lines]
            assert list(zip(*box.lines[0].get_data(), strict=True)) == [
                pytest.approx((size, 100 * mean)) for size, mean in means
            ]
        crosses = [x for x in panel.get_lines() if x.get_marker() == figure_style.CROSS]
        assert [list(x.get_xdata()) for x in crosses] == ([[64]] if name == "ln" else [])
    (caption,) = (part._suptitle.get_text() for part in figure.subfigs)
    assert caption == "M, published learning rate, last epoch, 1 of 2 tasks"


def test_the_part_of_a_method_has_them_in_rows_and_its_differences_apart(grid):
    plan, runs = grid
    own = next(methods(Report(plan, runs, tables(plan, runs)))).tables[0]
    assert own.header == ["normaliser", "a->b", "b->a", "average (2 of 2 tasks)"]
    columns = [str(column) for column in tables(plan, runs)[0].columns]
    assert [row.label for row in own.rows] == columns
    assert {len(row.cells) for row in own.rows} == {3}
    assert not own.averages
    assert own.beside.header == ["task", "wa - bn", "wa - bn@target-stats", "sampling error (n)"]
    assert [len(row.cells) for row in own.beside.rows] == [3, 3]
    assert [row.interval for row in own.beside.averages] == ["these", "like"]
