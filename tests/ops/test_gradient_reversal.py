import torch

from da.ops.gradient_reversal import gradient_reversal


def test_identity_forwards_and_reversed_backwards():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, dtype=torch.float64)
    y = gradient_reversal(x, 0.3)
    assert torch.equal(y, x)
    (y @ weight).sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * weight.expand(5, 3))


def test_strength_zero_stops_the_gradient():
    x = torch.ones(2, requires_grad=True)
    gradient_reversal(x, 0.0).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2))
