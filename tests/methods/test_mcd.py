import copy

import numpy as np
import pytest
import torch
from short_runs import digits, fit, small

from da.errors import UserError
from da.methods.mcd import CLASSIFIERS, GENERATOR, MCD, class_balance, classifier_discrepancy
from da.norms import batch_norms

PLAIN = {"momentum": 0.0, "weight_decay": 0.0, "anneal_alpha": 0.0}


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def logits_of_two(rows=7, classes=5):
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(rows, classes, generator=generator).double() for _ in range(2)]


def built(**options) -> MCD:
    module = small(MCD, **options)
    module.prepare()
    return module


def parameters_of(module, parts):
    known = dict(module.named_modules())
    return {f"{part}.{k}": p for part in parts for k, p in known[part].named_parameters()}


def heads_by_hand(module, images):
    """Logits of both classifiers, without the networks that the method composed."""
    network = module.network
    features = network.backbone(images)
    return (
        network.classifier(network.bottleneck(features)).detach().double().numpy(),
        module.second_classifier(module.second_bottleneck(features)).detach().double().numpy(),
    )


def test_the_discrepancy_is_the_mean_absolute_difference_of_the_probabilities():
    first, second = logits_of_two()
    total = 0.0
    for p, q in zip(softmax(first.numpy()), softmax(second.numpy()), strict=True):
        total += sum(abs(a - b) for a, b in zip(p, q, strict=True)) / len(p)
    found = classifier_discrepancy(first, second).item()
    assert found == pytest.approx(total / len(first), rel=1e-12)


def test_the_discrepancy_is_0_of_equals_and_at_most_2_over_the_classes():
    sure = 1e4 * torch.eye(4)
    assert classifier_discrepancy(sure, sure + 3.0).item() == 0
    assert classifier_discrepancy(sure, sure.roll(1, dims=0)).item() == pytest.approx(2 / 4)


def test_the_balance_is_the_cross_entropy_of_the_uniform_and_the_mean_prediction():
    logits, _ = logits_of_two()
    mean = softmax(logits.numpy()).mean(axis=0)
    assert class_balance(logits).item() == pytest.approx(-np.log(mean).mean(), rel=1e-12)


def test_the_balance_is_log_k_where_classes_are_even_and_finite_where_one_is_never_predicted():
    assert class_balance(1e4 * torch.eye(5)).item() == pytest.approx(np.log(5))
    logits = torch.tensor([[900.0, 0.0, 0.0]], requires_grad=True)
    loss = class_balance(logits)
    loss.backward()
    assert loss.item() == pytest.approx(600)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_each_update_moves_its_own_parts_and_no_others(norm):
    # With momentum and weight decay, which must not move what has no gradient either.
    module = built(norm=norm)
    everything = {k: p for k, p in module.named_parameters() if p.requires_grad}
    classifiers = set(parameters_of(module, CLASSIFIERS)) & set(everything)
    generator = set(parameters_of(module, GENERATOR)) & set(everything)
    assert classifiers | generator == set(everything)
    moved = []
    steps = module.steps

    def watched(batch):
        for step in steps(batch):
            before = {k: p.detach().clone() for k, p in everything.items()}
            yield step
            moved.append({k for k, p in everything.items() if not torch.equal(p, before[k])})

    module.steps = watched
    fit(module, digits(batch_size=8, steps_per_epoch=2))
    assert moved == 2 * [set(everything), classifiers, *4 * [generator]]


def test_the_discrepancy_rises_as_classifiers_are_updated_and_falls_with_the_generator():
    module = built(norm="wa", trade_off=20.0, lr=0.01, generator_steps=2, **PLAIN)
    rises = []
    steps = module.steps

    def watched(batch):
        def discrepancy():
            with torch.no_grad():
                heads = heads_by_hand(module, batch.target.images)
            return np.abs(np.subtract(*map(softmax, heads))).mean()

        for step in steps(batch):
            before = discrepancy()
            yield step
            rises.append(discrepancy() - before)

    module.steps = watched
    fit(module, digits(batch_size=16, steps_per_epoch=2))
    assert [rise > 0 for _, rise, *_ in (rises[:4], rises[4:])] == [True, True]
    assert [rise < 0 for rise in rises[2:4] + rises[6:]] == [True] * 4


def test_the_terms_of_each_update_agree_with_a_computation_by_hand(batch, fake_trainer):
    module = built(norm="wa", trade_off=3.0, balance=0.2, generator_steps=1)
    fake_trainer(module)
    source = heads_by_hand(module, batch.source.images)
    target = heads_by_hand(module, batch.target.images)
    rows = np.arange(len(batch.source.labels))
    task = sum(-np.log(softmax(x)[rows, batch.source.labels.numpy()]).mean() for x in source)
    balance = sum(-np.log(softmax(x).mean(axis=0)).mean() for x in target)
    apart = np.abs(np.subtract(*map(softmax, target))).mean()
    a, b, c = [step.compute() for step in module.steps(batch)]
    expected_a = {"task": task, "balance": 0.2 * balance}
    for terms, expected in (
        (a, expected_a),
        (b, expected_a | {"negative_discrepancy": -3 * apart}),
        (c, {"discrepancy": 3 * apart}),
    ):
        assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=1e-4)
    assert apart > 1e-3


def test_the_balance_is_left_out_at_weight_0(batch, fake_trainer):
    module = built(balance=0.0)
    fake_trainer(module)
    a, b, *_ = [set(step.compute()) for step in module.steps(batch)]
    assert (a, b) == ({"task"}, {"task", "negative_discrepancy"})


def test_a_batch_makes_the_updates_of_the_generator_that_were_asked_for(batch):
    for number in (1, 3):
        module = built(generator_steps=number)
        assert len(list(module.steps(batch))) == 2 + number


def test_the_mean_of_both_classifiers_is_evaluated(batch):
    module = built(norm="wa").eval()
    images = batch.target.images
    first, second = heads_by_hand(module, images)
    assert np.abs(first - second).max() > 1e-2  # they start apart
    found = module.evaluated()(images)
    np.testing.assert_allclose(found.logits.detach(), (first + second) / 2, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.features, module.network.backbone(images))
    assert module.evaluated() is module.evaluated()


def test_no_tensor_is_saved_twice():
    state = built(norm="bn").state_dict()
    addresses = [tensor.data_ptr() for tensor in state.values()]
    assert len(set(addresses)) == len(addresses)
    assert {name.split(".")[0] for name in state} == {
        "network",
        "second_bottleneck",
        "second_classifier",
    }


def test_a_copy_of_the_method_evaluates_its_own_parts(batch):
    module = built(norm="wa").eval()
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    images = batch.target.images
    first, second = heads_by_hand(twin, images)
    np.testing.assert_allclose(twin(images).detach(), (first + second) / 2, rtol=1e-3, atol=1e-5)
    assert not torch.equal(twin(images), module(images))


def test_the_second_classifier_has_the_normaliser_where_the_bottleneck_is_in_scope():
    assert not batch_norms(built(norm="wa").second_bottleneck)
    assert batch_norms(built(norm="wa", scope=["backbone", "critic"]).second_bottleneck)


def test_classifiers_without_a_bottleneck_are_trained(batch):
    module = built(bottleneck=None)
    start = module.second_classifier.weight.detach().clone()
    fit(module)
    assert not torch.equal(module.second_classifier.weight, start)
    assert module.evaluated()(batch.target.images).logits.shape == (8, 10)


def test_a_generator_that_is_never_updated_is_refused():
    message = "generator_steps: expected a whole number from 1, got 0"
    with pytest.raises(UserError, match=message):
        small(MCD, generator_steps=0)
