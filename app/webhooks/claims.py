"""SQL of senders: taking deliveries that are due, and recording what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW
from app.tables import Webhook, WebhookDelivery
from app.webhooks.attempt import Outcome

#: Deliveries to one webhook at once: a receiver that hangs leaves room for the others.
MOST_AT_ONCE = 3


@dataclass(frozen=True)
class Claim:
    """A delivery that one sender has until its lease ends. Both rows are as they were when it was taken, `at` then."""

    delivery: WebhookDelivery
    webhook: Webhook
    at: datetime

    @property
    def attempt(self) -> int:
        """Number of this try, from 1, in the schedule of pauses."""
        return self.delivery.attempts - self.delivery.attempts_before


async def claim(session: AsyncSession, limit: int, lease_s: float) -> Sequence[Claim]:
    """Takes up to `limit` deliveries that are due, the longest due first; of each webhook `MOST_AT_ONCE`."""
    due = WebhookDelivery.next_attempt_at <= NOW
    place = func.row_number().over(
        partition_by=WebhookDelivery.webhook_id, order_by=(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
    )
    waiting = select(WebhookDelivery.id, place.label("place")).where(due).subquery()
    others = select(WebhookDelivery.webhook_id, func.count().label("count"))
    others = others.where(WebhookDelivery.state == "sending", WebhookDelivery.next_attempt_at > NOW)
    sending = others.group_by(WebhookDelivery.webhook_id).subquery()
    statement = (
        select(WebhookDelivery, Webhook, NOW)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .join(waiting, waiting.c.id == WebhookDelivery.id)
        .outerjoin(sending, sending.c.webhook_id == WebhookDelivery.webhook_id)
        .where(due, waiting.c.place + func.coalesce(sending.c.count, 0) <= MOST_AT_ONCE)
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=WebhookDelivery)
    )
    claims = []
    for delivery, webhook, now in (await session.execute(statement)).all():
        delivery.state = "sending"
        delivery.attempts += 1
        delivery.attempted_at, delivery.next_attempt_at = now, now + timedelta(seconds=lease_s)
        claims.append(Claim(delivery, webhook, now))
    return claims


async def record(session: AsyncSession, claimed: Claim, outcome: Outcome, now: datetime, pause_s: float | None) -> bool:
    """Stores what came of an attempt, and when the next one is due (None: never). False: the lease was lost."""
    row = claimed.delivery
    unfinished = "failed" if pause_s is None else "pending"
    mine = (WebhookDelivery.id == row.id, WebhookDelivery.state == "sending", WebhookDelivery.attempts == row.attempts)
    statement = update(WebhookDelivery).where(*mine).execution_options(synchronize_session=False)
    recorded = await session.scalar(
        statement.values(
            state="succeeded" if outcome.error is None else unfinished,
            next_attempt_at=None if pause_s is None else now + timedelta(seconds=pause_s),
            finished_at=now if pause_s is None else None,
            response_status=outcome.status,
            error=outcome.error,
            duration_ms=outcome.duration_ms,
        ).returning(WebhookDelivery.id)
    )
    return recorded is not None
