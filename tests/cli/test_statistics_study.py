"""A study of target statistics as real processes, with cells and measurements that are made up."""

import csv
import shutil
from types import SimpleNamespace

import pytest
import yaml
from refusing import refused
from test_ablate import GRID, Bench

from da.cli import ablate, report
from da.errors import UserError
from da.grids.grid import root
from da.grids.statistics_study import Questions, check_questions, is_study, read_study
from da.reports import target_statistics_figures
from da.reports.target_statistics import WAYS
from da.reports.target_statistics_answers import Answers
from da.reports.target_statistics_figures import save_figures

STUDY = """
grid: grid.yaml
norms: [bn, wa]
seeds: [0, 1]
images: [1, 4, all]
mixture: {source: [0, 0.5]}
label_shift: [iid, 0.1, sorted]
adapters: [BatchStatistics, TENT]
draws: 2
"""


@pytest.fixture
def bench(tmp_path):
    b = Bench(tmp_path, {})
    (tmp_path / "study.yaml").write_text(STUDY)
    return b


def study(b, *options):
    """Runs the study, in its folder of its own."""
    process = b.start("--out", "asked", *options, config="study.yaml")
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def measured(b):
    path = b.folder / "measured"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_it_trains_what_is_missing_measures_once_and_reports(bench, capsys):
    assert bench.run("--seeds", "0", "--keep")[0] == 0  # the grid's own cells, kept, in out/
    before = {p: p.read_bytes() for p in (bench.folder / "out").rglob("*") if p.is_file()}
    code, said = study(bench, "--trained", "out")
    assert code == 0, said
    assert "4 networks: 2 with a checkpoint in out, 0 in asked, 2 to train" in said
    assert set(bench.claims().values()) == {1}
    assert len(bench.claims()) == 4
    places = [path.split("/")[0] for _, path in measured(bench)]
    assert sorted(places) == ["asked", "asked", "out", "out"]
    after = {p: p.read_bytes() for p in (bench.folder / "out").rglob("*") if p.is_file()}
    assert after == before  # the grid's folder stays as it is
    assert (
        "bn, reestimated: below bn as trained (45.0): 1, 4; below wa as trained (50.0): 1, 4"
        in said
    )
    out = bench.folder / "asked"
    text = (out / "report.md").read_text()
    assert "| bn, reestimated | 31.5 ± 1.4 | 41.5 ± 1.4 | 51.5 ± 1.4 |" in text
    assert "| wa, BatchStatistics | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 |" in text
    assert "(dsbn)" not in text
    for name in ("images", "mixture", "label_shift"):
        assert (out / f"{name}.png").stat().st_size > 10_000
        assert f"]({name}.png)" in text
    with (out / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 8 * 3 * 2) + 2 * (1 + 8 * 2)
    # Again: nothing is trained, nothing measured, and the report can be made from the folder.
    assert study(bench, "--trained", "out")[0] == 0
    assert len(measured(bench)) == 4
    (out / "report.md").unlink()
    assert report.main([str(out)]) == 0
    assert (out / "report.md").read_text() == text
    assert "images.png" in capsys.readouterr().out


def test_pictures_of_answers_that_are_no_more_are_removed(tmp_path):
    answers = Answers(SimpleNamespace(questions=Questions(images=(1,))), [], [], [], ["bn"])
    for name in ("images.png", "images.svg", "mixture.png"):
        (tmp_path / name).touch()
    assert save_figures(tmp_path, answers) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_way_that_is_not_defined_for_a_network_is_a_dash(bench):
    (bench.folder / "study.yaml").write_text(STUDY.replace("[bn, wa]", "[dsbn, bn, wa]"))
    code, said = study(bench, "--seeds", "0")
    assert code == 0, said
    assert "dsbn, BatchStatistics: below dsbn as trained (45.0): 1, 4; " in said
    assert "dsbn, reestimated" not in said
    out = bench.folder / "asked"
    text = (out / "report.md").read_text()
    assert "| dsbn, reestimated | – | – | – |" in text
    assert "| dsbn, BatchStatistics | 30.5 | 40.5 | 50.5 |" in text
    assert "| wa, reestimated | 50.0 | 50.0 | 50.0 |" in text
    assert "–: batch norm that keeps statistics of each domain (dsbn) is not re-estimated" in text
    with (out / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["way"] == "reestimated"]
    assert {row["dsbn mean"] for row in rows} == {""}
    assert "" not in {row["bn mean"] for row in rows}
    assert (out / "images.png").stat().st_size > 10_000


@pytest.mark.long
def test_other_questions_are_measured_anew_and_nothing_is_trained(bench):
    assert study(bench)[0] == 0
    (bench.folder / "study.yaml").write_text(STUDY.replace("draws: 2", "draws: 1"))
    assert study(bench)[0] == 0
    assert set(bench.claims().values()) == {1}
    assert len(measured(bench)) == 8


@pytest.mark.long
def test_a_lost_checkpoint_is_trained_again_and_its_result_said(bench):
    assert bench.run()[0] == 0  # without --keep
    assert study(bench, "--trained", "out")[0] == 0
    code, said = study(bench, "--trained", "out", "--dry-run")
    assert code == 0
    assert "4 networks: 0 with a checkpoint in out, 4 in asked, 0 to train" in said
    assert "to measure: 0 of 4 networks, each with 8 values x 3 ways x 2 draws" in said
    lost = next((bench.folder / "asked" / "cells").iterdir())
    (lost / "last.ckpt").unlink()
    shutil.rmtree(bench.folder / "asked" / "measurements")
    code, said = study(bench, "--trained", "out")
    assert code == 0
    assert "1 of those to train have a result in out and no checkpoint" in said
    assert bench.claims()[lost.name] == 3
    assert len(measured(bench)) == 8


@pytest.mark.long
def test_what_fails_and_diverges_is_named(bench):
    bench.behave({"1": "diverge"})
    code, said = study(bench)
    assert code == 3
    assert "missing: a->b M wa seed 1 (batch 32, lr 0.01): diverged: loss is nan at step 3" in said
    text = (bench.folder / "asked" / "report.md").read_text()
    assert "## Missing: 2 of 4 networks" in text
    assert "Complete in no task, so left out: bn, wa." in text
    said = study(bench, "--dry-run")[1]
    assert (
        "4 networks: 0 with a checkpoint in runs/grid, 2 in asked, 0 to train, 2 known to" in said
    )
    assert "to measure: 0 of 4 networks" in said
    assert "to train:" not in said
    assert not (bench.folder / "asked" / "images.png").exists()
    with (bench.folder / "asked" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    lost = [row for row in rows if row["missing"]]
    assert [row["seed"] for row in lost] == ["1", "1"]
    assert {row["missing"] for row in lost} == {"diverged: loss is nan at step 3"}
    assert {row["question"] for row in lost} == {""}
    bench.behave({"measure": "raise"})
    (bench.folder / "study.yaml").write_text(STUDY.replace("draws: 2", "draws: 1"))
    code, said = study(bench, "--seeds", "0")
    assert code == 1
    assert "failed: ValueError: no answer" in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("images: [1, 4, all]", "images: [0]", ("images", "above 0")),
        ("images: [1, 4, all]", "image: [1]", ("unknown setting 'image'; did you mean 'images'",)),
        ("source: [0, 0.5]", "source: [0, 1]", ("mixture", "below 1")),
        ("source: [0, 0.5]", "source: []", ("mixture: no share of source; name some",)),
        ("source: [0, 0.5]", "source: [0.5, 0.5]", ("mixture", "shares of source given twice")),
        ("[iid, 0.1, sorted]", "[iid, iid]", ("label_shift", "given twice: iid")),
        ("[iid, 0.1, sorted]", "[shuffled]", ("label_shift",)),
        ("grid: grid.yaml", "grid: gird.yaml", ("grid: no file", "gird.yaml")),
        ("draws: 2", "draws: 0", ("draws: expected a whole number above 0, got 0",)),
        ("[BatchStatistics, TENT]", "[reestimated]", ("the way without an adapter",)),
    ],
)
def test_a_wrong_study_is_refused_in_a_line(bench, old, new, words):
    path = bench.folder / "study.yaml"
    path.write_text(STUDY.replace(old, new))
    refused(lambda: read_study(path, {}), str(path), *words)


def test_options_that_do_not_fit_are_refused(bench, monkeypatch):
    monkeypatch.chdir(bench.folder)
    refused(
        lambda: ablate.main(["grid.yaml", "--trained", "out"]), "--trained: grid.yaml is a grid"
    )
    line = ["study.yaml", "--out", "out", "--trained", "out"]
    refused(lambda: ablate.main(line), "--out: 'out' is the folder of the grid", "name another")
    refused(lambda: ablate.main(["study.yaml", "--lr", "published,0.1"]), "several values of lr")
    line = ["study.yaml", "--out", "asked", "--trained", "uot"]
    refused(lambda: ablate.main(line), "--trained: no folder 'uot'")


def test_a_grid_that_stops_by_itself_says_which_seeds_it_has(bench, monkeypatch, capsys):
    monkeypatch.chdir(bench.folder)
    monkeypatch.setenv("FAKE_CELLS", str(bench.folder))
    (bench.folder / "grid.yaml").write_text(GRID.replace("[0, 1, 2]", "[0, 1, 2, 3]"))
    (bench.folder / "study.yaml").write_text("grid: grid.yaml\nimages: [4]\n")
    assert bench.run("--seeds", "0,1")[0] == 0
    with (bench.folder / "grid.yaml").open("a") as file:
        file.write("stop_at: 1\n")

    def dry_run(*options):
        line = ["study.yaml", "--out", "asked", "--dry-run", *options]
        return ablate.main(line, check="fake_cells:check")

    refused(dry_run, "the grid stops by itself (stop_at), and runs/grid holds no grid.json")
    assert dry_run("--trained", "out") == 0
    assert "to measure: 4 of 4 networks" in capsys.readouterr().out  # of seeds 0 and 1
    assert dry_run("--seeds", "0-2") == 0
    assert "to measure: 6 of 6 networks" in capsys.readouterr().out


def test_adapters_and_their_options_must_exist():
    asked = Questions(images=(1,), adapters={"TNT": {}, "TENT": {"rate": 1}}).model_dump()
    with pytest.raises(UserError) as caught:
        check_questions(asked, "Digits", {})
    first, second = str(caught.value).splitlines()
    assert first.startswith("adapters.TNT: unknown adapter 'TNT'; did you mean 'TENT'")
    assert second.startswith("adapters.TENT: adapter TENT: ")


def test_a_batch_of_one_image_is_for_adapters_that_take_it():
    adapters = {"TENT": {}, "BatchStatistics": {"single_images": True}}
    asked = Questions(images=(1, 4), adapters=adapters).model_dump()
    said = refused(lambda: check_questions(asked, "Digits", {}), "adapters.TENT.single_images:")
    assert "BatchStatistics" not in said
    check_questions(Questions(images=(2, "all"), adapters=adapters).model_dump(), "Digits", {})
    adapters["TENT"]["single_images"] = True
    check_questions(Questions(images=(1, 4), adapters=adapters).model_dump(), "Digits", {})


def test_a_dry_run_checks_the_questions_too(tmp_path, refused_words):
    (tmp_path / "grid.yaml").write_text(
        GRID.replace("x.Y", "Digits").replace("[M]", "[SourceOnly]")
    )
    (tmp_path / "study.yaml").write_text("grid: grid.yaml\nimages: [4]\nadapters: [TNT]\n")
    said = refused_words("ablate", "study.yaml", "--dry-run", "--tasks", "rendered->optical")
    assert said.startswith("adapters.TNT: unknown adapter 'TNT'; did you mean 'TENT'")


def test_a_mixture_of_others_needs_a_third_domain():
    asked = Questions(mixture={"others": (0.5,)}).model_dump()
    check_questions(asked, "Digits", {})
    names = ("Digits has no domain but source and target",)

    class Two:
        @staticmethod
        def available(root):
            return ("a", "b")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("da.engine.components.find_data", lambda name: Two)
        refused(lambda: check_questions(asked, "Digits", {}), "mixture.others", *names)


STUDIES = [path for path in sorted((root() / "configs/ablations").glob("*.yaml")) if is_study(path)]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_preset_asks_something(path):
    asked = Questions.model_validate(
        {k: v for k, v in yaml.safe_load(path.read_text()).items() if k in Questions.model_fields}
    )
    assert [question for question, _, _ in asked.series()] == [
        "images", "mixture", "mixture", "label_shift",
    ]  # fmt: skip


def test_the_digits_are_asked_of_the_default_grids_cells():
    """Cells of the study are cells of the grid: with the same identity, so that none is trained
    that the grid has."""
    from da.grids.grid_file import find_config, read_grid

    path = find_config("configs/ablations/target_statistics.yaml")
    _, _, part = read_study(path, {"lr": ["published"]})
    whole = read_grid(find_config("configs/ablations/digits.yaml"), {"lr": ["published"]})

    def ids(grid, norms):
        return {
            grid.cell(task, "SourceOnly", norm, {}, seed, 0.1).id
            for task in part.tasks
            for norm in norms
            for seed in part.seeds
        }

    assert list(part.norms) == ["bn", "gn", "wa", "wa+bn"]
    assert ids(part, whole.norms) == ids(whole, whole.norms)


@pytest.mark.long
def test_a_study_of_many_networks_has_a_panel_for_each(bench, monkeypatch):
    (bench.folder / "study.yaml").write_text(STUDY.replace("[bn, wa]", "[dsbn, bn, wa]"))
    code, said = study(bench, "--seeds", "0")
    assert code == 0, said
    kept = {}

    def keep(figure, path):
        kept[path.name] = figure
        return [path]

    monkeypatch.setattr(target_statistics_figures, "write", keep)
    monkeypatch.setattr(target_statistics_figures, "COLOURS", ("#000000",))  # one is too few
    assert report.main([str(bench.folder / "asked")]) == 0
    panels = [panel for panel in kept["images"].axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["dsbn", "bn", "wa"]
    lines = [{x.get_label(): list(x.get_ydata()) for x in p.get_lines()} for p in panels]
    every = [*WAYS.values(), "TENT", "as trained"]
    assert [list(one) for one in lines] == [every[1:], every, every]  # dsbn is not re-estimated
    assert lines[1][every[0]] == pytest.approx([30.5, 40.5, 50.5])
    assert lines[2]["as trained"] == pytest.approx([50, 50])
    assert len([panel for panel in kept["mixture"].axes if panel.get_visible()]) == 3
