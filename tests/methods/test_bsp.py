import numpy as np
import pytest
import torch
from short_runs import small

from da.errors import UserError
from da.methods.bsp import BSP, spectral_penalty
from da.methods.cdan import CDAN
from da.methods.dann import DANN
from da.methods.sdat import SDAT


def features_of(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
@pytest.mark.parametrize("number", [1, 3])
def test_the_penalty_and_its_gradient_are_those_of_a_singular_value_decomposition(shape, number):
    features = features_of(*shape).requires_grad_()
    u, s, vt = np.linalg.svd(features.detach().numpy())
    penalty = spectral_penalty(features, number)
    penalty.backward()
    # dσ_i² / dF = 2 σ_i u_i v_iᵀ
    gradient = sum(2 * s[i] * np.outer(u[:, i], vt[i]) for i in range(number))
    assert penalty.item() == pytest.approx((s[:number] ** 2).sum(), rel=1e-12)
    np.testing.assert_allclose(features.grad.numpy(), gradient, rtol=1e-9, atol=1e-12)


def test_a_single_sample_has_its_squared_norm_and_all_singular_values_that_of_the_batch():
    features = features_of(4, 7)
    total = features.square().sum().item()
    assert spectral_penalty(features[:1]).item() == pytest.approx(
        features[0].square().sum().item(), rel=1e-12
    )
    assert spectral_penalty(features, 4).item() == pytest.approx(total, rel=1e-12)
    assert spectral_penalty(features, 99).item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("features", [torch.zeros(4, 6), torch.eye(4, 6), torch.ones(4, 6)])
@pytest.mark.parametrize("number", [1, 2])
def test_gradients_are_finite_where_singular_values_are_0_or_equal(features, number):
    features = features.clone().requires_grad_()
    spectral_penalty(features, number).backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_is_not_finite_gives_a_penalty_that_is_not(value):
    features = features_of(4, 6).float()
    features[1, 2] = value
    assert not spectral_penalty(features).isfinite()


@pytest.mark.parametrize("mode", ["joint", "separate"])
def test_the_terms_are_those_of_dann_and_the_penalty_of_both_domains(mode, batch, fake_trainer):
    options = {"norm": "wa", "forward_mode": mode}
    module = small(BSP, penalty=0.01, singular_values=2, **options)
    dann = small(DANN, **options)
    for each in (module, dann):
        each.prepare()
        fake_trainer(each).step = 50
    batch = batch._replace(target=batch.target._replace(views=(batch.target.images[:5],)))
    terms = module.losses(batch)
    expected = {k: v.item() for k, v in dann.losses(batch).items()}
    with torch.no_grad():
        singular = [
            np.linalg.svd(module.network(images).features.numpy(), compute_uv=False)
            for images in (batch.source.images, batch.target.images)
        ]
    expected["spectral"] = 0.01 * sum((s[:2] ** 2).sum() for s in singular)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "options"), [(SDAT, {"radius": 0.25}), (CDAN, {"entropy_conditioning": True})]
)
def test_it_adds_its_penalty_to_other_methods_that_extend_dann(kind, options, batch, fake_trainer):
    class Both(BSP, kind):
        """Options and terms of both."""

    module, alone = small(Both, penalty=0.5, **options), small(kind, **options)
    terms = []
    for each in (module, alone):
        each.prepare()
        fake_trainer(each)
        (step,) = each.steps(batch)
        terms.append({name: loss.item() for name, loss in step.compute().items()})
    assert terms[0].pop("spectral") > 0
    assert terms[0] == pytest.approx(terms[1])
    assert module.critic[0].in_features == alone.critic[0].in_features


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"penalty": -1.0}, "penalty: expected a number from 0, got -1.0"),
        ({"singular_values": 0}, "singular_values: expected a whole number from 1, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(option, message):
    with pytest.raises(UserError, match=message):
        small(BSP, **option)
