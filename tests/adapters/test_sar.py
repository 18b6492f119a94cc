"""SAR against a loop by hand, which samples and layers it takes, and its reset."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from refusing import refused
from scipy.stats import entropy
from short_runs import small
from torch import nn

from da.adapters.base import adapter
from da.adapters.sar import SAR, mean_of_chosen, top_of
from da.adapters.tent import scales_and_shifts
from da.methods.mcd import MCD
from da.methods.source_only import SourceOnly
from da.networks.network import Network
from da.norms.weight_align.layers import Aligned
from da.ops.entropy import sample_entropies

LIMIT = 0.4 * math.log(10)

#: The top of ``digits_resnet``, its last block, and what comes after it.
TOP = ("backbone.blocks.1", "bottleneck")

#: By what logits are multiplied, so that an untrained network is sure of some images, not of all.
SURE = {"wa": 4.0, "gn": 6.3}


def network_of(norm, **options):
    """Untrained, with predictions of which some are sure."""
    network = small(SourceOnly, norm=norm, seed=1, **options).evaluated().eval()
    with torch.no_grad():
        network.classifier.weight.mul_(SURE.get(norm, 12.0))
    return network


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(n, 3, 32, 32, generator=generator)
        + 3 * torch.randn(n, 3, 1, 1, generator=generator)
        for n in (16, 16, 8)
    ]


def chosen_of(network):
    """Scales and shifts below the top, by their layers."""
    chosen = []
    for name, module in network.named_modules():
        if name.startswith(TOP):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train().track_running_stats = False
                module.running_mean = module.running_var = None
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train().track_running_stats = False
            module.running_mean = module.running_var = None
            chosen += [module.weight, module.bias]
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            chosen += [module.weight, module.bias]
        elif isinstance(module, Aligned):
            chosen += [module.g, module.bias]
    return chosen


def entropies_of(network, images):
    out = network(images).logits
    p = F.softmax(out, dim=1)
    return out, -(p * F.log_softmax(out, dim=1)).sum(dim=1)


def by_hand(network, batches, lr, reset):
    """The paper's loop with indices of the reliable samples, steps and momentum written out."""
    network = copy.deepcopy(network)
    chosen = chosen_of(network)
    began = [p.detach().clone() for p in chosen]
    velocities = [torch.zeros_like(p) for p in chosen]
    mean, logits, resets, shares, losses = None, [], 0, [], []
    for images in batches:
        out, values = entropies_of(network, images)
        logits.append(out.detach())
        reliable = [i for i, value in enumerate(values.tolist()) if value < LIMIT]
        shares.append(len(reliable) / len(images))
        first = torch.autograd.grad(values[reliable].mean(), chosen)
        length = math.sqrt(sum(g.double().square().sum().item() for g in first))
        with torch.no_grad():
            for p, g in zip(chosen, first, strict=True):
                p += 0.05 * g / length
        _, values = entropies_of(network, images)
        still = [i for i in reliable if values[i].item() < LIMIT]
        loss = values[still].mean()
        second = torch.autograd.grad(loss, chosen)
        with torch.no_grad():
            for p, g, h, v in zip(chosen, first, second, velocities, strict=True):
                p -= 0.05 * g / length
                v.mul_(0.9).add_(h)
                p -= lr * v
        losses.append(loss.item())
        mean = loss.item() if mean is None else 0.9 * mean + 0.1 * loss.item()
        if mean < reset:
            resets += 1
            mean = None
            with torch.no_grad():
                for p, value, v in zip(chosen, began, velocities, strict=True):
                    p.copy_(value)
                    v.zero_()
    return logits, resets, shares, losses


@pytest.mark.parametrize("norm", ["bn", "wa", "gn"])
def test_it_is_the_loop_of_the_paper(norm, batches):
    network = network_of(norm)
    expected, _, shares, _ = by_hand(network, batches, 0.05, 0.0)
    assert all(shares)
    assert min(shares) < 1
    adapted = list(SAR(lr=0.05, reset=0.0).predict(copy.deepcopy(network), batches))
    for one, other in zip(adapted, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert (adapted[2] - list(SAR(lr=1e-9).predict(network, batches))[2]).abs().max() > 0.01


@pytest.mark.parametrize("norm", ["bn", "wa"])
def test_it_begins_anew_once_the_moving_average_is_too_small(norm, batches):
    network, stream = network_of(norm), [batches[0]] * 12
    *_, losses = by_hand(network, stream[:1], 0.05, 0.0)
    reset = 0.85 * losses[0]
    expected, resets, *_ = by_hand(network, stream, 0.05, reset)
    assert 0 < resets < len(stream)
    adapted = list(SAR(lr=0.05, reset=reset).predict(copy.deepcopy(network), stream))
    for one, other in zip(adapted, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_where_every_batch_resets_nothing_is_learnt(batches):
    network = network_of("wa")
    twin = copy.deepcopy(network)
    with torch.no_grad():
        expected = [network(images).logits for images in batches]
    for one, other in zip(SAR(lr=1.0, reset=99.0).predict(twin, batches), expected, strict=True):
        torch.testing.assert_close(one, other)
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn", "wa+gn", "gn", "in", "ln", "dsbn"])
def test_scales_and_shifts_below_the_top_alone_move(norm, batches):
    network = network_of(norm)
    twin = copy.deepcopy(network)
    for logits in SAR(lr=0.05, margin=1.0).predict(twin, batches):
        assert logits.isfinite().all()
    changed = {
        name
        for (name, a), b in zip(network.named_parameters(), twin.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    allowed = {id(p) for p in scales_and_shifts(twin)}
    names = {name for name, p in twin.named_parameters() if id(p) in allowed}
    expected = {name for name in names if not name.startswith(TOP) and ".source." not in name}
    assert changed == expected != names
    for (name, a), b in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert "num_batches" in name or torch.equal(a, b), name


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet18", "layer4"),
        ("vit_tiny_patch16_224", "blocks.9"),
        ("vit_large_patch16_224", "blocks.21"),
        ("swin_tiny_patch4_window7_224", "layers.3"),
        ("convnext_atto", "stages.3"),
        ("efficientnet_b0", "blocks.6"),
        ("mobilenetv3_small_050", "blocks.4"),  # and blocks.5, a single convolution
        ("regnety_002", "s4"),
        ("densenet121", "features.denseblock4"),
        ("vgg11_bn", None),
    ],
)
def test_the_top_is_the_last_stage_or_three_transformer_blocks_and_what_follows(
    name, first, monkeypatch
):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")
    # Older releases of timm read numbers from a tensor that they make, which "meta" doesn't hold.
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
    with torch.device("meta"):
        backbone = timm.create_model(name, num_classes=0)
        network = Network(backbone, nn.BatchNorm1d(4), nn.Linear(4, 2))
    top = top_of(network)
    assert top[0] == ("bottleneck" if first is None else f"backbone.{first}")
    assert top[-2:] == ["bottleneck", "classifier"]
    if name.startswith(("vit", "swin")):
        assert "backbone.norm" in top


def test_the_top_holds_whatever_classifiers_are_put_behind_a_backbone():
    module = small(MCD, norm="bn")
    module.prepare()
    top = top_of(module.evaluated())
    assert top[0] == "backbone.blocks.1"
    assert {"bottleneck", "classifier.first.0.1", "classifier.second.0.1"} <= set(top)
    bare = small(SourceOnly, backbone="dtn", norm="dsbn").evaluated()  # its layers are no stages
    assert top_of(bare)[0] == "bottleneck"


def test_a_batch_without_a_reliable_sample_changes_nothing_at_first(batches):
    network = network_of("wa")
    with torch.no_grad():
        network.classifier.weight.zero_()
    twin = copy.deepcopy(network)
    assert all(logits.isfinite().all() for logits in SAR(lr=1.0).predict(twin, batches))
    for a, b in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_entropies_agree_with_scipy_and_are_finite_where_a_prediction_is_sure():
    logits = torch.tensor([[0.0, 0.0, 0.0], [90.0, -90.0, 0.0], [1.0, 2.0, 3.0]])
    logits.requires_grad_()
    values = sample_entropies(logits)
    expected = entropy(torch.softmax(logits.detach().double(), dim=1).numpy(), axis=1)
    torch.testing.assert_close(values.detach().double(), torch.from_numpy(expected))
    values.sum().backward()
    assert logits.grad.isfinite().all()
    chosen = torch.tensor([True, False, True])
    assert mean_of_chosen(values, chosen).item() == pytest.approx(expected[[0, 2]].mean())
    assert mean_of_chosen(values, ~(chosen | True)).item() == 0


def test_single_images_are_taken_where_they_are_allowed(batches):
    stream = [batches[0][:4], batches[1][:1]]
    for norm, sizes in (("bn", [5]), ("wa", [4, 1])):
        assert [len(x) for x in SAR().predict(network_of(norm), stream)] == sizes
    ones = list(batches[0].split(1))
    refused(lambda: list(SAR().predict(network_of("bn"), ones)), "SAR: ", "of one image")
    assert len(list(SAR(single_images=True).predict(network_of("bn"), ones))) == 16


def test_what_can_not_be_adapted_is_refused(batches):
    refused(
        lambda: list(SAR(exclude=["*"]).predict(network_of("bn"), batches)),
        "this network has none outside of *; exclude less (--adapter_options.exclude [])",
    )
    bare = small(SourceOnly, backbone="lenet", norm="bn").evaluated()
    refused(lambda: list(SAR().predict(bare, batches)), "has none outside of its top; exclude")
    for options, said in (
        ({"lr": 0}, "SAR: lr: expected"),
        ({"margin": 0}, "SAR: margin: expected a share of log K in (0, 1], got 0"),
        ({"radius": -1}, "SAR: radius: expected"),
        ({"reset": -1}, "SAR: reset: expected"),
        ({"average": 1}, "SAR: average: expected"),
        ({"exclude": "*"}, "SAR: exclude: expected a list of patterns, got '*'"),
    ):
        refused(lambda options=options: adapter("SAR", options), said)
