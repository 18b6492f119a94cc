import pytest
import torch
from torch import nn

from da.analysis.pooled_outputs import PooledOutputs, pool_outputs
from da.methods.source_only import SourceOnly
from da.networks.network import Network


@pytest.mark.parametrize("norm", ["bn", "wa", "gn"])
def test_every_place_gives_the_mean_over_the_map_of_each_image(norm):
    module = SourceOnly(num_classes=4, task="a->b", norm=norm, bottleneck=6).eval()
    network = module.network
    x = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = pool_outputs(network, x.split(3), "source")
    with torch.no_grad():
        stem = network.backbone.stem[:2](x) if norm != "wa" else network.backbone.stem[0](x)
        logits = network(x).logits
    torch.testing.assert_close(
        found["backbone.stem.0"], stem.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(found["classifier"], logits, rtol=1e-4, atol=1e-5)
    assert next(iter(found)) == "backbone.stem.0"
    assert list(found)[-1] == "classifier"
    assert not any(part._forward_hooks for part in network.modules())


class Windows(nn.Module):
    """Sees each image as four rows, calls a layer twice, and one on no image at all."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.bias = nn.Linear(2, 4)

    def forward(self, x):
        rows = x.flatten(1).unflatten(1, (4, -1)).flatten(0, 1)
        rows = self.linear(self.linear(rows)) + self.bias(torch.ones(1, 2))
        return rows.unflatten(0, (len(x), 4)).flatten(1)


def test_several_rows_and_calls_for_an_image_and_layers_without_images():
    torch.manual_seed(0)
    windows = Windows()
    network = Network(windows, nn.Identity(), nn.Linear(16, 2))
    x = torch.randn(5, 1, 4, 4)
    found = pool_outputs(network, x.split(3), "target")
    assert list(found) == ["backbone.linear", "classifier"]
    with torch.no_grad():
        once = windows.linear(x.view(5, 4, 4))
        expected = (once.mean(1) + windows.linear(once).mean(1)) / 2
    torch.testing.assert_close(found["backbone.linear"], expected)


def test_channels_may_come_last():
    pooled = PooledOutputs()
    x = torch.arange(24.0).view(2, 4, 3)
    pooled.update(x, -1)
    pooled.end_batch(2)
    assert torch.equal(pooled.values, x.mean(1))
