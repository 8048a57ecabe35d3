"""The learning rate warms up, and comes down to nearly nothing."""

import pytest

from worker.engine.training.schedule import rate


def test_up_and_down() -> None:
    rates = [rate(step, 200) for step in range(200)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 1.0
    assert 0 < rates[0] < 0.2
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_trainings_move(steps: int) -> None:
    assert all(0 < rate(step, steps) <= 1 for step in range(steps))
