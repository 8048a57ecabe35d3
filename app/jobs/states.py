"""The state table of a job: every transition there is, in one place.

Rows are what happens, columns are the state in which it happens. A cell that is not here cannot come about: the
lease token guards it, and who asks for it learns that the lease is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from app.errors import Conflict


class State(StrEnum):
    """Where a job is; `app.tables.jobs.TERMINAL` says which are final."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELING = "canceling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Event(StrEnum):
    """What can happen to a job."""

    CLAIMED = "claimed"
    CANCEL = "cancel"
    FINISHED = "finished"
    FAULT = "fault"
    USER_ERROR = "user_error"
    LEASE_EXPIRED = "lease_expired"
    TIMED_OUT = "timed_out"
    RELEASED = "released"
    RETRY = "retry"
    DELETE = "delete"


@dataclass(frozen=True)
class To:
    """The job goes to `state`; to `exhausted` instead when its attempts are used up."""

    state: State
    exhausted: State | None = None


@dataclass(frozen=True)
class Refused:
    """The caller is told 409."""

    code: str
    detail: str


Cell = To | Refused

FINISHED_ALREADY = Refused("job_already_finished", "the job has already finished")
NOT_FINISHED = Refused("job_not_finished", "only a failed or canceled job can be retried; cancel this one first")
SUCCEEDED_ALREADY = Refused("job_already_finished", "the job has succeeded; post a new job to run it again")
STILL_RUNNING = Refused("job_running", "the job is running; cancel it and delete it once it has stopped")

TABLE: Mapping[Event, Mapping[State, Cell]] = {
    # In state running only after maintenance has taken the lease away; the claim's SQL sees to that.
    Event.CLAIMED: {State.QUEUED: To(State.RUNNING), State.RUNNING: To(State.RUNNING)},
    Event.CANCEL: {
        State.QUEUED: To(State.CANCELED),
        State.RUNNING: To(State.CANCELING),
        State.CANCELING: To(State.CANCELING),
        State.SUCCEEDED: FINISHED_ALREADY,
        State.FAILED: FINISHED_ALREADY,
        State.CANCELED: FINISHED_ALREADY,
    },
    Event.FINISHED: {State.RUNNING: To(State.SUCCEEDED), State.CANCELING: To(State.CANCELED)},
    Event.FAULT: {State.RUNNING: To(State.QUEUED, exhausted=State.FAILED), State.CANCELING: To(State.CANCELED)},
    Event.USER_ERROR: {
        State.QUEUED: To(State.FAILED),
        State.RUNNING: To(State.FAILED),
        State.CANCELING: To(State.CANCELED),
    },
    # A running job stays claimable as it is.
    Event.LEASE_EXPIRED: {
        State.RUNNING: To(State.RUNNING, exhausted=State.FAILED),
        State.CANCELING: To(State.CANCELED),
    },
    Event.TIMED_OUT: {
        State.QUEUED: To(State.FAILED),
        State.RUNNING: To(State.FAILED),
        State.CANCELING: To(State.CANCELED),
    },
    # A worker that shuts down gives its job back; the attempt does not count.
    Event.RELEASED: {State.RUNNING: To(State.QUEUED), State.CANCELING: To(State.CANCELED)},
    Event.RETRY: {
        State.QUEUED: NOT_FINISHED,
        State.RUNNING: NOT_FINISHED,
        State.CANCELING: NOT_FINISHED,
        State.SUCCEEDED: SUCCEEDED_ALREADY,
        State.FAILED: To(State.QUEUED),
        State.CANCELED: To(State.QUEUED),
    },
    # A deleted job passes through canceled, which ends the streams that follow it.
    Event.DELETE: {
        State.QUEUED: To(State.CANCELED),
        State.RUNNING: STILL_RUNNING,
        State.CANCELING: STILL_RUNNING,
        State.SUCCEEDED: To(State.SUCCEEDED),
        State.FAILED: To(State.FAILED),
        State.CANCELED: To(State.CANCELED),
    },
}


def decide(event: Event, state: str, *, attempts_left: bool) -> State | None:
    """The state that follows, or None where the event cannot come about in this state.

    Raises:
        Conflict: the table refuses it.
    """
    cell = TABLE[event].get(State(state))
    if cell is None:
        return None
    if isinstance(cell, Refused):
        raise Conflict(cell.detail, code=cell.code)
    return cell.state if attempts_left or cell.exhausted is None else cell.exhausted
