import pytest
import torch

from da.ops.decompositions import of_finite


def nuclear_norm(matrix):
    return torch.linalg.matrix_norm(matrix, ord="nuc")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_gives_nan_that_can_be_differentiated(value):
    matrix = torch.tensor([[1.0, value], [2.0, 3.0]], requires_grad=True)
    norm = of_finite(nuclear_norm, matrix)
    norm.backward()
    assert norm.isnan()
    assert matrix.grad.shape == matrix.shape


def test_a_finite_matrix_gives_what_the_function_does_and_its_errors():
    matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert of_finite(nuclear_norm, matrix).item() == pytest.approx(7)
    with pytest.raises(torch.linalg.LinAlgError):
        of_finite(lambda x: torch.linalg.inv(x - x).sum(), matrix)
