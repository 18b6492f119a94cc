"""Statistics of the batch at hand, against PyTorch's own functions; single images."""

import copy

import pytest
import torch
import torch.nn.functional as F
from refusing import refused
from short_runs import small
from torch import nn

from da.adapters.batch_statistics import BatchStatistics
from da.adapters.tent import TENT
from da.methods.source_only import SourceOnly
from da.norms import keeping_without_statistics, reestimated


def network_of(norm, **options):
    return small(SourceOnly, norm=norm, seed=1, **options).evaluated().eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, 32, 32, generator=generator) for n in (16, 8)]


def predicted(kind, network, batches, **options):
    return list(kind(**options).predict(copy.deepcopy(network), batches))


def test_a_batch_is_normalised_by_itself(batches):
    network = network_of("bn")
    by_hand = copy.deepcopy(network)
    for module in by_hand.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = module.running_var = None
    with torch.no_grad():
        expected = [by_hand(images).logits for images in batches]
    found = predicted(BatchStatistics, network, batches)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    # Nothing is carried over from one batch to the next.
    torch.testing.assert_close(predicted(BatchStatistics, network, batches[1:])[0], found[1])


@pytest.mark.parametrize("norm", ["wa", "gn"])
def test_a_network_without_batch_norm_predicts_as_it_is(norm, batches):
    network = network_of(norm)
    single = [batches[0][:1], batches[1]]
    with torch.no_grad():
        expected = [network(images).logits for images in single]
    for one, other in zip(predicted(BatchStatistics, network, single), expected, strict=True):
        assert torch.equal(one, other)


def test_batches_of_one_image_are_refused_unless_taken_as_they_are(batches):
    network, ones = network_of("bn"), list(batches[0].split(1))
    refused(
        lambda: predicted(BatchStatistics, network, ones),
        "BatchStatistics: ",
        "give larger batches (--adapter_batch 64)",
        "--adapter_options.single_images true",
    )
    for kind in (BatchStatistics, TENT):
        logits = predicted(kind, network, ones, single_images=True)
        assert [len(x) for x in logits] == [1] * 16
        assert torch.cat(logits).isfinite().all()


def maps_and_vectors():
    torch.manual_seed(0)
    maps, vectors = nn.BatchNorm2d(3), nn.BatchNorm1d(3)
    for norm in (maps, vectors):
        norm.running_mean = torch.randn(3)
        norm.running_var = torch.rand(3) + 0.5
    return nn.Sequential(maps, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), vectors).eval()


def by_image(model, image):
    """Instance norm on the map; the trained statistics on the vector."""
    pooled = F.relu(F.instance_norm(image)).mean((2, 3))
    norm = model[4]
    return F.batch_norm(pooled, norm.running_mean, norm.running_var)


def test_one_image_gives_maps_their_statistics_and_leaves_those_of_vectors():
    model, image = maps_and_vectors(), torch.randn(1, 3, 8, 8)
    expected, before = by_image(model, image), copy.deepcopy(model.state_dict())
    with keeping_without_statistics([model[0].train(), model[4].train()]):
        model[0].momentum = 0.0
        torch.testing.assert_close(model(image), expected)
    model.eval()
    model[0].momentum = 0.1
    other = torch.randn(5, 3, 8, 8)
    with reestimated(model, [image], single_image=True), torch.no_grad():
        mean, var = image.mean((0, 2, 3)), image.var((0, 2, 3))
        torch.testing.assert_close(model[0].running_mean, mean)
        torch.testing.assert_close(model[0].running_var, var)
        assert torch.equal(model[4].running_mean, before["4.running_mean"])
        assert torch.equal(model[4].running_var, before["4.running_var"])
        assert model(other).isfinite().all()
    after = model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items() if "num_batches" not in k)


def test_many_images_are_reestimated_alike_whether_one_would_do_or_not(batches):
    network = network_of("bn")
    states = []
    for single in (False, True):
        with reestimated(network, batches, single_image=single):
            states.append(copy.deepcopy(network.state_dict()))
    for name, value in states[0].items():
        if "num_batches" not in name:
            torch.testing.assert_close(states[1][name], value)


@pytest.mark.parametrize("kind", [BatchStatistics, TENT])
def test_batch_renormalisation_is_batch_norm_with_the_statistics_of_a_batch(kind, batches):
    outputs = []
    for norm, options in (("bn", {}), ("brn", {"start": 0, "r_end": 0, "d_end": 0})):
        network = network_of(norm, norm_options=options)
        outputs.append(torch.cat(predicted(kind, network, [3 * b + 2 for b in batches])))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
