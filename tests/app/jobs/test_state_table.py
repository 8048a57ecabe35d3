"""Every cell of the state table in the contract, on a real database."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func

from app.errors import ApiError
from app.jobs import control, maintenance
from app.jobs.lost import Watch
from app.jobs.outcomes import Fault, Finished, LeaseState, Stopped, TimedOut, UserError
from app.jobs.states import TABLE, Event, State

pytestmark = pytest.mark.anyio

STATES = ("queued", "running", "canceling", "succeeded", "failed", "canceled")


@dataclass(frozen=True)
class Expected:
    """State after; code of the job's error; or the code of a refusal; or that the lease is lost."""

    state: str
    error: str | None = None
    refused: str | None = None
    lost: bool = False


def refused(state: str, code: str) -> Expected:
    return Expected(state, refused=code)


TERMINAL_CANCEL = {state: refused(state, "job_already_finished") for state in ("succeeded", "failed", "canceled")}
NO_LEASE = {state: Expected(state, lost=True) for state in ("queued", "succeeded", "failed", "canceled")}

CANCEL = {
    "queued": Expected("canceled"),
    "running": Expected("canceling"),
    "canceling": Expected("canceling"),
    **TERMINAL_CANCEL,
}
RETRY = {
    **{state: refused(state, "job_not_finished") for state in ("queued", "running", "canceling")},
    "succeeded": refused("succeeded", "job_already_finished"),
    "failed": Expected("queued"),
    "canceled": Expected("queued"),
}
DELETE = {
    "queued": Expected("gone"),
    "running": refused("running", "job_running"),
    "canceling": refused("canceling", "job_running"),
    **{state: Expected("gone") for state in ("succeeded", "failed", "canceled")},
}
ACTIONS = {"cancel": CANCEL, "retry": RETRY, "delete": DELETE}

OUTCOMES: dict[str, tuple[Any, dict[str, Expected]]] = {
    "succeeded": (Finished(), {**NO_LEASE, "running": Expected("succeeded"), "canceling": Expected("canceled")}),
    "limits_not_met": (
        Finished(gate={"passed": False, "checks": []}),
        {**NO_LEASE, "running": Expected("failed", "limits_not_met"), "canceling": Expected("canceled")},
    ),
    "user_error": (
        UserError("dataset_mismatch", "wrong columns"),
        {**NO_LEASE, "running": Expected("failed", "dataset_mismatch"), "canceling": Expected("canceled")},
    ),
    "fault": (
        Fault("out_of_memory", "killed"),
        {**NO_LEASE, "running": Expected("queued"), "canceling": Expected("canceled")},
    ),
    "timed_out": (
        TimedOut(),
        {**NO_LEASE, "running": Expected("failed", "run_timeout"), "canceling": Expected("canceled")},
    ),
    "stopped": (Stopped(), {**NO_LEASE, "running": Expected("queued"), "canceling": Expected("canceled")}),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("action", ACTIONS)
async def test_what_a_user_does(stage: Any, action: str, state: str) -> None:
    job_id, _ = await stage.in_state(state)
    expected = ACTIONS[action][state]
    code = None
    try:
        if action == "retry":
            await stage.run(control.retry, stage.leases, stage.workspaces[0], job_id)
        else:
            await stage.run(getattr(control, action), stage.workspaces[0], job_id)
    except ApiError as error:
        code = error.code
        assert error.status == 409
    assert code == expected.refused
    if expected.state == "gone":
        with pytest.raises(ApiError, match="no job"):
            await stage.run(control.locked, stage.workspaces[0], job_id)
        return
    job = await stage.get(job_id)
    assert job.state == expected.state
    if action == "retry" and expected.refused is None:
        assert job.max_attempts == 4
        assert (await stage.claim()).attempt == 2


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", OUTCOMES)
async def test_how_a_lease_ends(stage: Any, name: str, state: str) -> None:
    outcome, cells = OUTCOMES[name]
    job_id, lease = await stage.in_state(state)
    if lease is None:
        _, lease = await stage.in_state("running", priority=1)
        lease = lease.__class__(**{**vars(lease), "job_id": job_id})
    expected = cells[state]
    after = await stage.run(stage.leases.finish, lease, outcome)
    job = await stage.get(job_id)
    assert (after is None) == expected.lost
    assert job.state == expected.state
    assert (job.error or {}).get("code") == expected.error
    if not expected.lost:
        assert (job.lease_token, job.lease_expires_at) == (None, None)
        assert (job.finished_at is not None) == (job.state != "queued")


async def test_claimed(stage: Any) -> None:
    job_id, first = await stage.in_state("running")
    assert first.attempt == 1
    assert await stage.claim() is None
    await stage.lose(job_id)
    second = await stage.claim()
    assert (second.job_id, second.attempt) == (job_id, 2)
    assert second.token != first.token
    assert await stage.run(stage.leases.renew, first) == LeaseState.LOST


@pytest.mark.parametrize("state", ["canceling", "succeeded", "failed", "canceled"])
async def test_not_claimed(stage: Any, state: str) -> None:
    job_id, _ = await stage.in_state(state)
    await stage.lose(job_id)
    assert await stage.claim() is None


@pytest.mark.parametrize(("code", "attempts"), [("worker_lost", 1), ("out_of_memory", 2)])
async def test_faults_end_with_the_last_attempt(stage: Any, code: str, attempts: int) -> None:
    job_id = await stage.job(max_attempts=attempts)
    for number in range(1, attempts + 1):
        await stage.set(job_id, not_before=None)
        lease = await stage.claim()
        assert lease.attempt == number
        await stage.run(stage.leases.progress, lease, "compressing", 0.5)
        await stage.run(stage.leases.finish, lease, Fault(code, "died"))
        job = await stage.get(job_id)
        assert job.progress == (0.5 if number == attempts else 0)
    assert (job.state, job.error["code"]) == ("failed", code)
    states = [event.data["state"] for event in await stage.events(job_id, "state")]
    assert states == ["running", "queued"] * (attempts - 1) + ["running", "failed"]


async def test_a_fault_pauses_longer_each_time(stage: Any) -> None:
    job_id = await stage.job(max_attempts=3)
    pauses = []
    for _ in range(2):
        lease = await stage.claim()
        await stage.run(stage.leases.finish, lease, Fault("worker_lost", "died"))
        assert await stage.claim() is None
        job = await stage.get(job_id)
        pauses.append((job.not_before - job.queued_at).total_seconds())
        await stage.set(job_id, not_before=None)
    assert pauses == [2.0, 4.0]


@pytest.mark.parametrize("lost", ["model", "dataset"])
async def test_user_error_while_queued(stage: Any, lost: str) -> None:
    model_id, dataset_id = await stage.model("checking"), await stage.dataset("checking")
    job_id = await stage.job(model_id=model_id, evaluation_dataset_id=dataset_id)
    column = {"model": "model_id", "dataset": "calibration_dataset_id"}[lost]
    await stage.job(
        kind=f"check_{lost}", queue="checks", targets=[], **{column: {"model": model_id, "dataset": dataset_id}[lost]}
    )
    check = await stage.claim(stage.checks)
    assert await stage.run(stage.leases.finish, check, UserError("unsafe_format", "a pickle")) == State.FAILED
    job = await stage.get(job_id)
    assert (job.state, job.error["code"]) == ("failed", f"{lost}_rejected")


@pytest.mark.parametrize(
    ("state", "attempts", "expected", "code"),
    [
        ("running", 3, "running", None),
        ("running", 1, "failed", "worker_lost"),
        ("canceling", 3, "canceled", None),
        ("canceling", 1, "canceled", None),
    ],
)
async def test_lease_expired(stage: Any, state: str, attempts: int, expected: str, code: str | None) -> None:
    job_id, _ = await stage.in_state(state, max_attempts=attempts)
    watch = Watch(0.05)
    await stage.run(watch.lost_leases)
    assert (await stage.get(job_id)).state == state
    await asyncio.sleep(0.1)
    for _ in range(2):
        await stage.run(watch.lost_leases)
        job = await stage.get(job_id)
        assert (job.state, (job.error or {}).get("code")) == (expected, code)
    assert job.lease_token is None


@pytest.mark.parametrize(
    ("state", "expected", "code"),
    [
        ("queued", "failed", "pending_timeout"),
        ("running", "failed", "pending_timeout"),
        ("canceling", "canceling", None),  # it waits for no worker: the next round ends it (test_lost)
        ("succeeded", "succeeded", None),
        ("failed", "failed", None),
        ("canceled", "canceled", None),
    ],
)
async def test_time_is_over(stage: Any, state: str, expected: str, code: str | None) -> None:
    job_id, lease = await stage.in_state(state, pending_timeout_s=60, run_timeout_s=60)
    await stage.run(maintenance.time_outs)
    assert (await stage.get(job_id)).state == state
    long_ago = func.now() - timedelta(seconds=300)
    await stage.set(job_id, queued_at=long_ago, started_at=long_ago)
    if state in ("running", "canceling"):
        assert await stage.run(stage.leases.renew, lease) != LeaseState.LOST
        await stage.run(maintenance.time_outs)
        assert (await stage.get(job_id)).state == state, "its worker is there to stop it"
        await stage.lose(job_id)
    for _ in range(2):
        await stage.run(maintenance.time_outs)
        job = await stage.get(job_id)
        assert (job.state, (job.error or {}).get("code")) == (expected, code)


@pytest.mark.parametrize(("state", "expected", "attempt"), [("running", "queued", 0), ("canceling", "canceled", 1)])
async def test_released(stage: Any, state: str, expected: str, attempt: int) -> None:
    job_id, lease = await stage.in_state(state)
    assert await stage.run(stage.leases.release, lease) == expected
    job = await stage.get(job_id)
    assert (job.state, job.attempt) == (expected, attempt)


def test_the_table_names_every_state_that_a_user_can_meet() -> None:
    for event in (Event.CANCEL, Event.RETRY, Event.DELETE):
        assert set(TABLE[event]) == set(State)
