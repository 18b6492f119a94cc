import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from da.methods.critics import build_critic
from da.methods.dann import DANN, domain_loss


def test_domain_loss_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    target = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    p = torch.sigmoid(torch.cat([source, target])).flatten().numpy()
    expected = log_loss([1] * 6 + [0] * 6, p)
    assert domain_loss(source, target).item() == pytest.approx(expected, rel=1e-12)


def test_domain_loss_weighs_domains_equally_and_starts_at_log_2():
    assert domain_loss(torch.zeros(2), torch.zeros(9)).item() == pytest.approx(np.log(2))


def test_critic_has_three_layers_and_one_output():
    linears = [m for m in build_critic(12, 8) if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linears] == [(12, 8), (8, 8), (8, 1)]


def test_features_climb_the_loss_that_the_critic_descends(fake_trainer, batch):
    """At progress 1 the backbone's gradient is minus lambda times that of the plain loss."""
    module = DANN(num_classes=4, critic_width=8, bottleneck=16, norm="bn")
    module.prepare()
    trainer = fake_trainer(module, steps=10)
    gradients = {}
    for step, maximum in ((10, 0.5), (10, -1.0)):  # strength -1 is no reversal at all
        trainer.step = step
        module.hparams["reversal_maximum"] = maximum
        module.zero_grad()
        module.losses(batch)["domain"].backward()
        gradients[maximum] = (
            module.network.bottleneck[0].weight.grad.clone(),
            module.critic[0].weight.grad.clone(),
        )
    torch.testing.assert_close(gradients[0.5][0], -0.5 * gradients[-1.0][0], rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(gradients[0.5][1], gradients[-1.0][1])
    assert gradients[0.5][0].abs().max() > 1e-6
