"""Back-off and Retry-After."""

from datetime import UTC, datetime

import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from modelpress import Retries
from modelpress.retries import retry_after


@given(failures=st.integers(1, 10_000), base=st.floats(0.01, 5), cap=st.floats(0.01, 60))
def test_pause_grows_to_its_cap_and_never_beyond(failures: int, base: float, cap: float) -> None:
    pause = Retries(attempts=20_000, base_s=base, cap_s=cap).pause(failures)
    longest = min(cap, base * 2.0 ** min(failures - 1, 30))
    assert pause is not None
    assert longest / 2 <= pause <= longest


def test_gives_up_after_its_attempts() -> None:
    retries = Retries(attempts=3)
    assert [retries.pause(n) is None for n in (1, 2, 3)] == [False, False, True]


def test_retry_after_is_honoured_up_to_the_patience() -> None:
    retries = Retries(patience_s=60)
    assert retries.pause(1, 12.5) == 12.5
    assert retries.pause(1, 61) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), (" 0", 0), ("Thu, 01 Jan 2026 00:00:30 GMT", 30), ("Wed, 31 Dec 2025 00:00:00 GMT", 0), ("soon", None)],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False):
        assert retry_after({"Retry-After": text}) == seconds


def test_no_retry_after() -> None:
    assert retry_after({}) is None
