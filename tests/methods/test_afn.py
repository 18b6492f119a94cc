import numpy as np
import pytest
import torch
from refusing import refused
from scipy.special import softmax
from scipy.stats import entropy
from short_runs import small

from da.methods.afn import AFN, hard_norm_loss, stepwise_norm_loss
from da.types import Activations


def activations(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (1 + seed) * torch.randn(n, 16, generator=generator).double()
    return Activations(x[:, :6], x[:, 6:])


def lengths(features):
    return np.array([np.sqrt(sum(x**2 for x in row)) for row in features.tolist()])


def test_the_hard_loss_agrees_with_numpy_and_is_0_at_the_radius():
    features = activations(7, 0).features
    mean = lengths(features).mean()
    assert hard_norm_loss(features, 25.0).item() == pytest.approx((mean - 25) ** 2, rel=1e-12)
    assert hard_norm_loss(features, mean).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("step", [0.3, 1.0])
def test_the_stepwise_loss_is_the_step_squared_and_lengthens_all_features_alike(step):
    features = activations(7, 1).features.requires_grad_()
    loss = stepwise_norm_loss(features, step)
    assert loss.item() == pytest.approx(step**2, rel=1e-12)
    loss.backward()
    # d/df (‖f‖ - c)² = 2 (‖f‖ - c) f / ‖f‖ with ‖f‖ - c = -Δr, the mean over 7 samples
    directions = features.detach().numpy() / lengths(features)[:, None]
    np.testing.assert_allclose(features.grad, -2 * step / 7 * directions, rtol=1e-10)


@pytest.mark.parametrize(("loss", "value"), [(hard_norm_loss, 25.0), (stepwise_norm_loss, 1.0)])
def test_features_of_length_0_have_a_finite_gradient(loss, value):
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    loss(features, value).backward()
    assert features.grad[0].tolist() == [0, 0]
    assert features.grad[1].isfinite().all()
    assert (features.grad[1] < 0).all()  # longer by a step down


@pytest.mark.parametrize("sizes", [(7, 7), (7, 3), (1, 1)])
def test_both_domains_count_alike_whatever_the_sizes_of_their_batches(batch, fake_trainer, sizes):
    source, target = activations(sizes[0], 0), activations(sizes[1], 1)
    means = [lengths(x.features).mean() for x in (source, target)]
    hard = small(AFN, radius=10.0)
    trainer = fake_trainer(hard)
    terms = hard.adaptation(source, target, batch)
    expected = 0.05 * sum((mean - 10) ** 2 for mean in means)
    assert {k: v.item() for k, v in terms.items()} == {"norm": pytest.approx(expected, rel=1e-12)}
    logged = {k: float(v) for k, v in trainer.logged.items()}
    assert logged == pytest.approx({"norm/source": means[0], "norm/target": means[1]})
    stepwise = small(AFN, step=2.0)
    assert stepwise.adaptation(source, target, batch)["norm"].item() == pytest.approx(0.05 * 8)


def test_the_entropy_of_the_target_is_added_where_asked_for(batch, fake_trainer):
    source, target = activations(5, 0), activations(8, 1)
    module = small(AFN, entropy=0.1)
    fake_trainer(module)
    terms = module.adaptation(source, target, batch)
    expected = 0.1 * entropy(softmax(target.logits.numpy(), axis=1), axis=1).mean()
    assert set(terms) == {"norm", "entropy"}
    assert terms["entropy"].item() == pytest.approx(expected, rel=1e-12)


def test_what_is_no_norm_or_weight_and_a_step_to_a_radius_are_refused():
    refused(lambda: small(AFN, step=0.0), "step: expected a number above 0, got 0.0")
    refused(lambda: small(AFN, radius=-1.0), "radius: expected a number above 0, got -1.0")
    refused(lambda: small(AFN, entropy=-0.1), "entropy: expected a number from 0, got -0.1")
    for step in (0.3, 1.0):  # the default said out loud, too
        refused(
            lambda step=step: small(AFN, step=step, radius=25.0),
            f"step {step} with radius 25.0",
            "one of the two",
        )
