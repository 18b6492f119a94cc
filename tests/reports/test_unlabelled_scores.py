"""A grid of which one target has labels and the other has none."""

from io import StringIO

from made_grids import fill, made_grid, noisy, written
from rich.console import Console

from da.reports import terminal


def without_labels(cell, result):
    """Takes what labels of the target say out of the results of one task."""
    result.remarks = ["a: 3 files are passed over"]
    if cell.task == "b->a":
        for evaluation in result.evaluations:
            for streams in evaluation.forms.values():
                for name, scores in streams.items():
                    if name.startswith("target"):
                        scores.accuracy = scores.class_mean = scores.cross_entropy = None
                        scores.label_free["InformationMaximisation"] = 0.1 * cell.seed


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
