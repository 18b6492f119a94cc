"""Reciprocal normalisation against its formula as loops over channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from da.norms import normaliser
from da.norms.base import tell_domains
from da.types import Segment

BOTH = (Segment("source", 5), Segment("target", 3))


def compensated(own: Tensor, other: Tensor) -> Tensor:
    found = []
    for i in range(len(own)):
        shares = [math.exp(-(float(own[i] - other[j]) ** 2)) for j in range(len(other))]
        found.append(sum(s * float(v) for s, v in zip(shares, other, strict=True)) / sum(shares))
    return torch.tensor(found, dtype=own.dtype)


def test_statistics_are_aggregated_with_like_channels_of_the_other_domain() -> None:
    norm = normaliser("rn").apply(nn.BatchNorm2d(4).double())
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(torch.rand(4))
    x = torch.randn(8, 4, 3, 2, dtype=torch.float64)
    x[5:] = 2 * x[5:] - 1
    tell_domains(norm, BOTH)
    found = norm(x).split((5, 3))
    parts = x.split((5, 3))
    moments = [torch.var_mean(part, (0, 2, 3), correction=0) for part in parts]
    for i, domain in enumerate(("source", "target")):
        (own_var, own_mean), (other_var, other_mean) = moments[i], moments[1 - i]
        gates = [norm.get_parameter(f"{domain}_{name}_gate") for name in ("mean", "var")]
        mean = gates[0] * own_mean + (1 - gates[0]) * compensated(own_mean, other_mean)
        var = gates[1] * own_var + (1 - gates[1]) * compensated(own_var, other_var)
        values = [v.view(1, 4, 1, 1) for v in (norm.weight, norm.bias, mean, var)]
        expected = values[0] * (parts[i] - values[2]) / (values[3] + 1e-5).sqrt() + values[1]
        torch.testing.assert_close(found[i], expected)


def test_it_starts_as_batch_norm_of_each_domain() -> None:
    x = torch.randn(8, 4, 3, 2)
    norms = [normaliser(name).apply(nn.BatchNorm2d(4)) for name in ("rn", "dsbn")]
    for norm in norms:
        tell_domains(norm, BOTH)
    torch.testing.assert_close(norms[0](x), norms[1](x))
