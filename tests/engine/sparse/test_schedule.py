"""How much is gone when."""

import pytest

from worker.engine.sparse.schedule import PRUNING, TIMES, at_once, cubic, due, gradual


def test_the_cubic_of_the_paper() -> None:
    assert cubic(0, 0.8) == 0
    assert cubic(0.5, 0.8) == pytest.approx(0.8 * (1 - 0.125))
    assert cubic(1, 0.8) == cubic(2, 0.8) == 0.8


@pytest.mark.parametrize("steps", [3, 10, 97, 1000])
def test_all_is_gone_when_the_rest_of_the_training_begins(steps: int) -> None:
    times = [due(step / steps) for step in range(steps + 1)]
    assert times == sorted(times)
    assert times[0] == 0
    assert all((count == TIMES) == (step / steps >= PRUNING) for step, count in enumerate(times))


def test_gradual_goes_up_to_the_end_and_at_once_waits_for_it() -> None:
    shares = [gradual(times, 0.9) for times in range(TIMES + 1)]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(0.9)
    assert shares[1] > shares[-1] - shares[-2]  # fast at first
    assert [at_once(times, 0.9) for times in (0, TIMES - 1, TIMES)] == [0, 0, 0.9]
