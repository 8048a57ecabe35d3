"""Nothing is lost and nothing runs twice: real processes are killed, frozen and told to end."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import redis

from tests.support.deployment import Deployment, tensors, wait_for


def test_killed_job_process_gets_another_attempt(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check()
    service.look()
    service.freeze(job_id).kill()
    with service.maintained():
        job = service.await_state(job_id, "succeeded", "failed")
    assert job.state == "succeeded"
    assert [state for state, _ in service.states(job_id)] == ["running", "queued", "running", "succeeded"]
    assert job.attempt == 2


def test_killed_job_process_fails_when_attempts_are_used_up(service: Deployment) -> None:
    worker = service.start_worker()
    job_id = service.add_check(max_attempts=2)
    service.look()
    with service.maintained():
        for attempt in (1, 2):
            service.freeze(job_id, attempt=attempt).kill()
        job = service.await_state(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "job_process_died"
    assert "SIGKILL" in job.error["detail"]
    assert job.attempt == 2
    assert service.dataset_of(job_id).state == "rejected"
    assert worker.process.poll() is None, "the worker outlives its jobs"
    other = service.add_check()
    service.look()
    service.await_state(other, "succeeded")


def test_lost_machine_is_another_workers_job(service: Deployment) -> None:
    """kill -9 of the worker and all below it: after the lease another worker takes the job, and it succeeds."""
    first = service.start_worker()
    job_id = service.add_check()
    service.look()
    frozen = service.freeze(job_id)
    first.kill_tree()
    assert _gone(frozen)
    service.start_worker()
    with service.maintained():
        job = service.await_state(job_id, "succeeded", "failed")
    assert job.state == "succeeded"
    assert service.states(job_id) == [("running", 1), ("running", 2), ("succeeded", 2)]
    assert not list((service.settings.work_dir / "attempts").iterdir())


def test_a_frozen_worker_loses_its_job_and_the_jobs_process(service: Deployment) -> None:
    """Its job's process could go on, but is gone when another worker takes the job; thawed, it finds that it lost."""
    with ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(lambda _: service.start_worker(), range(2)))
    job_id = service.add_check()
    service.look()
    process = service.freeze(job_id)
    above = {parent.pid for parent in process.parents()}
    (owner,) = [worker for worker in workers if worker.process.pid in above]
    with service.maintained():
        with owner.frozen():
            wait_for(lambda: service.job(job_id).attempt == 2, "second attempt")
            assert _gone(process)
            service.await_state(job_id, "succeeded")
        workers.remove(owner)
        workers[0].stop()
        other = service.add_check()
        service.look()
        service.await_state(other, "succeeded")
    assert service.states(job_id) == [("running", 1), ("running", 2), ("succeeded", 2)]


def test_killed_main_process_leaves_nothing_running(service: Deployment) -> None:
    """Only Celery's main process is killed: its slot and the job's process go with it."""
    worker = service.start_worker()
    job_id = service.add_check()
    service.look()
    frozen = service.freeze(job_id)
    worker.process.kill()
    worker.process.wait()
    wait_for(lambda: _gone(frozen), "end of the job's process", 5)


def test_duplicate_deliveries_run_nothing_twice(service: Deployment) -> None:
    service.start_worker(slots=2)
    job_id = service.add_check(tensors(samples=5))
    service.look(times=10)
    service.await_state(job_id, "succeeded")
    service.look(times=10)
    time.sleep(1)
    assert service.states(job_id) == [("running", 1), ("succeeded", 1)]


def test_two_workers_share_jobs_without_overlap(service: Deployment) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: service.start_worker(), range(2)))
    jobs = [service.add_check(tensors(samples=5 + n)) for n in range(4)]
    service.look(times=8)
    for job_id in jobs:
        service.await_state(job_id, "succeeded")
        assert service.states(job_id) == [("running", 1), ("succeeded", 1)]


def test_cancel_ends_a_job_that_does_not_answer(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check()
    service.look()
    process = service.freeze(job_id)
    service.update_job(job_id, state="canceling")
    service.await_state(job_id, "canceled")
    assert _gone(process)


def test_run_timeout_ends_the_job(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check(run_timeout_s=1.5)
    service.look()
    service.freeze(job_id)
    job = service.await_state(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "run_timeout"


def test_memory_limit_is_a_clear_error(service: Deployment) -> None:
    """The limit is below what the process needs to read its data."""
    service.start_worker(MODELPRESS_JOB_MEMORY_BYTES=str(40 * 1024**2))
    job_id = service.add_check(tensors(samples=2_000_000), max_attempts=1)
    service.look()
    job = service.await_state(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] in ("out_of_memory", "job_process_died")


def test_a_flushed_broker_loses_no_job(service: Deployment, redis_url: str) -> None:
    """The look is gone before anybody saw it; maintenance sends another."""
    job_id = service.add_check()
    service.look()
    with redis.Redis.from_url(redis_url) as broker:
        assert broker.llen("checks") == 1
        broker.flushall()
    service.start_worker()
    with service.maintained():
        service.await_state(job_id, "succeeded")


def test_an_input_that_the_store_lost_is_a_clear_error(service: Deployment) -> None:
    job_id = service.add_check(max_attempts=1)
    shutil.rmtree(service.folder / "store")
    service.start_worker()
    service.look()
    job = service.await_state(job_id, "failed")
    assert job.error is not None
    assert job.error["code"] == "input_missing"


def test_sigterm_gives_the_job_back(service: Deployment) -> None:
    worker = service.start_worker()
    job_id = service.add_check()
    service.look()
    process = service.freeze(job_id)
    assert worker.stop() < 30
    job = service.job(job_id)
    assert (job.state, job.attempt) == ("queued", 0)
    assert _gone(process)
    assert service.live_workers() == []
    service.start_worker()
    service.look()
    assert service.await_state(job_id, "succeeded").attempt == 1


def test_a_lost_lease_stops_the_process_and_records_nothing(service: Deployment) -> None:
    service.start_worker()
    job_id = service.add_check()
    service.look()
    process = service.freeze(job_id)
    service.update_job(job_id, lease_token="somebody-else")
    wait_for(lambda: _gone(process), "end of the process", 10)
    time.sleep(0.5)
    assert service.states(job_id) == [("running", 1)]
    assert service.job(job_id).state == "running"


def _gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
