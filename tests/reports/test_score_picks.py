"""What every score picks, between the last epoch and the oracle's, by hand."""

import pytest
from made_grids import fill, lines_of, made_grid

from da.reports.model import Report
from da.reports.runs import scores
from da.reports.tables import tables

IM, SND, MMD = "InformationMaximisation", "SND", "MMD"
ACCURACIES = {"bn": (0.2, 0.8, 0.4), "wa": (0.3, 0.5, 0.7)}
VALUES = {IM: (0.0, 1.0, 0.5), SND: (1.0, 0.0, 0.5), MMD: (0.0, 0.0, None)}


def evaluated(cell, result):
    for number, evaluation in enumerate(result.evaluations):
        evaluation.forms = {"": evaluation.forms[""]}
        streams = evaluation.forms[""]
        streams["target/test"].accuracy = ACCURACIES[cell.norm][number]
        for stream in streams.values():
            stream.label_free = {score: values[number] for score, values in VALUES.items()}


@pytest.fixture
def report(tmp_path):
    def made(**settings):
        grid = made_grid(methods={"M": {}, "N": {}}, **settings)
        plan, runs = fill(tmp_path, grid, lambda cell: 0.5, change=evaluated)
        return Report(plan, runs, tables(plan, runs))

    return made


def test_the_picks_of_all_scores_stand_between_the_last_epoch_and_the_oracle(report):
    (section,) = [s for s in report(scores=(IM, SND, MMD)).sections if "picks" in s.title]
    text = "\n".join(lines_of([section]))
    assert f"| method | normaliser | last | {IM} | SND | MMD | oracle |" in text
    assert "| M | bn | 40.0 | **80.0** | 20.0 | – | 80.0 |" in text
    assert "| N | wa | 70.0 | **50.0** | 30.0 | – | 70.0 |" in text
    assert f"differences are by {IM}." in text


def test_a_grid_of_one_score_has_no_such_section(report):
    assert not [s for s in report(scores=(IM,)).sections if "picks" in s.title]


def test_the_table_of_scores_has_the_pick_of_each(report):
    rows = [r for r in scores(report(scores=(IM, SND, MMD)).runs) if r["normaliser"] == "bn"]
    picks = {row["selection"]: (row["epoch"], row["target_test_accuracy"]) for row in rows}
    epochs = {name: epoch for name, (epoch, _) in picks.items()}
    assert list(picks) == ["last", "label-free", "oracle", "label-free (SND)", "label-free (MMD)"]
    assert picks["label-free (SND)"][1] == 0.2
    assert picks["label-free"] == picks["oracle"]
    assert epochs["label-free (MMD)"] is None
