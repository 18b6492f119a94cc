import numpy as np
import pytest

from da.ops.schedules import annealing, reversal_strength


@pytest.mark.parametrize("p", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_reversal_is_the_published_curve(p):
    # 2 / (1 + exp(-10 p)) - 1 is tanh(5 p)
    assert reversal_strength(p) == pytest.approx(np.tanh(5 * p), rel=1e-12)
    assert reversal_strength(p, maximum=0.1) == pytest.approx(0.1 * np.tanh(5 * p), rel=1e-12)


def test_fixed_horizon_gives_the_values_of_the_published_tables():
    # at step i of a horizon of 10,000: .46 at 1,000 and .96 at 4,000; .25 after 500
    values = [round(reversal_strength(i / 10_000), 2) for i in (500, 1_000, 4_000)]
    assert values == [0.24, 0.46, 0.96]


@pytest.mark.parametrize("step", [0, 1, 300, 10_000, 20_000])
def test_annealing_is_the_published_one(step):
    # lr (1 + gamma i)^-0.75 with gamma = 1e-3 is alpha = 10 over a horizon of 10,000
    assert annealing(step / 10_000) == pytest.approx((1 + 1e-3 * step) ** -0.75, rel=1e-12)
    assert annealing(step / 10_000, alpha=0.0) == 1.0
