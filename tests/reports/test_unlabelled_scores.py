"""A grid of which one target has labels and the other has none."""

from io import StringIO

import pytest
from made_grids import fill, made_grid, noisy, written
from rich.console import Console

from da.reports import terminal


def without_labels(cell, result, tasks=("b->a",)):
    """Takes what labels of the target say out of the results of some tasks."""
    result.remarks = ["a: 3 files are passed over"]
    if cell.task in tasks:
        for evaluation in result.evaluations:
            for streams in evaluation.forms.values():
                for name, scores in streams.items():
                    if name.startswith("target"):
                        scores.accuracy = scores.class_mean = scores.cross_entropy = None
                        scores.label_free["InformationMaximisation"] = 0.1 * cell.seed


@pytest.mark.parametrize(
    "sweep", [{}, {"model.bottleneck": [8, 16]}, {"model.optimizer": ["sgd", "adam"]}]
)
def test_where_no_target_has_labels_nothing_is_called_an_accuracy_of_it(tmp_path, sweep):
    plan, _ = fill(
        tmp_path,
        made_grid(sweep=sweep),
        noisy,
        change=lambda cell, result: without_labels(cell, result, cell.task),
    )
    built = written(tmp_path, plan)
    assert not built.has_labels
    assert not (tmp_path / "figure.png").exists()
    page = (tmp_path / "report.html").read_text()
    assert "<td" in page
    assert "accuracy on the target" not in page
    texts = [page, *((tmp_path / f"report.{end}").read_text() for end in ("md", "tex"))]
    for text in texts:
        assert "oracle" not in text.partition("</style>")[2] + text.partition("</style>")[0]
        assert "nothing is shown as an accuracy of it" in text
    # Where something is swept there are tables of the source's.
    assert ("Accuracy in percent" in texts[1]) == bool(sweep)


def test_scores_stand_where_accuracies_are_not_known(tmp_path):
    plan, _ = fill(tmp_path, made_grid(), noisy, change=without_labels)
    built = written(tmp_path, plan)  # with the picture
    assert (tmp_path / "figure.png").is_file()
    text = (tmp_path / "report.md").read_text()
    screen = StringIO()
    terminal.show(Console(file=screen, width=150), built, full=True)
    assert "| b->a | no labels | no labels | no labels | no labels | – |" in text
    assert "| average (1 of 2 tasks) | 52.0 ± 2.0 |" in text
    assert "| task | score | bn | bn@source-stats | bn@target-stats | wa |" in text
    fields = " | ".join(["0.1000 ± 0.1000"] * 4)
    assert f"| b->a | InformationMaximisation | {fields} |" in text
    assert "| a->b | InformationMaximisation |" not in text
    assert text.count("- images: a: 3 files are passed over\n") == 1
    assert "0.1000 ± 0.1000" in screen.getvalue()
    assert screen.getvalue().count("data: a: 3 files are passed over") == 1
