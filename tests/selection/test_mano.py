import math

import pytest
import torch
from made_evidence import evidence

from da.selection.mano import MaNo


def by_hand(logits):
    """The formula in loops, in the package's two steps."""
    rows = logits.double().tolist()
    n, k = len(rows), len(rows[0])
    log_p = [[z - math.log(sum(math.exp(y) for y in row)) for z in row] for row in rows]
    uncertain = -sum(map(sum, log_p)) / (n * k)
    total = 0.0
    for row, logs in zip(rows, log_p, strict=True):
        if uncertain > 5:
            p = [math.exp(x) for x in logs]
        else:
            y = [1 + z + z * z / 2 for z in row]
            y = [a - min(y) for a in y]
            p = [a / sum(y) for a in y]
        total += sum(a**4 for a in p)
    return uncertain > 5, (total / (n * k)) ** 0.25


@pytest.mark.parametrize(("scale", "softmax"), [(1.0, False), (2.5, False), (9.0, True)])
def test_it_is_the_norm_of_the_polynomial_or_of_the_softmax_by_the_criterion(scale, softmax):
    logits = scale * torch.randn(30, 6, generator=torch.Generator().manual_seed(3))
    by_softmax, expected = by_hand(logits)
    assert by_softmax == softmax
    assert MaNo()(evidence(logits)) == pytest.approx(expected, rel=1e-6)


def test_sure_predictions_are_at_the_bound_and_equal_logits_uniform():
    k = 4
    assert MaNo()(evidence(100 * torch.eye(k))) == pytest.approx(k**-0.25)
    assert MaNo()(evidence(torch.full((1, k), 7.0))) == pytest.approx(1 / k)
