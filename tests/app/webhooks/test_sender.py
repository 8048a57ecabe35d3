"""Deliveries from the end of a job to a real receiver."""

import asyncio
import gc
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from standardwebhooks import WebhookVerificationError

from app.jobs.maintenance import Maintenance
from app.storage import open_store
from app.tables import Webhook, WebhookDelivery
from app.webhooks import claims
from app.webhooks.sender import Sender

pytestmark = pytest.mark.anyio


async def _set(hooks: Any, **values: Any) -> None:
    """Changes every delivery."""
    async with hooks.stage.database.transaction() as session:
        await session.execute(update(WebhookDelivery).values(**values))


async def test_retries_until_the_receiver_takes_it(hooks: Any) -> None:
    made = await hooks.make()
    hooks.receiver.answers.extend([(500, {}), (302, {"Location": "http://127.0.0.1/"}), (200, {})])
    await hooks.test(made)
    async with hooks.sender():
        (row,) = await hooks.ended(made)
    assert (row["state"], row["attempts"], row["error"]) == ("succeeded", 3, None)
    assert {seen.headers["webhook-id"] for seen in hooks.receiver.seen} == {row["id"]}
    assert len({seen.body for seen in hooks.receiver.seen}) == 1
    for seen in hooks.receiver.seen:
        assert seen.verified(made["secret"])["type"] == "webhook.test"


async def test_it_gives_up_and_can_be_told_to_start_anew(hooks: Any) -> None:
    made = await hooks.make()
    hooks.receiver.answers.extend([(500, {})] * 4)
    await hooks.test(made)
    async with hooks.sender():
        (row,) = await hooks.ended(made)
        assert (row["state"], row["attempts"], row["response_status"]) == ("failed", 3, 500)
        assert row["error"] == {"code": "webhook_refused", "detail": "the receiver answered 500"}
        again = await hooks.client.post(f"/v1/webhooks/{made['id']}/deliveries/{row['id']}:redeliver")
        assert (again.status_code, again.json()["state"]) == (202, "pending")
        (row,) = await hooks.ended(made)
    assert (row["state"], row["attempts"]) == ("succeeded", 5)
    assert len({seen.headers["webhook-id"] for seen in hooks.receiver.seen}) == 1


async def test_messages_are_signed_by_the_databases_clock(hooks: Any) -> None:
    await hooks.test(await hooks.make())
    async with hooks.stage.database.transaction() as session:
        (claimed,) = await claims.claim(session, 1, 30.0)
    assert claimed.at == claimed.delivery.attempted_at
    long_ago = claimed.at - timedelta(hours=2)
    sender = Sender(hooks.stage.settings, hooks.stage.database)
    await sender._attempt(replace(claimed, at=long_ago))
    await sender._poster.close()
    (seen,) = hooks.receiver.seen
    assert seen.headers["webhook-timestamp"] == str(int(long_ago.timestamp()))


async def test_what_waits_can_be_sent_at_once(hooks: Any) -> None:
    made = await hooks.make()
    delivery = await hooks.test(made)
    path = f"/v1/webhooks/{made['id']}/deliveries/{delivery['id']}:redeliver"
    tomorrow = func.clock_timestamp() + timedelta(days=1)
    await _set(hooks, next_attempt_at=tomorrow, attempts=2)
    async with hooks.sender():
        await asyncio.sleep(0.1)
        assert hooks.receiver.seen == []
        assert (await hooks.client.post(path)).status_code == 202
        await hooks.ended(made)
    await _set(hooks, state="sending", next_attempt_at=tomorrow, finished_at=None)
    assert (await hooks.client.post(path)).json()["code"] == "delivery_in_progress"


async def test_gone_switches_it_off(hooks: Any) -> None:
    made = await hooks.make()
    hooks.receiver.answers.append((410, {}))
    await hooks.cancel()
    async with hooks.sender():
        (row,) = await hooks.ended(made)
        assert (row["state"], row["attempts"], row["response_status"]) == ("failed", 1, 410)
        shown = (await hooks.client.get(f"/v1/webhooks/{made['id']}")).json()
        assert shown["enabled"] is False
        assert "410" in shown["disabled_reason"]
        await hooks.cancel()
        assert len(await hooks.log(made)) == 1, "what happens while it is off is not told"
        await hooks.client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": True})
        await hooks.cancel()
        assert [row["state"] for row in await hooks.ended(made)] == ["succeeded", "failed"]


async def test_what_is_due_after_switching_off_fails(hooks: Any) -> None:
    made = await hooks.make()
    await hooks.test(made)
    await hooks.client.patch(f"/v1/webhooks/{made['id']}", json={"enabled": False})
    async with hooks.sender():
        (row,) = await hooks.ended(made)
    assert (row["state"], row["error"]["code"]) == ("failed", "webhook_disabled")
    assert hooks.receiver.seen == []


async def test_two_senders_send_each_message_once(hooks: Any) -> None:
    made = await hooks.make()
    for _ in range(20):
        await hooks.test(made)
    async with hooks.sender(), hooks.sender():
        log = await hooks.ended(made)
    assert {row["attempts"] for row in log} == {1}
    ids = [seen.headers["webhook-id"] for seen in hooks.receiver.seen]
    assert sorted(ids) == sorted(row["id"] for row in log)


async def test_what_is_taken_is_not_taken_again_before_its_lease_ends(hooks: Any) -> None:
    made = await hooks.make()
    await hooks.test(made)
    (first,) = await hooks.stage.run(claims.claim, 10, 60)
    assert await hooks.stage.run(claims.claim, 10, 60) == []
    await _set(hooks, next_attempt_at=func.clock_timestamp())
    (second,) = await hooks.stage.run(claims.claim, 10, 60)
    sender = Sender(hooks.stage.settings, hooks.stage.database)
    await sender._deliver(second)
    await sender._deliver(first)  # the one that was thought dead comes back
    (row,) = await hooks.log(made)
    assert (row["state"], row["attempts"]) == ("succeeded", 2)
    assert len(hooks.receiver.seen) == 2, "at least once"


async def test_a_receiver_that_hangs_leaves_room_for_others(hooks: Any) -> None:
    slow, quick = await hooks.make(), await hooks.make()
    for _ in range(2 * claims.MOST_AT_ONCE):
        await hooks.test(slow)
    await hooks.test(quick)
    taken = await hooks.stage.run(claims.claim, 100, 60)
    counts = {id: sum(each.webhook.id == id for each in taken) for id in (slow["id"], quick["id"])}
    assert counts == {slow["id"]: claims.MOST_AT_ONCE, quick["id"]: 1}
    assert await hooks.stage.run(claims.claim, 100, 60) == []


async def test_both_secrets_sign_for_a_day_after_a_rotation(hooks: Any) -> None:
    made = await hooks.make()
    rotated = (await hooks.client.post(f"/v1/webhooks/{made['id']}:rotate")).json()
    assert rotated["secret"] != made["secret"]
    assert rotated["previous_secret_until"] is not None
    async with hooks.sender():
        await hooks.test(made)
        await hooks.ended(made)
        async with hooks.stage.database.transaction() as session:
            await session.execute(update(Webhook).values(previous_secret_until=func.clock_timestamp()))
        await hooks.test(made)
        await hooks.ended(made)
    before, after = hooks.receiver.seen
    for secret in (made["secret"], rotated["secret"]):
        assert before.verified(secret)["type"] == "webhook.test"
    assert after.verified(rotated["secret"])
    with pytest.raises(WebhookVerificationError):
        after.verified(made["secret"])


async def test_it_goes_on_where_a_webhook_is_deleted_meanwhile(hooks: Any) -> None:
    gone, made = await hooks.make(), await hooks.make()
    hooks.receiver.open.clear()
    await hooks.test(gone)
    async with hooks.sender():
        await asyncio.to_thread(hooks.receiver.asked.wait, 20)
        assert (await hooks.client.delete(f"/v1/webhooks/{gone['id']}")).status_code == 204
        hooks.receiver.open.set()
        await hooks.test(made)
        assert [row["state"] for row in await hooks.ended(made)] == ["succeeded"]


async def test_it_ends_at_any_moment_and_leaves_no_connection(hooks: Any) -> None:
    made = await hooks.make()
    for pause in range(8):
        await hooks.test(made)
        async with hooks.sender():
            await asyncio.sleep(pause / 100)
    gc.collect()
    await asyncio.sleep(0)
    gc.collect()


async def test_old_deliveries_are_forgotten(hooks: Any) -> None:
    made = await hooks.make()
    await hooks.test(made)
    async with hooks.sender():
        await hooks.ended(made)
    await hooks.test(made)
    stage = hooks.stage
    maintenance = Maintenance(stage.settings, stage.database, open_store(stage.settings), stage.leases)
    await maintenance.round()
    assert len(await hooks.log(made)) == 2
    await _set(hooks, created_at=func.clock_timestamp() - timedelta(days=99))
    async with stage.database.transaction() as session:
        month = timedelta(seconds=stage.settings.webhook_retention_s)
        finished = WebhookDelivery.finished_at.is_not(None)
        await session.execute(
            update(WebhookDelivery).where(finished).values(finished_at=func.clock_timestamp() - month)
        )
    await maintenance.round()
    async with stage.database.transaction() as session:
        assert (await session.scalars(select(WebhookDelivery.state))).all() == ["pending"]
