"""Slices of a job."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.progress import Part


class Recorder:
    """Remembers fractions."""

    def __init__(self) -> None:
        self.told: list[float] = []

    def progress(self, phase: str, fraction: float) -> None:
        assert phase == "measuring"
        self.told.append(fraction)


@given(st.integers(1, 9), st.lists(st.floats(-1, 2), max_size=5))
def test_slices_cover_their_part_in_order(count: int, fractions: list[float]) -> None:
    recorder = Recorder()
    part = Part(recorder, "measuring", 0.6, 1.0)  # type: ignore[arg-type]
    for index in range(count):
        for fraction in [0.0, *sorted(fractions), 1.0]:
            part.slice(index, count)(fraction)
    assert recorder.told[0] == 0.6
    assert abs(recorder.told[-1] - 1.0) < 1e-9
    assert all(one <= other + 1e-9 for one, other in zip(recorder.told, recorder.told[1:], strict=False))
