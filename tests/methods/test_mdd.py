import inspect

import numpy as np
import pytest
import torch
from short_runs import small
from sklearn.metrics import log_loss
from torch import nn

from da.errors import UserError
from da.methods.mdd import MDD, source_disparity, target_disparity


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def logits_of_two(rows=7, classes=5):
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(rows, classes, generator=generator).double() for _ in range(2)]


def by_hand(classifier, adversary):
    """Both disparities, sample by sample."""
    source = target = 0.0
    for f, p in zip(classifier, softmax(adversary), strict=True):
        source += -np.log(p[np.argmax(f)])
        target += -np.log(1 - p[np.argmax(f)])
    return source / len(classifier), target / len(classifier)


def built(**options) -> MDD:
    module = small(MDD, **options)
    module.prepare()
    return module


@pytest.mark.parametrize("rows", [7, 1])
def test_the_disparities_agree_with_their_formulas(rows):
    f, adversary = logits_of_two(rows)
    source, target = by_hand(f.numpy(), adversary.numpy())
    assert source_disparity(f, adversary).item() == pytest.approx(source, rel=1e-12)
    assert target_disparity(f, adversary).item() == pytest.approx(target, rel=1e-12)


def test_with_two_classes_the_target_disparity_is_the_loss_of_the_other_class():
    f, adversary = logits_of_two(classes=2)
    other = 1 - f.argmax(dim=1).numpy()
    expected = log_loss(other, softmax(adversary.numpy()), labels=[0, 1])
    assert target_disparity(f, adversary).item() == pytest.approx(expected, rel=1e-12)


def test_an_adversary_that_knows_nothing_has_the_disparities_of_a_uniform_prediction():
    f, _ = logits_of_two(classes=4)
    assert source_disparity(f, torch.zeros(7, 4)).item() == pytest.approx(np.log(4))
    assert target_disparity(f, torch.zeros(7, 4)).item() == pytest.approx(np.log(4 / 3))


def test_an_adversary_that_is_sure_leaves_losses_and_gradients_finite():
    sure = 1e4 * torch.eye(3)
    for f, source, target in ((sure, 0, 1e4 - np.log(2)), (sure.roll(1, dims=0), 1e4, 0)):
        adversary = sure.clone().requires_grad_()
        assert source_disparity(f, adversary).item() == pytest.approx(source)
        loss = target_disparity(f, adversary)
        loss.backward()
        assert loss.item() == pytest.approx(target)
        assert adversary.grad.isfinite().all()
        assert adversary.grad.abs().max() <= 1 / len(f)  # bounded, and there where it is needed
        assert bool(adversary.grad.abs().max() > 0.1) == bool(target)


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_the_terms_agree_with_a_computation_by_hand(norm, batch, fake_trainer):
    module = built(norm=norm, trade_off=0.5, margin=3.0)
    fake_trainer(module)
    groups = ((batch.source.images, "source"), (batch.target.images[:5], "target"))
    source, target = module.activations_of(*groups)
    terms = module.adaptation(source, target, batch)
    heads = [
        (a.logits.detach().double().numpy(), module.adversary(a.features).detach().double().numpy())
        for a in (source, target)
    ]
    expected = {
        "source_disparity": 0.5 * 3 * by_hand(*heads[0])[0],
        "target_disparity": 0.5 * by_hand(*heads[1])[1],
    }
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)


def test_features_climb_the_disparities_that_the_adversary_descends(fake_trainer, batch):
    """At the end the backbone's gradient is minus the strength times that of the plain loss."""
    module = built(norm="wa")
    trainer = fake_trainer(module, steps=10)
    gradients = {}
    for maximum in (0.1, -1.0):  # strength -1 is no reversal at all
        trainer.step = 10
        module.hparams["reversal_maximum"] = maximum
        module.zero_grad()
        losses = module.losses(batch)
        (losses["source_disparity"] + losses["target_disparity"]).backward()
        gradients[maximum] = (
            module.network.bottleneck[0].weight.grad.clone(),
            module.adversary[0].weight.grad.clone(),
        )
    assert all(p.grad is None for p in module.network.classifier.parameters())
    reversed_, plain = (gradients[maximum] for maximum in (0.1, -1.0))
    torch.testing.assert_close(reversed_[0], -0.1 * plain[0], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(reversed_[1], plain[1])
    assert reversed_[0].abs().max() > 1e-6


def test_classifier_and_adversary_are_alike_and_start_apart():
    module = built(width=12, dropout=0.25)
    for head in (module.network.classifier, module.adversary):
        first, _, dropout, last = head
        assert (first.in_features, first.out_features) == (16, 12)
        assert (last.in_features, last.out_features) == (12, 10)
        assert isinstance(dropout, nn.Dropout)
        assert dropout.p == 0.25
    assert not torch.equal(module.network.classifier[0].weight, module.adversary[0].weight)


def test_the_published_widths_are_the_defaults():
    options = inspect.signature(MDD).parameters
    assert [options[name].default for name in ("bottleneck", "width", "margin")] == [1024, 1024, 4]
    network = small(MDD, bottleneck=None).network
    assert network.classifier[0].in_features == network.backbone.num_features


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"margin": 0}, "margin: expected a number above 0, got 0"),
        ({"width": 0}, "width: expected a whole number from 1, got 0"),
        ({"dropout": 1.0}, "dropout: expected a share from 0 up to but not 1, got 1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(option, message):
    with pytest.raises(UserError, match=message):
        small(MDD, **option)
