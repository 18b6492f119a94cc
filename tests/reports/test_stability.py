import pytest
from fake_cells import made
from made_grids import lines_of

from da.grids import plan as plans
from da.grids.grid import Grid
from da.grids.store import Store
from da.reports.rate_range import rate_ranges, sections
from da.reports.runs import load_runs
from da.reports.stability import sections as stability_sections
from da.reports.stability import stabilities, warnings
from da.reports.tables import tables

RATES = (0.01, 0.1, 1.0, 10.0)

# Accuracy on the source by method, normaliser and rate; "diverged"; nothing has not run.
ON_SOURCE = {
    ("SourceOnly", "bn"): (0.90, 0.98, 0.97, 0.60),
    ("SourceOnly", "wa"): (0.70, 0.98, 0.96, "diverged"),
    ("DANN", "bn"): (0.96, 0.90, 0.97, 0.50),
    ("DANN", "wa"): (0.10, 0.97, "diverged", "diverged"),
}


@pytest.fixture
def found(tmp_path):
    """The plan, runs and tables of a grid that sweeps the rate."""
    grid = Grid(
        data="x.Y",
        tasks=("a->b",),
        methods={"SourceOnly": {}, "DANN": {}},
        norms={"bn": {}, "wa": {}},
        sweep={"lr": RATES},
        seeds=(0, 1),
        epochs=1,
        steps_per_epoch=3,
    )
    store = Store(tmp_path)
    plan = plans.plan(grid, list(grid.tasks), "ablate", "tune")
    for cell in plan.cells:
        value = ON_SOURCE[cell.method, cell.norm][RATES.index(cell.lr)]
        if (cell.method, cell.norm, cell.lr, cell.seed) == ("DANN", "bn", 10.0, 1):
            continue  # has not run
        store.begin(cell)
        if value == "diverged":
            store.fail(cell, "diverged", "loss is nan")
        else:
            result = made(cell, value)
            result.clipped_fraction = 0.25 if cell.norm == "wa" else None
            store.finish(cell, result, keep=False)
    runs = load_runs(store, plan)
    return plan, runs, tables(plan, runs)


def test_a_rate_works_where_the_source_is_learnt_and_nothing_diverged(found):
    plan, _, shown = found
    ranges = {(one.method, one.norm): one for one in rate_ranges(plan, shown)}
    works = {key: one.works for key, one in ranges.items()}
    assert works == {
        ("SourceOnly", "bn"): (0.1, 1.0),
        ("SourceOnly", "wa"): (0.1, 1.0),  # exactly two points below its best counts
        ("DANN", "bn"): (0.01, 1.0),  # within two points of what source-only reached
        ("DANN", "wa"): (0.1,),
    }
    assert ranges["DANN", "bn"].gaps == (0.1,)
    assert ranges["DANN", "bn"].missing == (10.0,)
    assert ranges["DANN", "wa"].diverged == {1.0: 2, 10.0: 2}
    assert [ranges[key].factor for key in works] == pytest.approx([10, 10, 100, 1])
    text = "\n".join(lines_of(sections(list(ranges.values()))))
    assert "| a->b | DANN | bn | 0.01 | 1 | 100 | 0.1 | missing at 10 |" in text
    assert "| a->b | DANN | wa | 0.1 | 0.1 | 1 |  | 2 at 1, 2 at 10 |" in text


def test_no_range_where_no_rate_is_swept(found):
    plan, _, shown = found
    grid = plan.grid.model_copy(update={"sweep": {"batch_size": (1, 2)}})
    assert rate_ranges(plan.model_copy(update={"grid": grid}), shown) == []
    assert sections([]) == []


def test_what_diverged_or_lost_the_source_is_marked(found):
    _, runs, _ = found
    named = {(one.method, one.norm): one for one in stabilities(runs)}
    bn, wa = named["DANN", "bn"], named["DANN", "wa"]
    assert (bn.planned, bn.done, bn.diverged) == (8, 7, 0)
    # Over the rates and seeds that are done with both.
    assert bn.behind == pytest.approx(sum([-0.06, -0.06, 0.08, 0.08, 0.0, 0.0, 0.1]) / 7)
    assert (wa.done, wa.diverged) == (4, 4)
    assert wa.source == pytest.approx((0.10 + 0.97) / 2)
    assert wa.behind == pytest.approx((0.60 + 0.01) / 2)
    assert wa.clipped == 0.25
    assert named["SourceOnly", "bn"].is_well
    assert not wa.is_well
    text = "\n".join(lines_of(stability_sections(list(named.values()))))
    assert "| given | SourceOnly | bn | 8 of 8 | 0 | 86.2 | +0.0 | – |  |" in text
    assert "| given | DANN | wa | 4 of 8 | 4 | 53.5 | -30.5 | 25 % | ! |" in text
    assert warnings([wa]) == [
        "DANN with wa, given rates: 4 of 8 runs diverged; on the source it is 30.5 points behind "
        "source-only"
    ]
    assert warnings([named["SourceOnly", "bn"]]) == []
