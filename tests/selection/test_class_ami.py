import pytest
import torch
from made_evidence import evidence

from da.selection.class_ami import ClassAMI


def clouds(n=60, classes=3):
    """Features in clouds that lie far apart, with the number of each."""
    generator = torch.Generator().manual_seed(4)
    number = torch.arange(n) % classes
    centres = 50 * torch.eye(classes, 5)
    return centres[number] + torch.randn(n, 5, generator=generator), number


def test_predictions_of_the_clusters_score_1_under_any_names_and_others_about_0():
    features, number = clouds()
    renamed = 9.0 * torch.eye(3)[(number + 1) % 3]
    assert ClassAMI()(evidence(renamed, features)) == pytest.approx(1.0)
    unrelated = 9.0 * torch.eye(3)[torch.arange(60) // 20]
    assert abs(ClassAMI()(evidence(unrelated, features))) < 0.1


def test_it_is_the_mutual_information_less_its_expectation():
    features, number = clouds()
    predicted = number.clone()
    predicted[:15] = (predicted[:15] + 1) % 3
    # Labels that are drawn anew in any order: the expectation, by simulation.
    generator = torch.Generator().manual_seed(5)

    def information(a, b):
        joint = torch.zeros(3, 3, dtype=torch.float64)
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            joint[i, j] += 1 / len(a)
        outer = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        seen = joint > 0
        return float((joint[seen] * (joint[seen] / outer[seen]).log()).sum())

    drawn = [
        information(predicted[torch.randperm(60, generator=generator)], number) for _ in range(500)
    ]
    expected = sum(drawn) / len(drawn)
    entropies = (information(predicted, predicted) + information(number, number)) / 2
    by_hand = (information(predicted, number) - expected) / (entropies - expected)
    found = ClassAMI()(evidence(9.0 * torch.eye(3)[predicted], features))
    assert found == pytest.approx(by_hand, abs=0.02)


def test_a_network_that_tells_nothing_apart_scores_0():
    one_class, classes = torch.zeros(6, 4), torch.eye(4)[torch.arange(6) % 4]
    dead, alive = torch.zeros(6, 2), torch.arange(6.0)[:, None] % 2
    assert ClassAMI()(evidence(one_class, dead)) == 0.0
    assert ClassAMI()(evidence(one_class, alive)) == 0.0
    assert ClassAMI()(evidence(classes, dead)) == 0.0
    assert ClassAMI()(evidence(one_class[:1], torch.ones(1, 2))) == 0.0


def test_fewer_features_than_classes_and_a_class_never_predicted_give_a_number():
    alive = torch.arange(6.0)[:, None] % 2
    assert ClassAMI()(evidence(torch.eye(4)[torch.arange(6) % 2], alive)) == pytest.approx(1)


def test_the_seed_decides_and_is_named():
    generator = torch.Generator().manual_seed(6)
    features, logits = torch.randn(80, 4, generator=generator), torch.randn(80, 9)
    found = [ClassAMI()(evidence(logits, features, seed=seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0] != found[2]
