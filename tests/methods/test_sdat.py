import numpy as np
import pytest
import torch
from short_runs import digits, fit, small

from da.errors import UserError
from da.methods.cdan import CDAN
from da.methods.cdan_mcc import CDANMCC
from da.methods.dann import DANN
from da.methods.sdat import CDANMCCSDAT, CDANSDAT, SDAT

PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "anneal_alpha": 0.0}
CURVATURE = torch.tensor([[3.0, 0.5, 0.0], [0.5, 1.0, -0.2], [0.0, -0.2, 2.0]])
SLOPE = torch.tensor([0.3, -0.4, 0.1])


class Quadratic(SDAT):
    """½ wᵀHw for the task and bᵀw for the domains, w all that they depend on."""

    def build(self):
        super().build()
        self.w = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))

    def losses(self, batch):
        return {"task": 0.5 * self.w @ CURVATURE @ self.w, "domain": (SLOPE * self.w).sum()}


def trained(kind, steps=1, **options):
    module = small(kind, seed=1, **options)
    fit(module, digits(batch_size=8, steps_per_epoch=steps))
    return module


def test_on_a_quadratic_the_updates_are_those_of_sam_by_hand():
    lr, radius = 0.1, 0.7
    module = trained(Quadratic, steps=3, radius=radius, lr=lr, **PLAIN)
    h, b, w = (x.double().numpy() for x in (CURVATURE, SLOPE, torch.tensor([1.0, -2.0, 0.5])))
    for _ in range(3):
        gradient = h @ w
        climbed = w + radius * gradient / np.sqrt((gradient**2).sum())  # Foret et al. 2021, eq. 2
        w = w - lr * (h @ climbed + b)
    np.testing.assert_allclose(module.w.detach(), w, rtol=1e-5)


class InTwoTerms(Quadratic):
    """The same, what is made flat in the two terms of CDAN+MCC."""

    smooth = CDANMCCSDAT.smooth

    def losses(self, batch):
        terms = super().losses(batch)
        return terms | {"task": 0.3 * terms["task"], "class_confusion": 0.7 * terms["task"]}


def test_the_class_confusion_is_made_flat_together_with_the_task_loss():
    first, second = (
        trained(kind, steps=3, radius=0.7, lr=0.1, **PLAIN).w.detach()
        for kind in (Quadratic, InTwoTerms)
    )
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize(
    ("smooth", "plain"), [(SDAT, DANN), (CDANSDAT, CDAN), (CDANMCCSDAT, CDANMCC)]
)
def test_without_a_radius_it_is_the_plain_method_bit_for_bit(smooth, plain, norm):
    states = [
        trained(kind, steps=3, norm=norm, **options).state_dict()
        for kind, options in ((smooth, {"radius": 0.0}), (plain, {}))
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_a_tiny_radius_is_nearly_dann_and_a_usual_one_is_not(norm):
    tiny, usual, dann = (
        torch.cat([p.detach().flatten() for p in module.network.parameters()])
        for module in (
            trained(SDAT, norm=norm, radius=1e-7, **PLAIN),
            trained(SDAT, norm=norm, radius=0.05, **PLAIN),
            trained(DANN, norm=norm, **PLAIN),
        )
    )
    torch.testing.assert_close(tiny, dann, rtol=1e-4, atol=1e-5)
    assert (usual - dann).abs().max() > 1e-3


@pytest.mark.parametrize(("flat", "base"), [(SDAT, DANN), (CDANMCCSDAT, CDANMCC)])
def test_the_critic_and_the_running_statistics_know_nothing_of_the_perturbed_weights(flat, base):
    smooth, plain = (
        trained(kind, norm="bn", **options, **PLAIN).state_dict()
        for kind, options in ((flat, {"radius": 0.5}), (base, {}))
    )
    untouched = [k for k in plain if k.startswith("critic.") or "running" in k or "num_b" in k]
    assert len(untouched) > 20
    for key in untouched:
        torch.testing.assert_close(smooth[key], plain[key], rtol=1e-5, atol=1e-7, msg=key)
    moved = [k for k in plain if k.startswith("network.") and k.endswith("weight")]
    assert all(not torch.allclose(smooth[k], plain[k], rtol=1e-5, atol=1e-7) for k in moved)


def test_the_features_climb_the_domain_loss_at_the_weights_themselves(monkeypatch):
    """With the task out of the way and the reversal at work, the update is DANN's."""
    monkeypatch.setattr(DANN, "task_loss", lambda self, source, labels: 0 * source.logits.sum())
    monkeypatch.setattr("da.methods.dann.reversal_strength", lambda *_: 1.0)
    smooth, plain, start = (
        torch.cat([p.detach().flatten() for p in module.network.parameters()])
        for module in (
            trained(SDAT, norm="wa", radius=0.5, **PLAIN),
            trained(DANN, norm="wa", **PLAIN),
            small(DANN, norm="wa", seed=1, task=""),
        )
    )
    torch.testing.assert_close(smooth, plain, rtol=1e-6, atol=1e-8)
    assert (plain - start).abs().max() > 1e-6


def test_what_is_logged_is_of_the_weights_themselves():
    logged = []
    for kind, options in ((SDAT, {"radius": 2.0}), (DANN, {})):
        data = digits(batch_size=8, steps_per_epoch=1)
        trainer = fit(small(kind, seed=1, **options), data, log_every_n_steps=1)
        logged.append({k: float(v) for k, v in trainer.logged_metrics.items()})
    assert logged[0] == logged[1]
    assert {"loss/task", "loss/domain", "critic/accuracy"} <= set(logged[0])


def test_a_negative_radius_is_refused():
    with pytest.raises(UserError, match=r"radius: expected a number from 0, got -0\.1"):
        small(SDAT, radius=-0.1)
