import math

import pytest
import torch
from made_evidence import evidence
from scipy.spatial.distance import cosine
from scipy.special import softmax
from scipy.stats import entropy

from da.selection.snd import SND, soft_neighbourhood_density


@pytest.mark.parametrize(("n", "classes", "scale"), [(30, 6, 3.0), (2, 3, 1.0), (25, 4, 50.0)])
def test_it_is_the_entropy_of_neighbours_without_the_image_itself(n, classes, scale):
    logits = scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))
    p = softmax(logits.double().numpy(), axis=1)
    expected = sum(
        entropy(softmax([(1 - cosine(p[i], p[j])) / 0.05 for j in range(n) if j != i]))
        for i in range(n)
    )
    assert SND()(evidence(logits)) == pytest.approx(expected / n, rel=1e-4, abs=1e-6)


def test_pieces_of_any_size_give_the_same():
    p = torch.randn(23, 4, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    whole = soft_neighbourhood_density(p)
    for chunk in (1, 23, 100, 23 * 23 - 1):
        assert soft_neighbourhood_density(p, chunk=chunk) == pytest.approx(whole, rel=1e-6)


def test_one_class_for_all_scores_best_and_dense_groups_better_than_scattered_predictions():
    n, k = 40, 8
    one, groups = 100 * torch.eye(k)[[0] * n], 100 * torch.eye(k)[torch.arange(n) % 2]
    scattered = 2 * torch.randn(n, k, generator=torch.Generator().manual_seed(2))
    found = [SND()(evidence(x)) for x in (one, groups, scattered)]
    assert found[0] == pytest.approx(math.log(n - 1), rel=1e-6)
    assert found[1] == pytest.approx(math.log(n / 2 - 1), abs=1e-5)
    assert found[2] < found[1]


def test_a_single_image_has_no_neighbours():
    assert SND()(evidence(torch.ones(1, 3))) == 0.0
