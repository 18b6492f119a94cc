import pytest
from fake_cells import a_cell, made
from pydantic import ValidationError

from da.engine.result import DEFAULT_SCORE, Result, select_evaluation


def with_accuracies(accuracies, scores):
    result = made(a_cell(epochs=len(accuracies)))
    for evaluation, accuracy, score in zip(result.evaluations, accuracies, scores, strict=True):
        evaluation.forms[""]["target/test"].accuracy = accuracy
        evaluation.forms[""]["target/validation"].label_free[DEFAULT_SCORE] = score
    return result


def test_the_three_selections_pick_their_epochs():
    result = with_accuracies([0.5, 0.9, 0.7, 0.6], [0.1, 0.2, 0.8, 0.3])
    assert select_evaluation(result, "", "last").epoch == 3
    assert select_evaluation(result, "", "label-free").epoch == 2
    assert select_evaluation(result, "", "oracle").epoch == 1


def test_ties_go_to_the_earliest_and_a_missing_score_selects_nothing():
    assert select_evaluation(with_accuracies([0.5, 0.9, 0.9], [1, 2, 2]), "", "oracle").epoch == 1
    assert (
        select_evaluation(with_accuracies([0.5, 0.9, 0.9], [1, 2, 2]), "", "label-free").epoch == 1
    )
    assert select_evaluation(with_accuracies([0.5, 0.9], [1, None]), "", "label-free") is None


def test_label_free_never_looks_at_target_labels():
    honest = with_accuracies([0.1, 0.2, 0.3], [3, 1, 2])
    for evaluation in honest.evaluations:
        for name in ("target/test", "target/validation"):
            evaluation.forms[""][name].accuracy = 1 - evaluation.forms[""][name].accuracy
    assert select_evaluation(honest, "", "label-free").epoch == 0


def broken(change):
    document = made(a_cell()).model_dump(mode="json")
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema_version=1),
        lambda d: d.update(run="0" * 16),
        lambda d: d.update(evaluations=[]),
        lambda d: d.update(initial_loss=float("nan")),
        lambda d: d.update(surprise=1),
        lambda d: d["spec"].update(seed=5),
        lambda d: d["evaluations"][0]["forms"].pop(""),
        lambda d: d["evaluations"][0]["forms"][""].pop("target/test"),
        lambda d: d["evaluations"][0]["forms"].update(other=d["evaluations"][0]["forms"][""]),
        lambda d: d["evaluations"][0]["forms"][""]["target/test"].update(accuracy=1.5),
    ],
)
def test_a_result_that_is_not_whole_is_refused(change):
    Result.model_validate(broken(lambda _: None))
    with pytest.raises(ValidationError):
        Result.model_validate(broken(change))
