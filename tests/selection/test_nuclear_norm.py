import numpy as np
import pytest
import torch
from made_evidence import evidence
from scipy.special import softmax

from da.selection.nuclear_norm import NuclearNorm


@pytest.mark.parametrize(("n", "classes"), [(40, 7), (7, 40), (1, 3)])
def test_it_is_the_sum_of_singular_values_over_its_bound(n, classes):
    logits = 4 * torch.randn(n, classes, generator=torch.Generator().manual_seed(n))
    p = softmax(logits.double().numpy(), axis=1)
    # Singular values are roots of the eigenvalues of the smaller product.
    square = p.T @ p if n > classes else p @ p.T
    norm = np.sqrt(np.linalg.eigvalsh(square).clip(0)).sum()
    expected = norm / np.sqrt(n * min(n, classes))
    assert NuclearNorm()(evidence(logits)) == pytest.approx(expected, rel=1e-6)


def test_sure_and_even_predictions_score_1_and_uniform_ones_1_over_the_classes():
    k = 5
    even, one, unsure = (
        100 * torch.eye(k).repeat(4, 1),
        100 * torch.eye(k)[[0] * 20],
        torch.ones(20, k),
    )
    found = [NuclearNorm()(evidence(x)) for x in (even, one, unsure)]
    assert found == pytest.approx([1.0, k**-0.5, 1 / k])
