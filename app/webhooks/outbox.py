"""The transactional outbox: what is to be told is stored in the transaction of what it tells of.

So nothing is lost once that has committed, and nothing is told where it rolls back. Any process may write here; the
sender of an API process takes it from there.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW
from app.tables import Webhook, WebhookDelivery
from app.tables.base import Json


async def listening(session: AsyncSession, workspace_id: str, event: str) -> Sequence[str]:
    """Ids of the workspace's webhooks that want `event`; none of them can be deleted before this transaction ends."""
    statement = select(Webhook.id).where(
        Webhook.workspace_id == workspace_id, Webhook.enabled, Webhook.events.contains([event])
    )
    return (await session.scalars(statement.with_for_update(read=True, key_share=True))).all()


async def put(
    session: AsyncSession, webhook_ids: Sequence[str], event: str, at: datetime, data: Json
) -> Sequence[WebhookDelivery]:
    """Stores, due at once, one delivery of an event of the time `at` for each of these webhooks."""
    body = json.dumps({"type": event, "timestamp": _rfc3339(at), "data": data}, ensure_ascii=False)
    due = NOW
    rows = [WebhookDelivery(webhook_id=id, event=event, body=body, next_attempt_at=due) for id in webhook_ids]
    session.add_all(rows)
    await session.flush()
    return rows


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
