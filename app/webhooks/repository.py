"""SQL of webhooks and of their log."""

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import NOW, seconds
from app.db import delete_some
from app.tables import Webhook, WebhookDelivery
from app.web.fields import is_storable
from app.web.pagination import PageRequest


async def insert(session: AsyncSession, webhook: Webhook) -> None:
    """Stores a new webhook."""
    session.add(webhook)
    await session.flush()
    await session.refresh(webhook)


async def find(session: AsyncSession, workspace_id: str, webhook_id: str, *, lock: bool = False) -> Webhook | None:
    """The webhook of this workspace; with `lock`, kept from others' changes."""
    if not is_storable(webhook_id):
        return None
    statement = select(Webhook).where(Webhook.id == webhook_id, Webhook.workspace_id == workspace_id)
    if lock:
        statement = statement.with_for_update(key_share=True)
    return (await session.scalars(statement)).one_or_none()


async def page(session: AsyncSession, workspace_id: str, wanted: PageRequest) -> tuple[list[Webhook], str | None]:
    """A page of the workspace's webhooks."""
    return await wanted.rows(session, select(Webhook).where(Webhook.workspace_id == workspace_id), Webhook)


async def remove(session: AsyncSession, webhook: Webhook) -> None:
    """Deletes a webhook with its log."""
    await session.execute(delete(Webhook).where(Webhook.id == webhook.id))


async def deliveries(
    session: AsyncSession, webhook_id: str, wanted: PageRequest
) -> tuple[list[WebhookDelivery], str | None]:
    """A page of a webhook's log."""
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    return await wanted.rows(session, statement, WebhookDelivery)


async def find_delivery(session: AsyncSession, webhook_id: str, delivery_id: str) -> WebhookDelivery | None:
    """The delivery of this webhook."""
    if not is_storable(delivery_id):
        return None
    statement = select(WebhookDelivery).where(
        WebhookDelivery.id == delivery_id, WebhookDelivery.webhook_id == webhook_id
    )
    return (await session.scalars(statement)).one_or_none()


async def restart(session: AsyncSession, delivery_id: str) -> WebhookDelivery | None:
    """Makes a delivery due at once, with its whole schedule before it; None while a sender has it."""
    at_rest = or_(WebhookDelivery.state != "sending", WebhookDelivery.next_attempt_at <= NOW)
    statement = update(WebhookDelivery).where(WebhookDelivery.id == delivery_id, at_rest)
    restarted = statement.values(
        state="pending", attempts_before=WebhookDelivery.attempts, next_attempt_at=NOW, finished_at=None
    )
    found: WebhookDelivery | None = await session.scalar(
        restarted.returning(WebhookDelivery).execution_options(populate_existing=True)
    )
    return found


async def disable(session: AsyncSession, webhook: Webhook, reason: str) -> None:
    """Switches a webhook off because of what its receiver said, unless it has another URL by now."""
    off = update(Webhook).where(Webhook.id == webhook.id, Webhook.url == webhook.url, Webhook.enabled)
    await session.execute(off.values(enabled=False, disabled_reason=reason))


async def forget_finished(session: AsyncSession, retention_s: float) -> None:
    """Removes deliveries that were over `retention_s` ago, some at a time; for the maintenance loop."""
    long_ago = WebhookDelivery.finished_at < NOW - seconds(retention_s)
    await session.execute(delete_some(WebhookDelivery, long_ago))
