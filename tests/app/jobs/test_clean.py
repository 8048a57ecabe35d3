"""What a job's process reports is made fit for Postgres."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs.clean import clean
from app.web.fields import is_storable

any_text = st.text(st.characters(exclude_categories=()), max_size=10)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
)


@settings(deadline=None)
@given(values)
def test_everything_becomes_storable(value: Any) -> None:
    cleaned = clean(value)
    text = json.dumps(cleaned, allow_nan=False, ensure_ascii=False)
    assert is_storable(text)
    assert "\\u0000" not in text
    assert clean(cleaned) == cleaned


def test_what_is_fit_stays_as_it_is() -> None:
    value = {"a": [1, 2.5, None, True, "é"]}
    assert clean(value) == value
