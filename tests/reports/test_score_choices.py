"""What scores choose and what it costs, by hand on made-up results; the files, and bad input."""

import csv

import pytest
from fake_cells import a_cell, made
from made_grids import fill, made_grid
from refusing import refused

from da.cli import selection
from da.engine.run_folder import write_result
from da.errors import UserError
from da.grids import plan as plans
from da.reports.runs import Column
from da.reports.score_choices import choices, load_results, summaries
from da.reports.score_report import markdown, tidy

NAMES = ("InformationMaximisation", "NegativeEntropy", "EnsV")


def result(accuracies, scores, **settings):
    """A training whose evaluations have these accuracies, and scores by name."""
    cell = a_cell(epochs=len(accuracies), scores=tuple(scores), **settings)
    one = made(cell)
    for number, evaluation in enumerate(one.evaluations):
        streams = evaluation.forms[""]
        streams["target/test"].accuracy = accuracies[number]
        streams["target/test"].label_free = {}
        streams["target/validation"].accuracy = 0.123  # nobody looks at it
        streams["target/validation"].label_free = {
            name: values[number] for name, values in scores.items()
        }
    return one


def picked(made_choices, kind="epochs", **settings):
    return {
        c.by: c
        for c in made_choices
        if c.kind == kind and all(getattr(c, k) == v for k, v in settings.items())
    }


def test_the_epoch_of_the_highest_score_the_first_of_equal_ones_beside_the_last_and_a_draw():
    scores = {"InformationMaximisation": [1.0, 3.0, 3.0, 2.0], "EnsV": [0.9, 0.1, 0.2, 0.3]}
    found = picked(choices([result([0.5, 0.6, 0.9, 0.7], scores)]))
    assert {by: c.accuracy for by, c in found.items()} == {
        "last": 0.7,
        "any": pytest.approx(0.675),
        "InformationMaximisation": 0.6,
        "EnsV": 0.5,
    }
    assert found["EnsV"].regret == pytest.approx(0.4)
    assert found["EnsV"].correlation < 0 < found["InformationMaximisation"].correlation
    assert found["last"].correlation is None
    assert {c.best for c in found.values()} == {0.9}
    assert {c.candidates for c in found.values()} == {4}
    assert all(c.gain is None for c in found.values())


def test_a_score_that_is_no_number_somewhere_chooses_nothing():
    made_choices = choices([result([0.5, 0.6], {"EnsV": [None, 1.0]})])
    assert picked(made_choices)["EnsV"].regret is None
    line = next(one for one in summaries(made_choices) if one.by == "EnsV")
    assert (line.choices, line.unanswered, line.mean, line.correlation) == (0, 1, None, None)


def test_settings_are_chosen_at_the_last_evaluation_in_the_same_place_and_not_by_a_set():
    def one(last, im, **settings):
        scores = {"InformationMaximisation": [9.0, im], "EnsV": [1.0, im]}
        return result([0.99, last], scores, **settings)

    results = [
        one(0.6, 2.0, lr=0.1),
        one(0.8, 1.0, lr=0.01),
        one(0.7, 1.5, lr=0.01, method_args={"w": 2}),
        one(0.2, 9.0, lr=0.01, batch_size=8),  # alone with its batch size, and so on
        one(0.2, 9.0, lr=0.01, steps_per_epoch=20),
        one(0.2, 9.0, lr=0.01, model_args={"backbone": "resnet18"}),
        one(0.2, 9.0, lr=0.01, norm_options={"groups": 8}),
        one(0.2, 9.0, lr=0.01, seed=1),
        one(0.2, 9.0, lr=0.01, norm="wa"),
        one(0.2, 9.0, lr=0.01, method="N"),
        one(0.2, 9.0, lr=0.01, target="c"),
        one(0.2, 9.0, lr=0.01, data_args={"validation": 0.2}),
    ]
    found = picked(choices(results), "settings")
    assert set(found) == {"any", "InformationMaximisation"}
    assert found["InformationMaximisation"].accuracy == 0.6
    assert found["InformationMaximisation"].regret == pytest.approx(0.2)
    assert found["InformationMaximisation"].correlation < 0
    assert found["any"].accuracy == pytest.approx(0.7)
    assert found["any"].candidates == 3
    # Where the data lie is no other place.
    moved = [one(0.6, 1.0, data_args={"root": root}, lr=lr) for root, lr in (("/a", 1), ("/b", 2))]
    assert picked(choices(moved), "settings")["any"].candidates == 2


def test_the_gain_is_over_source_only_that_is_equal_but_for_the_method_and_a_tuned_rate():
    scores = {"EnsV": [1.0, 0.0]}
    shared = {"model_args": {"backbone": "resnet18"}, "trainer": {"max_steps": 5}}
    results = [
        result([0.4, 0.5], scores, method="SourceOnly", **shared),
        result([0.9, 0.8], scores, method_args={"w": 2}, **shared),
        # In a tuned grid each method has a rate of its own.
        result([0.9, 0.7], scores, **shared, lr=0.5),
        # One setting is another each: there is nothing to compare with.
        result([0.9, 0.8], scores, **shared, norm="wa"),
        result([0.9, 0.8], scores, **shared, batch_size=8),
        result([0.9, 0.8], scores, **shared, steps_per_epoch=20),
        result([0.9, 0.8], scores, **shared, data_args={"validation": 0.2}),
        result([0.9, 0.8], scores, trainer=shared["trainer"]),
        result([0.9, 0.8], scores, model_args=shared["model_args"]),
    ]
    gains = [c.gain for c in choices(results) if c.by == "EnsV" and c.kind == "epochs"]
    assert gains == [None, pytest.approx(0.4), pytest.approx(0.4), *[None] * 6]
    made_choices = choices(results[:4])
    line = next(s for s in summaries(made_choices) if (str(s.column), s.by) == ("bn", "EnsV"))
    assert (line.gain, line.compared, line.choices) == (pytest.approx(0.4), 2, 3)
    assert "+40.0 (2)" in markdown("selection x", results[:4], made_choices, [line])
    found = picked(made_choices, method="M", column=Column("bn"))
    assert {choice.source_only for choice in found.values()} == {0.5}
    assert found["EnsV"].references == (results[0].run,)


def test_of_source_only_at_several_rates_the_one_at_the_same_rate_is_compared_with():
    scores = {"EnsV": [1.0, 0.0]}
    rates = [result([0.4, lr], scores, method="SourceOnly", lr=lr) for lr in (0.3, 0.5)]
    mine = [result([0.4, 0.9], scores, lr=lr) for lr in (0.3, 0.5, 0.7)]
    found = [c.source_only for c in choices([*rates, *mine]) if c.method == "M" and c.by == "last"]
    assert found == [0.3, 0.5, None]


def test_among_settings_source_only_picks_by_the_same_score_among_the_same_rates():
    def one(accuracy, score, lr, **settings):
        return result([accuracy], {"NegativeEntropy": [score]}, lr=lr, **settings)

    mine = [one(0.9, 2.0, 0.1), one(0.7, 1.0, 0.2)]
    source = [
        one(0.4, 1.0, 0.1, method="SourceOnly"),
        one(0.6, 3.0, 0.2, method="SourceOnly"),
        one(0.1, 9.0, 0.3, method="SourceOnly"),  # a rate that is not tried of the other
        one(0.1, 9.0, 0.1, method="SourceOnly", batch_size=8),
    ]
    found = picked(choices([*mine, *source]), "settings", method="M")
    assert found["NegativeEntropy"].gain == pytest.approx(0.9 - 0.6)
    assert found["any"].gain == pytest.approx(0.8 - 0.5)
    assert found["any"].references == (source[0].run, source[1].run)
    lacking = picked(choices([*mine, source[0]]), "settings", method="M")
    assert lacking["NegativeEntropy"].gain is None
    assert lacking["NegativeEntropy"].references == ()


def test_a_choice_names_its_runs_and_its_pick_and_the_report_those_that_enter_none():
    chosen = [result([0.5, 0.9], {"NegativeEntropy": [1.0, last]}, lr=last) for last in (2, 0.5)]
    alone = result([0.4], {"NegativeEntropy": [1.0]}, seed=7)
    unlabelled = made(a_cell(seed=8), None)
    results = [*chosen, alone, unlabelled]
    made_choices = choices(results)
    rows = {(row["kind"], row["lr"], row["by"]): row for row in tidy(made_choices)}
    row = rows["settings", 2, "NegativeEntropy"]
    assert (row["data"], row["method_args"]) == ("x.Y", "{}")
    assert row["picked_run"] == chosen[0].run
    assert {*row["runs"].split()} == {one.run for one in chosen}
    assert rows["epochs", 0.5, "NegativeEntropy"]["picked_epoch"] == 0
    assert rows["epochs", 2, "NegativeEntropy"]["picked_epoch"] == 1
    even = rows["settings", None, "any"]
    assert (even["picked_run"], even["picked_epoch"]) == (None, None)
    text = markdown("selection x", results, made_choices, summaries(made_choices))
    assert "- trainings: 2, of M on x.Y: a->b; seeds 0\n" in text
    assert "- left out: 1, whose target has no labels\n" in text
    assert "- left out: 1, evaluated once, and unlike every other" in text
    assert "compared with" not in text
    once = [result([0.5], {"NegativeEntropy": [1.0]}, lr=1, method_args={"w": w}) for w in (1, 2)]
    source = result([0.4], {"NegativeEntropy": [1.0]}, lr=1, method="SourceOnly")
    made_choices = choices([*once, source])
    text = markdown("selection x", [*once, source], made_choices, summaries(made_choices))
    assert "- trainings: 2, of M on" in text
    assert "- 1 more of SourceOnly are compared with, and no choice\n" in text
    assert "left out" not in text


def test_means_medians_and_shares_are_over_the_choices_of_a_normaliser():
    regrets = (0.0, 0.02, 0.1, 0.2)
    results = [
        result([0.9 - r, 0.9], {"EnsV": [1.0, 0.0]}, seed=seed) for seed, r in enumerate(regrets)
    ]
    lines = summaries(choices(results))
    assert [one.by for one in lines] == ["last", "any", "EnsV"]
    last, _, line = lines
    assert (last.mean, last.within, last.above) == (0.0, 1.0, 0.0)
    assert (line.mean, line.median) == (pytest.approx(0.08), pytest.approx(0.06))
    assert (line.within, line.above, line.choices) == (0.5, 0.25, 4)


def test_forms_are_normalisers_of_their_own_and_only_compared_where_all_have_them():
    cells = [a_cell(lr=0.1), a_cell(lr=0.2)]
    both = [made(cells[0], forms=("", "target-stats")), made(cells[1])]
    found = choices(both)
    assert {str(c.column) for c in found if c.kind == "epochs"} == {"bn", "bn@target-stats"}
    assert {str(c.column) for c in found if c.kind == "settings"} == {"bn"}


def test_nothing_to_choose_and_nothing_known_is_refused():
    with pytest.raises(UserError, match="evaluated once, and no two of them differ in nothing but"):
        choices([result([0.5], {"EnsV": [1.0]})])
    with pytest.raises(UserError, match="no target has labels"):
        choices([made(a_cell(), None)])
    assert choices([result([0.0, 0.0], {})])  # an accuracy of 0 is one


def test_trainings_come_from_a_grid_a_tuning_and_a_fit_each_once(tmp_path):
    grid = made_grid(scores=NAMES, sweep={"method.trade_off": (0.1, 1.0)})
    plan, _ = fill(tmp_path / "grid", grid, lambda cell: 0.5 + 0.1 * cell.seed)
    plans.write(tmp_path / "grid", plan)
    stale = a_cell(seed=77)  # of an earlier plan
    for folder, cell in (
        (tmp_path / "grid/cells/stale", stale),
        (tmp_path / "tune/cells/one", plan.cells[0]),
        (tmp_path / "tune/cells/other", a_cell(seed=5)),
        (tmp_path / "fit", a_cell(seed=6)),
    ):
        folder.mkdir(parents=True)
        write_result(folder, made(cell))
    found = load_results([tmp_path / name for name in ("grid", "tune", "fit")])
    assert len(found) == len(plan.cells) + 2
    assert not any(one.spec.seed == 77 for one in found)


def test_the_command_prints_and_writes_tables_and_pictures(tmp_path, capsys):
    grid = made_grid(
        scores=NAMES, sweep={"method.trade_off": (0.1, 1.0)}, methods={"SourceOnly": {}}
    )
    fill(tmp_path, grid, lambda cell: 0.5 + 0.1 * cell.seed + 0.2 * (cell.norm == "wa"))
    assert selection.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Which of several settings" in said
    out = tmp_path / "selection"
    assert said.splitlines()[-1].startswith(f"written: {out}/report.md, table.csv")
    text = (out / "report.md").read_text()
    assert "| wa | InformationMaximisation | 12 | 0.0 | 0.0 | 100 | 0 | – | – |  |" in text
    assert "Candidates of a choice: 3." in text
    assert "Candidates of a choice: 2." in text
    with (out / "choices.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Of each normaliser 12 trainings, bn in three forms: by last, any, and three scores an epoch;
    # by any and two scores a setting.
    assert sum(row["kind"] == "epochs" for row in rows) == 12 * (1 + 3) * 5
    assert sum(row["kind"] == "settings" for row in rows) == 6 * (1 + 3) * 3
    assert (out / "figure.png").stat().st_size > 1000
    assert (out / "figure.svg").stat().st_size > 1000
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    assert selection.main([str(tmp_path)]) == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path):
    said = refused(lambda: selection.main([str(tmp_path / "nix")]))
    assert said.endswith(
        "holds no finished training; expected an output folder of ablate, tune or fit"
    )
    assert "folders" in refused(lambda: selection.main([]))
    assert "unknown option '--oot'" in refused(lambda: selection.main(["a", "--oot", "b"]))
    (tmp_path / "file").write_text("")
    said = refused(lambda: selection.main(["a", "--out", str(tmp_path / "file")]))
    assert said.startswith("out: ")
    grid = tmp_path / "grid"
    fill(grid, made_grid(), lambda cell: 0.5)
    damaged = next(grid.glob("cells/*/result.json"))
    damaged.write_text(damaged.read_text().replace("0.5", "0.6", 1))
    assert str(damaged.parent.name) in refused(lambda: selection.main([str(grid)]))
    assert not (grid / "selection").exists()
