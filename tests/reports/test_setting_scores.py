import pytest
from fake_cells import made
from made_grids import fill, lines_of, made_grid

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.store import Store
from da.reports.runs import load_runs
from da.reports.setting_scores import sections, setting_scores

SCORES = {("bn", 0.1): (1.0, 2.0), ("bn", 1): (1.0, 1.2), ("wa", 0.1): (0.5, 0.7)}


@pytest.fixture
def found(tmp_path):
    """A grid that sweeps a trade-off; under WA the larger one diverged with one seed."""
    grid = Grid(
        data="x.Y",
        tasks=("a->b",),
        methods={"M": {}},
        norms={"bn": {}, "wa": {}},
        sweep={"method.trade_off": (0.1, 1)},
        seeds=(0, 1),
        epochs=2,
        steps_per_epoch=3,
        lr=("published",),
        published_lr=0.1,
    )
    store = Store(tmp_path)
    plan = plans.plan(grid, list(grid.tasks), "ablate", "tune")
    for cell in plan.cells:
        values = SCORES.get((cell.norm, cell.method_args["trade_off"]))
        store.begin(cell)
        if values is None and cell.seed == 0:
            store.fail(cell, "diverged", "loss is nan")
            continue
        result = made(cell)
        for number, evaluation in enumerate(result.evaluations):
            target = evaluation.forms[""]["target/test"]
            value = values[cell.seed] if values and number else 99.0  # the last one counts
            target.label_free = {grid.score: value}
            evaluation.forms[""] = {"target/test": target}
        store.finish(cell, result, keep=False)
    return plan, setting_scores(plan, load_runs(store, plan))


def test_the_mean_of_the_last_epoch_over_seeds_by_setting_and_normaliser(found):
    plan, points = found
    assert [one.point for one in points] == plan.grid.points()
    assert points[0].scores == pytest.approx({"bn": 1.5, "wa": 0.6})
    assert points[0].together == pytest.approx(1.05)
    assert points[1].scores == {"bn": pytest.approx(1.1), "wa": None}
    assert points[1].together is None
    assert points[1].diverged == {"wa": 1}
    text = "\n".join(lines_of(sections(points, plan.grid.score)))
    assert "| M | method.trade_off 0.1 | **1.500** | **0.600** | **1.050** |" in text
    assert "| method | setting | bn | wa | together |\n|---|---|--:|--:|--:|" in text
    assert "| M | method.trade_off 1 | 1.100 | 1 diverged | – |" in text


def test_rows_of_learning_rates_are_not_averaged_together(tmp_path):
    grid = made_grid(lr=("published", 0.5), sweep={"method.trade_off": (0.1, 1)}, seeds=(0,))

    def change(cell, result):
        for scores in result.evaluations[-1].forms[""].values():
            scores.label_free = dict.fromkeys(scores.label_free, cell.lr)

    plan, runs = fill(tmp_path, grid, lambda cell: 0.5, change=change)
    text = "\n".join(lines_of(sections(setting_scores(plan, runs), grid.score)))
    assert "| row | method | setting | bn | wa | together |" in text
    assert "|---|---|---|--:|--:|--:|" in text
    for row, score in (("published", "**0.010**"), ("given", "**0.500**")):
        assert f"| {row} | M | method.trade_off 1 | {score} | {score} | {score} |" in text


def test_nothing_where_nothing_is_swept(found):
    plan, _ = found
    still = plan.model_copy(update={"grid": plan.grid.model_copy(update={"sweep": {}})})
    assert setting_scores(still, []) == []
    assert sections([], "any") == []
