import numpy as np
import pytest
import torch
from short_runs import small

from da.engine.components import available_methods
from da.errors import UserError
from da.methods.dann import DANN


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


@pytest.mark.parametrize("name", [n for n, k in available_methods().items() if issubclass(k, DANN)])
def test_every_adversarial_method_smooths_the_labels_of_the_domains(name, batch, fake_trainer):
    module = small(available_methods()[name], norm="wa", environment_smoothing=0.2, trade_off=0.5)
    module.prepare()
    fake_trainer(module).step = 50
    terms = [step.compute() for step in module.steps(batch)]
    expected = 0.0
    for images, label in ((batch.source.images, 0.8), (batch.target.images, 0.2)):
        d = module.critic(module.critic_input(module.network(images))).detach().double().numpy()
        p = 1 / (1 + np.exp(-d))
        expected += 0.25 * (-label * np.log(p) - (1 - label) * np.log(1 - p)).mean()
    assert [t["domain"].item() for t in terms] == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("smoothing", [-0.1, 0.6])
def test_labels_that_would_be_turned_round_are_refused(smoothing):
    message = f"environment_smoothing: expected a number from 0 to 0.5.* got {smoothing}"
    with pytest.raises(UserError, match=message):
        small(DANN, environment_smoothing=smoothing)
