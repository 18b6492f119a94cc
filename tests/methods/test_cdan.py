import numpy as np
import pytest
import pytorch_lightning as L
import torch
from short_runs import digits, fit, small

from da.errors import UserError
from da.methods.cdan import CDAN, CDANE, RandomizedMap, multilinear_map
from da.norms import normaliser_names
from da.types import Activations, Batch, Labelled, Unlabelled

MAPS = [{}, {"randomized_dim": 24}]


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(norm="wa", **options) -> CDAN:
    module = small(CDAN, norm=norm, **options)
    module.prepare()
    return module


def uneven(batch: Batch) -> Batch:
    """More images of the target than of the source, and of another contrast."""
    source, target = batch
    return Batch(
        Labelled((source.images[:5],), source.labels[:5], source.indices[:5]),
        Unlabelled((3 * target.images,), target.indices),
    )


def test_the_product_has_every_feature_times_every_probability():
    features, predictions = normal(3, 5), normal(3, 4, seed=1).softmax(dim=1)
    found = multilinear_map(features, predictions).numpy()
    for row, f, g in zip(found, features.numpy(), predictions.numpy(), strict=True):
        np.testing.assert_allclose(row, np.outer(g, f).ravel(), rtol=1e-12)


def test_the_random_map_is_the_formula_and_keeps_inner_products_of_the_product():
    torch.manual_seed(0)
    mapping = RandomizedMap(5, 4, 40_000).double()
    features, predictions = normal(3, 5), normal(3, 4, seed=1).softmax(dim=1)
    found = mapping(features, predictions).numpy()
    r_f, r_g = mapping.of_features.numpy(), mapping.of_predictions.numpy()
    for row, f, g in zip(found, features.numpy(), predictions.numpy(), strict=True):
        np.testing.assert_allclose(row, (r_f.T @ f) * (r_g.T @ g) / 200, rtol=1e-9)
    product = multilinear_map(features, predictions).numpy()
    np.testing.assert_allclose(found @ found.T, product @ product.T, atol=0.1)


@pytest.mark.parametrize("options", MAPS, ids=str)
def test_the_critic_takes_what_the_map_gives(options):
    module = built(**options)
    linear = next(m for m in module.critic if hasattr(m, "in_features"))
    assert linear.in_features == module.critic_inputs == options.get("randomized_dim", 16 * 10)
    activations = Activations(torch.randn(3, 16), torch.randn(3, 10))
    assert module.critic_input(activations).shape == (3, module.critic_inputs)


def test_the_random_map_is_one_for_all_normalisers_and_another_for_each_task_and_seed(start):
    def maps(norm="wa", **options):
        mapping = built(norm, randomized_dim=8, **start(norm), **options).random_map
        return torch.cat([mapping.of_features, mapping.of_predictions])

    first = maps()
    torch.manual_seed(5)  # a global state is of no account
    assert all(torch.equal(maps(norm), first) for norm in normaliser_names())
    assert not torch.isclose(maps(seed=1), first).any()
    assert not torch.isclose(maps(task="a->b"), first).any()


def test_the_random_map_is_saved_and_is_no_parameter(tmp_path):
    module, other = (built(randomized_dim=8, seed=seed) for seed in (1, 2))
    assert not {n for n, _ in module.named_parameters() if "random_map" in n}
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    activations = Activations(torch.randn(3, 16), torch.randn(3, 10))
    assert torch.equal(module.critic_input(activations), other.critic_input(activations))
    with pytest.raises(RuntimeError, match=r"size mismatch for random_map\.of_features"):
        built(randomized_dim=9).load_state_dict(module.state_dict())


class StopsAfterAnEpoch(L.Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_resumed_run_goes_on_with_the_map_of_its_checkpoint(tmp_path):
    options = {"randomized_dim": 8, "entropy_conditioning": True}
    whole, half, rest = (small(CDAN, norm="bn", seed=1, **options) for _ in range(3))
    fit(whole, epochs=2)
    fit(half, folder=tmp_path, epochs=2, callbacks=[StopsAfterAnEpoch()])
    start = half.random_map.of_features.clone()
    fit(rest, epochs=2, ckpt_path=tmp_path / "last.ckpt")
    for (key, a), b in zip(whole.state_dict().items(), rest.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert torch.equal(rest.random_map.of_features, start)


def domain_by_hand(module, batch, joint=False):
    """The domain loss of CDAN+E, all but the critic's own layers in numpy."""
    per_domain = []
    for images, source in ((batch.source.images, True), (batch.target.images, False)):
        out = module.network(images)
        f, g = (x.detach().double().numpy() for x in (out.features, out.logits))
        g = softmax(g)
        inputs = np.stack([np.outer(b, a).ravel() for a, b in zip(f, g, strict=True)])
        with torch.no_grad():
            d = module.critic(torch.from_numpy(inputs).float()).flatten().double().numpy()
        losses = np.log1p(np.exp(-d if source else d))
        per_domain.append((losses, 1 + np.exp((g * np.log(g)).sum(axis=1))))
    if joint:  # one sum of weights, as the Transfer-Learning-Library has it
        losses, weights = (np.concatenate(x) for x in zip(*per_domain, strict=True))
        return (weights * losses).sum() / weights.sum()
    return 0.5 * sum((w * losses).sum() / w.sum() for losses, w in per_domain)


def test_the_weights_of_the_entropies_are_normalised_in_each_domain(batch, fake_trainer):
    module = built(entropy_conditioning=True)
    fake_trainer(module).step = 50
    with torch.no_grad():
        module.network.classifier.weight.mul_(8)  # some samples are surer than others
    batch = uneven(batch)
    found = module.losses(batch)["domain"].item()
    assert found == pytest.approx(domain_by_hand(module, batch), rel=1e-5)
    assert found != pytest.approx(domain_by_hand(module, batch, joint=True), rel=1e-4)
    for images in (batch.source.images, batch.target.images):
        weights = module.sample_weights(module.network(images), 1.0)
        assert weights.mean().item() == pytest.approx(1)
        assert weights.std() > 1e-3


def gradients(module, batch):
    module.zero_grad()
    module.losses(batch)["domain"].backward()
    return {k: p.grad for k, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", MAPS, ids=str)
def test_predictions_take_no_gradient_of_the_domain_loss_by_the_map(options, batch, fake_trainer):
    module = built(**options)
    fake_trainer(module).step = 50
    found = gradients(module, batch)
    assert not [k for k in found if k.startswith("network.classifier")]
    assert found["network.bottleneck.0.weight"].abs().max() > 1e-6


@pytest.mark.parametrize("options", MAPS, ids=str)
def test_features_and_entropies_climb_the_loss_that_the_critic_descends(
    options, batch, fake_trainer
):
    """All of the network's gradient is minus lambda times the plain one."""
    module = built(entropy_conditioning=True, **options)
    trainer = fake_trainer(module, steps=10)
    trainer.step = 10
    found = {}
    for maximum in (0.5, -1.0):  # strength -1 is no reversal at all
        module.hparams["reversal_maximum"] = maximum
        found[maximum] = gradients(module, batch)
    assert found[0.5].keys() == found[-1.0].keys()
    for name, plain in found[-1.0].items():
        factor = -0.5 if name.startswith("network.") else 1.0
        torch.testing.assert_close(found[0.5][name], factor * plain, rtol=1e-3, atol=1e-7)
    assert found[0.5]["network.classifier.weight"].abs().max() > 1e-6


def test_entropy_conditioning_makes_predictions_surer(batch, fake_trainer):
    """Every sample's weight may grow, since the sum of the weights takes no gradient."""
    module = built(entropy_conditioning=True)
    fake_trainer(module).step = 100
    classifier = module.network.classifier

    def entropy():
        with torch.no_grad():
            images = torch.cat([batch.source.images, batch.target.images])
            p = softmax(module.network(images).logits.double().numpy())
        return -(p * np.log(p)).sum(axis=1).mean()

    before = entropy()
    for _ in range(5):
        found = gradients(module, batch)
        with torch.no_grad():
            classifier.weight.sub_(10 * found["network.classifier.weight"])
    assert entropy() < before - 1e-3


@pytest.mark.parametrize("norm", ["bn", "wa"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_all_of_it_trains_clipped_and_in_mixed_precision(precision, norm):
    options = {"entropy_conditioning": True, "randomized_dim": 24, "environment_smoothing": 0.1}
    module = built(norm, lr=0.05, **options)
    before = {k: p.detach().clone() for k, p in module.named_parameters()}
    data = digits(batch_size=8, steps_per_epoch=3)
    fit(module, data, precision=precision, gradient_clip_val=1e-3)
    assert module.clipped == [True] * 3
    after = dict(module.named_parameters())
    assert all(p.isfinite().all() for p in after.values())
    assert not [k for k, p in before.items() if torch.equal(p, after[k])]
    assert module.random_map.of_features.dtype == torch.float32


def test_a_random_map_of_no_size_is_refused():
    message = "randomized_dim: expected a whole number from 1 or null, got 0"
    with pytest.raises(UserError, match=message):
        small(CDAN, randomized_dim=0)


def test_cdan_e_without_its_e_is_refused():
    with pytest.raises(UserError, match=r"entropy_conditioning: expected true.*is CDAN"):
        small(CDANE, entropy_conditioning=False)
