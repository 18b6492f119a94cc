import numpy as np
import pytest
import torch
from short_runs import small

from da.errors import UserError
from da.methods.mcc import MCC, class_confusion


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def weights_of(p):
    """1 + e^-H, of mean 1."""
    w = np.array([1 + np.exp(sum(x * np.log(x) for x in row)) for row in p])
    return len(w) * w / w.sum()


def confusion(logits, temperature, weights=None):
    """As the paper has it: a matrix of K x K, its rows normalised, what is off its diagonal."""
    p = softmax(logits / temperature)
    w = weights_of(p) if weights is None else weights
    classes = p.shape[1]
    total = 0.0
    for j in range(classes):
        row = [sum(w[i] * p[i, j] * p[i, k] for i in range(len(p))) for k in range(classes)]
        total += sum(x for k, x in enumerate(row) if k != j) / sum(row)
    return total / classes


def logits_of(rows=9, classes=4, scale=4.0):
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("rows", [2, 9])
def test_it_agrees_with_the_matrix_of_the_paper(rows, temperature):
    logits = logits_of(rows)
    expected = confusion(logits.numpy(), temperature)
    assert class_confusion(logits, temperature).item() == pytest.approx(expected, rel=1e-12)


def test_the_gradient_holds_the_weights_of_the_samples_fixed():
    logits = logits_of(5).requires_grad_()
    class_confusion(logits, 2.5).backward()
    plain = logits.detach().numpy()
    fixed = weights_of(softmax(plain / 2.5))
    numerical, moving = np.zeros_like(plain), np.zeros_like(plain)
    for place in np.ndindex(*plain.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = plain.copy()
            moved[place] += step
            ends.append((confusion(moved, 2.5, fixed), confusion(moved, 2.5)))
        numerical[place], moving[place] = np.subtract(*ends) / 2e-5
    np.testing.assert_allclose(logits.grad.numpy(), numerical, rtol=1e-5, atol=1e-9)
    assert np.abs(numerical - moving).max() > 1e-4  # which is another gradient


def test_it_is_0_of_sure_predictions_of_all_classes_and_largest_of_uniform_ones():
    sure = 1e3 * torch.eye(4)[[0, 1, 2, 3, 3]]
    assert class_confusion(sure).item() == pytest.approx(0, abs=1e-6)
    assert class_confusion(torch.zeros(5, 4)).item() == pytest.approx(3 / 4)
    assert class_confusion(logits_of()).item() < 3 / 4


def test_one_sample_confuses_all_classes_alike_whatever_it_is():
    logits = logits_of(1).requires_grad_()
    loss = class_confusion(logits)
    loss.backward()
    assert loss.item() == pytest.approx(3 / 4)
    assert logits.grad.abs().max() < 1e-12


def test_a_class_that_is_never_predicted_is_confused_and_its_gradient_finite():
    logits = (1e4 * torch.eye(4)[[0, 1, 1, 2]]).requires_grad_()
    loss = class_confusion(logits)
    loss.backward()
    assert loss.item() == pytest.approx(1 / 4)
    assert logits.grad.isfinite().all()


def test_the_target_alone_is_made_less_confused(batch, fake_trainer):
    module = small(MCC, norm="wa", trade_off=0.3, temperature=1.7)
    fake_trainer(module)
    logits = module.network(batch.target.images).logits.detach().double().numpy()
    found = {name: loss.item() for name, loss in module.losses(batch).items()}
    assert found["class_confusion"] == pytest.approx(0.3 * confusion(logits, 1.7), rel=1e-5)
    assert set(found) == {"task", "class_confusion"}


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_none_is_refused(temperature):
    message = f"temperature: expected a number above 0, got {temperature}"
    with pytest.raises(UserError, match=message):
        small(MCC, temperature=temperature)
