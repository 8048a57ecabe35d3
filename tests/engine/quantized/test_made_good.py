"""What changes in a weight is made good by the others as least squares would."""

import torch

from worker.engine.quantized.made_good import BLOCK, inverse_factor, made_good


def _moments(k: int, rows: int = 4000) -> torch.Tensor:
    torch.manual_seed(0)
    inputs = torch.randn(rows, k) @ (torch.randn(k, k) * 0.3 + torch.eye(k))
    return inputs.T @ inputs / rows


def test_the_factor_is_that_of_the_inverse() -> None:
    moments = _moments(20)
    factor = inverse_factor(moments)
    assert torch.equal(factor, factor.triu())
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(20)
    torch.testing.assert_close(factor.T @ factor @ damped, torch.eye(20), rtol=0, atol=1e-3)


def test_moments_that_cannot_be_inverted_have_a_factor() -> None:
    assert torch.equal(inverse_factor(torch.zeros(5, 5)), torch.eye(5))
    once = torch.randn(1, 6)
    assert torch.isfinite(inverse_factor(once.T @ once)).all()


def test_the_rest_answers_like_least_squares() -> None:
    """Zeros in the first inputs: the others become what a regression on them would give."""
    k, gone = 2 * BLOCK + 12, BLOCK + 30  # corrections reach over blocks
    moments, weight = _moments(k).double(), torch.randn(6, k).double()
    found = made_good(weight, inverse_factor(moments), lambda at, block: block[:, 0] * (at >= gone))
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(k)
    rest = weight[:, gone:] + weight[:, :gone] @ damped[:gone, gone:] @ torch.linalg.inv(damped[gone:, gone:])
    assert not found[:, :gone].any()
    torch.testing.assert_close(found[:, gone:], rest, rtol=0, atol=1e-6)
