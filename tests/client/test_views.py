"""JSON into dataclasses."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelpress import Job, Key, Model, ProtocolError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_job_in_full() -> None:
    job = Job.parse(
        {
            "id": "job_1",
            "state": "succeeded",
            "created_at": "2026-01-02T03:04:05Z",
            "targets": ["torch"],
            "metrics": {
                "baseline": {"torch": {"size_bytes": 10, "latency_ms": {"p50": 1.5}}},
                "artifacts": {"torch": {"metric": {"name": "accuracy", "value": 0.5, "ci95": [0.4, 0.6]}}},
                "layers": [{"name": "conv1"}],
            },
            "gate": {"passed": True, "checks": [{"target": "torch", "limit": "max_size_ratio", "passed": True}]},
            "artifacts": [{"id": "art_1", "tomorrow": 1}],
        }
    )
    assert job.finished
    assert job.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert job.metrics is not None and job.metrics.baseline is not None and job.metrics.artifacts is not None
    assert job.metrics.baseline["torch"].latency_ms == {"p50": 1.5}
    metric = job.metrics.artifacts["torch"].metric
    assert metric is not None and metric.ci95 == (0.4, 0.6)
    assert job.metrics.raw["layers"] == [{"name": "conv1"}]
    assert job.artifacts is not None and job.artifacts[0].raw["tomorrow"] == 1
    assert job.error is None


@given(st.dictionaries(st.sampled_from([*Job.__dataclass_fields__, "new"]), json_values))
def test_any_object_is_a_job_or_refused(data: dict[str, object]) -> None:
    with contextlib.suppress(ProtocolError):
        job = Job.parse(data)
        assert job.raw == data
        assert isinstance(job.state, str)
        assert job.progress is None or isinstance(job.progress, int | float)


@pytest.mark.parametrize(
    "data",
    [None, [], {"id": "mdl_1"}, {"id": "m", "state": 3}, {"id": "m", "state": "ready", "created_at": "yesterday"}],
)
def test_what_is_no_model_is_refused(data: object) -> None:
    with pytest.raises(ProtocolError):
        Model.parse(data)


def test_a_key_does_not_show_its_secret() -> None:
    key = Key.parse({"id": "key_1", "name": "ci", "role": "member", "key": "mpk_secret"})
    assert key.key == "mpk_secret"
    assert "mpk_secret" not in repr(key)
