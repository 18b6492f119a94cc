"""TENT against a loop by hand, and what it may change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from short_runs import small
from torch import nn

import run
from da.adapters.base import adapter
from da.adapters.tent import TENT, scales_and_shifts
from da.errors import UserError
from da.methods.source_only import SourceOnly
from da.norms.weight_align.layers import Aligned


def network_of(norm, **options):
    return small(SourceOnly, norm=norm, seed=1, **options).evaluated().eval()


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, 32, 32, generator=generator) for n in (16, 16, 8)]


def by_hand(network, batches, lr):
    """The authors' loop: predict, then one step on the mean entropy of the predictions."""
    network = copy.deepcopy(network)
    chosen = []
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.running_mean = module.running_var = None
            module.track_running_stats = False
            chosen += [module.weight, module.bias]
        elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
            chosen += [module.weight, module.bias]
        elif isinstance(module, Aligned):
            chosen += [module.g, module.bias]
    optimiser = torch.optim.Adam(chosen, lr=lr)
    logits = []
    for images in batches:
        out = network(images).logits
        p = F.softmax(out, dim=1)
        loss = -(p * F.log_softmax(out, dim=1)).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        logits.append(out.detach())
    return logits


@pytest.mark.parametrize("norm", ["bn", "wa", "gn"])
def test_it_is_the_loop_of_the_authors(norm, batches):
    network = network_of(norm)
    expected = by_hand(network, batches, 0.01)
    adapted = list(TENT(lr=0.01).predict(copy.deepcopy(network), batches))
    for one, other in zip(adapted, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["bn", "wa", "wa+bn", "wa+gn", "gn", "in", "ln"])
def test_scales_and_shifts_alone_move_and_the_entropy_falls(norm, batches):
    network = network_of(norm)
    twin = copy.deepcopy(network)
    first, *_, last = TENT(lr=0.01).predict(twin, [batches[0]] * 10)
    changed = {
        name
        for (name, a), b in zip(network.named_parameters(), twin.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    allowed = {id(p) for p in scales_and_shifts(twin)}
    assert changed == {name for name, p in twin.named_parameters() if id(p) in allowed}
    for (name, a), b in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert "num_batches" in name or torch.equal(a, b), name

    def entropy(logits):
        return torch.distributions.Categorical(logits=logits).entropy().mean()

    assert entropy(last) < entropy(first)


def test_under_weightalign_they_are_g_and_b(batches):
    network = network_of("wa")
    names = {id(p): name for name, p in network.named_parameters()}
    kinds = {names[id(p)].rpartition(".")[2] for p in scales_and_shifts(network)}
    assert kinds == {"g", "bias"}
    layers = [m for m in network.modules() if isinstance(m, Aligned)]
    assert len(scales_and_shifts(network)) == 2 * len(layers)


def test_a_last_batch_of_one_image_is_joined_where_there_are_statistics(batches):
    stream = [batches[0][:4], batches[1][:1]]
    for norm, sizes in (("bn", [5]), ("wa", [4, 1])):
        assert [len(x) for x in TENT().predict(network_of(norm), stream)] == sizes


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 4), (1,)])
def test_batches_of_one_image_are_refused_where_there_are_statistics(sizes, batches):
    images = torch.cat(batches).split([*sizes, sum(map(len, batches)) - sum(sizes)])[: len(sizes)]
    with pytest.raises(UserError, match="a batch of one image has none; give larger batches"):
        list(TENT().predict(network_of("bn"), images))


def test_under_dsbn_the_statistics_are_those_of_the_batch(batches):
    """Both domains of it start from one batch norm: the first prediction is batch norm's."""
    plain, dsbn = (next(TENT().predict(network_of(norm), batches)) for norm in ("bn", "dsbn"))
    torch.testing.assert_close(dsbn, plain)


def test_what_can_not_be_adapted_is_refused(batches):
    network = network_of("none", bottleneck=None)
    if not scales_and_shifts(network):
        with pytest.raises(UserError, match="this network has none"):
            list(TENT().predict(network, batches))
    for options, said in (({"lr": 0}, "lr: expected"), ({"steps": 0}, "steps: expected")):
        with pytest.raises(UserError, match=said):
            TENT(**options)
    with pytest.raises(UserError, match="unknown adapter 'TNT'; did you mean 'TENT'"):
        adapter("TNT")
    with pytest.raises(UserError, match=r"adapter TENT: .*rate"):
        adapter("TENT", {"rate": 1})


def test_a_checkpoint_is_evaluated_as_tent_adapts_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--data.steps_per_epoch", "3", "--trainer.max_epochs", "1", "--model.norm", "wa"]
    assert run.main(["fit", "--out", "run", *options]) == 0
    capsys.readouterr()
    line = ["test", "run/last.ckpt", "--adapter", "TENT", "--adapter_batch", "50"]
    assert run.main([*line, "--adapter_options.lr", "0.01"]) == 0
    assert "wa@TENT" in capsys.readouterr().out
