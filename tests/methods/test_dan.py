import pytest
import torch
from refusing import refused
from short_runs import small

from da.methods.dan import DAN
from da.ops.kernels import mean_discrepancy
from da.types import Activations


def activations(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return Activations(torch.randn(n, 6, generator=generator) + seed, torch.zeros(n, 10))


@pytest.mark.parametrize("estimator", ["full", "linear"])
def test_the_loss_is_the_weighted_discrepancy_of_the_features(batch, estimator):
    source, target = activations(8, 0), activations(8, 1)
    expected = mean_discrepancy(source.features, target.features, estimator=estimator).item()
    assert expected > 0.1
    module = small(DAN, trade_off=0.3, estimator=estimator)
    terms = module.adaptation(source, target, batch)
    assert {k: v.item() for k, v in terms.items()} == {"discrepancy": pytest.approx(0.3 * expected)}


def test_the_published_estimator_is_the_linear_one_and_the_full_one_takes_unequal_batches(batch):
    source, target = activations(8, 0), activations(5, 1)
    assert small(DAN).hparams["estimator"] == "linear"
    refused(
        lambda: small(DAN).adaptation(source, target, batch), "got 8 of the source and 5", "'full'"
    )
    terms = small(DAN, estimator="full").adaptation(source, target, batch)
    assert terms["discrepancy"].isfinite()


def test_steps_down_its_gradient_bring_the_domains_together():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(16, 4, generator=generator)
    target = (torch.randn(16, 4, generator=generator) + 2).requires_grad_()
    start = (target.mean(0) - source.mean(0)).norm().item()
    optimiser = torch.optim.SGD([target], lr=2.0)
    for _ in range(60):
        optimiser.zero_grad()
        mean_discrepancy(source, target).backward()
        optimiser.step()
    assert (target.mean(0) - source.mean(0)).norm().item() < 0.5 * start


def test_an_estimator_of_another_name_is_refused():
    refused(lambda: small(DAN, estimator="liner"), "unknown estimator 'liner'", "'linear'")
