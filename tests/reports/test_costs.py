"""Accuracy beside cost, and all normalisers against batch norm: tables and pictures."""

import itertools
from dataclasses import replace

import pytest
from made_grids import TASKS, fill, lines_of, made_grid, noisy

from da.errors import UserError
from da.reports import normaliser_figures, report
from da.reports.against_baseline import against_baseline
from da.reports.costs import Cost, points_of, read_costs, sections
from da.reports.differences import compare
from da.reports.normaliser_figures import save_pictures, spread
from da.reports.tables import tables

NORMS = {"bn": {}, "wa": {}, "gn": {}, "wa+bn": {}}
TITLES = "network,size,precision,batch,bn training / bn,bn kept MB,wa training / bn,wa kept MB"


@pytest.fixture
def table(tmp_path):
    """A table of bench norms; gn's step was not measured."""
    file = tmp_path / "table.csv"
    file.write_text(
        f"{TITLES},gn training / bn,gn kept MB\n"
        "digits_resnet,32,float32,8,1.0,2.0,3.0,8.0,,\n"
        "digits_resnet,32,float32,64,1.0,10.0,0.9,7.5,,\n"
        "resnet50,224,bfloat16,64,1.0,10.0,9.0,75,,\n"
    )
    return file


@pytest.fixture
def grid(tmp_path):
    return fill(tmp_path / "grid", made_grid(norms=NORMS), noisy)


def test_the_case_is_of_the_grids_network_and_nearest_to_its_batch(table, grid):
    costs = read_costs(table, grid[0])  # 32 images of each domain
    assert costs.case == "digits_resnet at 32 × 32, float32, 64 images in a step"
    assert costs.of == {"bn": Cost(1, 1), "wa": Cost(0.9, 0.75), "gn": Cost(None, None)}


def test_accuracy_stands_beside_cost_and_what_was_not_measured_is_a_dash(table, grid):
    plan, runs = grid
    shown = tables(plan, runs)
    lines = lines_of(sections(shown, read_costs(table, plan)))
    text = "\n".join(lines)
    (wa,) = [line for line in lines if "| wa |" in line]
    assert "0.90 | 0.75 | not beaten in both |" in wa
    (bn,) = [line for line in lines if "| bn |" in line]
    assert "1.00 | 1.00 |  |" in bn  # wa is more accurate, and cheaper
    (unknown,) = [line for line in lines if "| wa+bn |" in line]
    assert "– | – |" in unknown
    assert "not of these trainings" in text
    best = [p.norm for p in points_of(shown[0], read_costs(table, plan)) if p.best]
    assert best == ["wa"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "can't be read"),
        ("a,b\n1,2\n", "is no table.csv of bench norms"),
        (f"{TITLES}\nresnet18,32,float32,8,1,1,1,1\n", "has resnet18 in float32, and the grid"),
    ],
)
def test_another_file_is_refused(tmp_path, grid, content, text):
    file = tmp_path / "other.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=text) as error:
        read_costs(file, grid[0])
    assert "\n" not in str(error.value)


def test_every_normaliser_is_compared_with_batch_norm(grid):
    (headline, *_) = tables(*grid)
    found = against_baseline(headline)
    assert list(found) == ["wa", "gn", "wa+bn"]
    of_wa = {
        task: [0.1 + 0.01 * ((seed + number) % 3) for seed in range(3)]
        for number, task in enumerate(TASKS[:2])
    }
    assert found["wa"].average.low == pytest.approx(compare(of_wa).average.low)
    assert found["gn"].average.difference == 0


def test_the_pictures_are_there_where_their_data_are(table, grid, tmp_path):
    plan, _runs = grid
    built = replace(report.build(tmp_path / "grid", plan), costs=read_costs(table, plan))
    save_pictures(built)
    there = [p.name for p in (tmp_path / "grid").glob("*.*g") if p.stem in ("cost", "forest")]
    assert sorted(there) == ["cost.png", "cost.svg", "forest.png", "forest.svg"]
    words = (tmp_path / "grid" / "cost.svg").read_text()
    assert "training step / bn" in words
    assert "wa" in words
    assert "cost.png" in report.files(tmp_path / "grid")
    save_pictures(replace(built, costs=None))
    assert not (tmp_path / "grid" / "cost.png").exists()
    assert (tmp_path / "grid" / "forest.png").exists()


def test_names_beside_a_panel_keep_their_distance_and_their_order():
    heights = [0.99, 0.98, 0.1, 0.5, 0.97]
    moved = spread(heights, least=0.1)
    order = sorted(range(5), key=heights.__getitem__)
    gaps = [moved[b] - moved[a] for a, b in itertools.pairwise(order)]
    assert min(gaps) >= 0.1 - 1e-9
    assert max(moved) <= 1
    assert moved[2] == 0.1
    assert normaliser_figures.LEAST < 0.1
