import csv
import io
import re

import pytest
from fake_cells import made
from made_grids import fill, made_grid, markdown, noisy, written
from rich.console import Console

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.store import Store
from da.ops.csv_text import csv_text
from da.reports import terminal
from da.reports.formats.csv_tables import table_rows
from da.reports.model import Report
from da.reports.runs import load_runs, scores, tidy
from da.reports.tables import tables
from da.reports.verdicts import verdict

# Target accuracies by task and normaliser for seeds 0, 1, 2.
ACCURACIES = {
    ("a->b", "bn"): (0.80, 0.81, 0.82),
    ("a->b", "wa"): (0.90, 0.915, 0.92),
    ("b->a", "bn"): (0.70, 0.74, 0.72),
    ("b->a", "wa"): (0.70, 0.71, 0.75),
}

# The variances of the two tasks differ (0.29 and 3 points), so each interval is the task's own:
# scipy.stats.t.interval at √.95 with 2 degrees of freedom; a->b is as wide as the pooled one at
# least. The average has Satterthwaite's 2.04 degrees of freedom.
LAST = """\
| task | bn | bn@source-stats | bn@target-stats | wa | sampling error (n) |
|---|--:|--:|--:|--:|--:|
| a->b | 81.0 ± 1.0 | 81.0 ± 1.0 | 91.0 ± 1.0 | **91.2 ± 1.0** | 2.0 (400) |
| b->a | 72.0 ± 2.0 | 72.0 ± 2.0 | **82.0 ± 2.0** | 72.0 ± 2.6 | 2.2 (400) |
| average (2 of 2 tasks) | 76.5 ± 1.3 | 76.5 ± 1.3 | **86.5 ± 1.3** | 81.6 ± 1.8 |  |

| task | wa - bn | wa - bn@target-stats |
|---|--:|--:|
| a->b | +10.2 [+7.4, +13.0] ▲ | +0.2 [-2.6, +3.0] |
| b->a | +0.0 [-10.7, +10.7] | -10.0 [-20.7, +0.7] |
| average (2 of 2 tasks), on these tasks | +5.1 [+1.4, +8.8] ▲ | -4.9 [-8.6, -1.2] ▼ |
| average (2 of 2 tasks), on tasks like these | +5.1 (not testable: 2 tasks) | \
-4.9 (not testable: 2 tasks) |
"""


@pytest.fixture
def grid():
    return Grid(
        data="x.Y",
        tasks=("a->b", "b->a"),
        methods={"M": {}},
        norms={"bn": {}, "wa": {}},
        epochs=3,
        steps_per_epoch=10,
        lr=("published",),
        published_lr=0.01,
    )


def filled(tmp_path, grid, without=()):
    """A store with all results but some, and the plan."""
    store = Store(tmp_path)
    plan = plans.plan(grid, list(grid.tasks), "python run.py ablate x", "tune")
    for cell in plan.cells:
        if (cell.task, cell.norm, cell.seed) in without:
            continue
        accuracy = ACCURACIES[cell.task, cell.norm][cell.seed]
        forms = ("", "source-stats", "target-stats") if cell.norm == "bn" else ("",)
        result = made(cell, accuracy, forms)
        if "target-stats" in forms:
            for evaluation in result.evaluations:
                evaluation.forms = {k: dict(v) for k, v in evaluation.forms.items()}
                better = evaluation.forms["target-stats"]["target/test"].model_copy(
                    update={"accuracy": round(accuracy + 0.1, 6)}
                )
                evaluation.forms["target-stats"]["target/test"] = better
        store.begin(cell)
        store.finish(cell, result, keep=False)
    return store, plan


def test_the_tables_read_as_they_should(tmp_path, grid):
    store, plan = filled(tmp_path, grid)
    runs = load_runs(store, plan)
    text = markdown(plan, runs, tables(plan, runs))
    assert LAST in text
    assert text.count(LAST) == 3  # the same at every epoch, so in every selection
    assert (
        "- wa - bn, on these tasks: variances over seeds differ between tasks (Bartlett p = 0.021; "
        "deviations 0.3 to 3.0), so each task has its own, and the average Welch's form (2.0 "
        "degrees of freedom); detectable 4.8 on average, 3.0 to 13.8 in one task\n"
        "- wa - bn, on tasks like these: not testable (2 tasks)\n" in text
    )
    assert (
        "- last: WA beats bn beyond its interval on 1 of 2 tasks and loses on 0, and wins on "
        "average; WA beats bn@target-stats beyond its interval on 0 of 2 tasks and loses on 0, and "
        "loses on average; highest mean on bn@target-stats 1, wa 1 of 2 tasks; highest average: "
        "bn@target-stats." in text
    )
    assert "oracle: the maximum over 3 evaluations" in text
    assert "InformationMaximisation on unlabelled target" in text
    assert "Missing" not in text
    assert "partial" not in text


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("trained on", "the target's training images, unlabelled"),
        ("tested", "the target's test images, unlabelled, which are trained on, too"),
    ],
)
def test_a_target_without_validation_images_of_its_own_is_called_so(tmp_path, grid, images, words):
    store, plan = filled(tmp_path, grid)
    runs = load_runs(store, plan)
    text = markdown(plan, runs, tables(plan, runs))
    assert (
        "### label-free: the epoch with the highest InformationMaximisation on unlabelled target "
        "validation images\n" in text
    )
    assert "label-free selection" not in text
    plan.scored_images = images
    text = markdown(plan, runs, tables(plan, runs))
    assert (
        f"### label-free: the epoch with the highest InformationMaximisation on {words}\n" in text
    )
    assert (
        "- label-free selection: the target has no validation images of its own; scores are of "
        f"{words}\n" in text
    )
    assert "target validation images" not in text


def test_missing_cells_are_shown_and_never_averaged_over(tmp_path, grid):
    store, plan = filled(tmp_path, grid, without={("b->a", "wa", 2)})
    runs = load_runs(store, plan)
    found = tables(plan, runs)
    text = markdown(plan, runs, found)
    assert "| b->a | 72.0 ± 2.0 | 72.0 ± 2.0 | 82.0 ± 2.0 | – (2 of 3) |" in text  # no winner
    assert "| average (1 of 2 tasks) | 81.0 ± 1.0 |" in text
    assert "## Missing: 1 of 12 runs" in text
    assert "**Partial: 11 of 12 runs finished, 1 missing; " in text.split("- command")[0]
    assert "| average (1 of 2 tasks), on these tasks | +10.2 [+9.4, +10.9] ▲ |" in text
    assert "b->a M wa seed 2 (batch 32, lr 0.01) [published]: not run" in text
    assert "(1 missing)" in verdict(found[0])
    assert "highest average over 1 of 2 tasks: wa." in verdict(found[0])


def test_a_diverged_cell_is_called_so_and_loses(tmp_path, grid):
    store, plan = filled(tmp_path, grid, without={("b->a", "wa", 2)})
    cell = next(c for c in plan.cells if (c.task, c.norm, c.seed) == ("b->a", "wa", 2))
    store.fail(cell, "diverged", "loss is nan")
    runs = load_runs(store, plan)
    text = markdown(plan, runs, tables(plan, runs))
    assert "| **82.0 ± 2.0** | diverged (1 of 3) |" in text
    assert "diverged (loss is nan; log: cells/" in text
    assert "artial" not in text  # nothing is still to come


@pytest.mark.parametrize("width", [80, 100, 150])
def test_no_header_or_number_is_cut_on_a_terminal(tmp_path, grid, width):
    wide = grid.model_copy(
        update={"tasks": ("rendered->optical",), "norms": {"bn": {}, "wa": {}, "wa+bn": {}}}
    )
    store = Store(tmp_path)
    plan = plans.plan(wide, ["rendered->optical"], "python run.py ablate x", "tune")
    for cell in plan.cells:
        forms = ("", "source-stats", "target-stats") if "bn" in cell.norm else ("",)
        store.begin(cell)
        store.finish(cell, made(cell, 0.6 + 0.05 * cell.seed, forms), keep=False)
    runs = load_runs(store, plan)
    console = Console(width=width, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs), tmp_path), full=True)
    said = console.file.getvalue()
    assert "…" not in said
    assert said.count("±5.0") + said.count("± 5.0") == 3 * 7
    assert max(map(len, said.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_one_screen_shows_the_averages_and_where_to_read_on(tmp_path, grid, width):
    store, plan = filled(tmp_path, grid)
    runs = load_runs(store, plan)
    console = Console(width=width, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs), tmp_path, (tmp_path,)))
    said = console.file.getvalue()
    first = " ".join(said.split())  # a title may be folded
    assert first.startswith("target accuracy in %, average over 2 tasks, published learning rate")
    assert "+5.1 [+1.4, +8.8] ▲" in said
    assert "…" not in said
    *tables_shown, last = said.splitlines()
    assert len(tables_shown) < 20
    assert max(map(len, tables_shown)) <= width
    assert last.startswith(f"all tables: {tmp_path}/report.html in a browser, or python run.py ")


def test_one_screen_of_many_methods_has_them_all_at_the_last_epoch(tmp_path):
    methods = {f"M{number}": {} for number in range(9)}
    grid = made_grid(methods=methods, seeds=(0, 1), tasks=("a->b",))
    plan, runs = fill(tmp_path, grid, noisy)
    console = Console(width=150, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs), tmp_path, (tmp_path,)))
    said = console.file.getvalue()
    lines = [line for line in said.splitlines() if re.match(r"M\d+ +last ", line)]
    assert len(lines) == 9  # accuracies and differences in one line each
    assert all("▲" in line and line.count("±") == 4 for line in lines)
    assert "label-free" not in said
    assert len(said.splitlines()) < 20


def test_lines_without_a_complete_set_of_seeds_are_counted_on_the_one_screen(tmp_path):
    swept = made_grid(sweep={"batch_size": (1, 2, 4)})
    plan, runs = fill(tmp_path, swept, lambda c: None if c.batch_size > 1 and c.seed else noisy(c))
    console = Console(width=150, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs), tmp_path, (tmp_path,)))
    said = console.file.getvalue()
    assert "M, batch_size 1" in said
    assert "batch_size 2" not in said.partition("missing: ")[0]
    assert "2 of 3 rows: no task is complete yet" in said


def test_a_partial_table_says_so_on_the_terminal(tmp_path, grid):
    store, plan = filled(tmp_path, grid, without={("b->a", "wa", 2)})
    runs = load_runs(store, plan)
    console = Console(width=150, file=io.StringIO(), highlight=False)
    terminal.show(console, Report(plan, runs, tables(plan, runs), tmp_path), full=True)
    said = console.file.getvalue()
    assert said.startswith("partial: 11 of 12 runs finished, 1 missing; ")
    assert said.count("partial: ") == 2
    assert "on tasks like these" in said
    assert "(not testable: 1 task)" in said


def test_nothing_finished_is_a_report_too(tmp_path, grid):
    everything = {(task, norm, seed) for task, norm in ACCURACIES for seed in range(3)}
    _, plan = filled(tmp_path, grid, without=everything)
    found = written(tmp_path, plan).tables
    assert "average (0 of 2 tasks)" in (tmp_path / "report.md").read_text()
    assert "WA and bn cannot be compared: on no task did all seeds of both finish" in verdict(
        found[0]
    )


def test_tidy_rows_and_table_csv(tmp_path, grid):
    store, plan = filled(tmp_path, grid, without={("b->a", "wa", 2)})
    runs = load_runs(store, plan)
    rows = list(csv.DictReader(io.StringIO(csv_text(tidy(runs)))))
    assert len({row["cell"] for row in rows}) == len(rows) == 12
    assert float(rows[0]["last"]) == float(rows[0]["oracle"]) == 0.80
    assert float(rows[0]["last@target-stats"]) == 0.90
    assert [row["last"] for row in rows if row["state"] == "pending"] == [""]
    # 6 bn runs in 3 forms and 5 wa runs in 1: last, oracle, and the epochs of two scores.
    assert len(scores(runs)) == 6 * 3 * 4 + 5 * 4
    first = next(csv.DictReader(io.StringIO(csv_text(scores(runs)))))
    assert (first["normaliser"], first["selection"], first["seed"]) == ("bn", "last", "0")
    assert float(first["target_test_accuracy"]) == 0.80
    lines = list(csv.DictReader(io.StringIO(csv_text(table_rows(tables(plan, runs))))))
    assert float(lines[0]["wa mean"]) == pytest.approx(91.1667)
    assert lines[1]["wa mean"] == ""
    assert float(lines[0]["wa - bn on these tasks low"]) == pytest.approx(9.4495, abs=1e-3)
    assert lines[2]["wa - bn on tasks like these low"] == ""


def test_results_of_other_data_or_code_are_warned_of(tmp_path, grid):
    _, plan = filled(tmp_path, grid)
    runs = load_runs(Store(tmp_path), plan)
    for run in runs:
        run.result.data_manifest = {"a->b": "f" * 64, "b->a": "0" * 64}[run.entry.cell.task]
        run.result.versions = {"code": "c", "torch": "2.6"}
    text = markdown(plan, runs, tables(plan, runs))
    assert "- data manifest: a->b ffffffffffff; b->a 000000000000\n" in text
    assert "WARNING" not in text
    runs[0].result.data_manifest = "1" * 64
    runs[0].result.versions = {"code": "c", "torch": "2.7"}
    text = markdown(plan, runs, tables(plan, runs))
    assert "a->b 111111111111 and ffffffffffff; b->a 000000000000 (they differ within" in text
    assert "- versions: torch 2.6; torch 2.7 (they differ: WARNING)" in text


def test_seeds_that_hold_out_images_of_their_own_are_no_other_data(tmp_path, grid):
    held_out = grid.model_copy(update={"data_args": {"validation": 0.2}})
    _, plan = filled(tmp_path, held_out)
    runs = load_runs(Store(tmp_path), plan)
    for run in runs:
        run.result.data_manifest = f"{run.entry.cell.seed}{run.entry.cell.task[0]}" * 32
    text = markdown(plan, runs, tables(plan, runs))
    assert "2b2b2b2b2b2b (each seed holds out images of its own)\n" in text
    assert "WARNING" not in text
    runs[0].result.data_manifest = "f" * 64
    assert "(they differ within a task: WARNING)" in markdown(plan, runs, tables(plan, runs))


def test_a_report_is_rebuilt_byte_for_byte(tmp_path, grid):
    _, plan = filled(tmp_path, grid)
    plans.write(tmp_path, plan)
    written(tmp_path, plan)
    names = [path.name for path in tmp_path.iterdir() if path.is_file() and path.stem != "grid"]
    assert {"report.html", "report.tex", "figure.pdf"} < set(names)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    written(tmp_path, plans.read(tmp_path))
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_a_rule_that_was_not_applied_is_not_said_to_have_been(tmp_path):
    for norms, words in (
        (("bn", "wa"), "- stopping: seeds were added until"),
        (("gn", "wa"), "- stopping: ± 2 points were named beforehand, and nothing can be compared"),
    ):
        grid = made_grid(norms={name: {} for name in norms}, stop_at=2)
        plan, runs = fill(tmp_path / norms[0], grid, noisy)
        assert words in markdown(plan, runs, tables(plan, runs))


def test_all_lengths_of_training_are_said(tmp_path):
    longer = [{"tasks": ["b->a"], "epochs": 50}]
    plan, runs = fill(tmp_path, made_grid(overrides=longer), noisy)
    text = markdown(plan, runs, tables(plan, runs))
    assert "- training: M 3 epochs x 10 steps or 50 epochs x 10 steps, batch 32 per" in text


def test_a_sweep_has_a_line_per_value_and_the_source_beside_the_target(tmp_path, grid):
    swept = grid.model_copy(update={"tasks": ("a->b",), "sweep": {"batch_size": (1, 64)}})
    _, plan = filled(tmp_path, swept)
    built = written(tmp_path, plan)
    runs, found = built.runs, built.tables
    assert [table.stream for table in found] == ["target/test"] * 3 + ["source/test"]
    assert [line.label for line in found[0].lines] == ["a->b, batch_size 1", "a->b, batch_size 64"]
    assert {row["batch_size"] for row in tidy(runs)} == {1, 64}
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    text = (tmp_path / "report.md").read_text()
    # Two families, one per value: scipy.stats.ttest_1samp at a confidence of .975.
    assert "| a->b, batch_size 1 | +10.2 [+9.1, +11.2] ▲ |" in text
    assert (
        "- wa - bn, batch_size 1, on these tasks: deviation over seeds 0.3, 2 degrees of freedom; "
        "detectable " in text
    )


def test_the_averages_of_several_methods_stand_side_by_side_as_in_their_own_tables(tmp_path):
    plan, runs = fill(tmp_path / "two", made_grid(methods={"M": {}, "N": {}}), noisy)
    text = markdown(plan, runs, tables(plan, runs))
    shown = text.split("## Averages over 2 tasks, and differences on these\n")[1].split("\n## ")[0]
    assert shown.count("### ") == 3
    last = shown.split("### last: the last epoch\n")[1].split("\n### ")[0]
    own = text.split("## N, published learning rate\n")[1].split("\n### ")[1]
    average = r"^\| average \(2 of 2 tasks\)"
    [accuracies] = re.findall(rf"{average} \|(.*)\|  \|$", own, re.MULTILINE)
    [differences] = re.findall(rf"{average}, on these tasks \|(.*)$", own, re.MULTILINE)
    assert f"| N |{accuracies}|{differences}" in last
    plan, runs = fill(tmp_path / "one", made_grid(), noisy)
    assert "## Averages" not in markdown(plan, runs, tables(plan, runs))
