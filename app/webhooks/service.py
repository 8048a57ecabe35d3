"""What can be done with webhooks and their deliveries."""

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import clock
from app.config import Settings
from app.errors import Conflict, FieldError, Invalid, NotFound
from app.tables import Webhook, WebhookDelivery
from app.web.pagination import PageRequest
from app.webhooks import outbox, repository
from app.webhooks.addresses import UrlRefused, checked_url
from app.webhooks.schemas import TEST_EVENT, NewWebhook, WebhookChange
from app.webhooks.signing import new_salt, secret_of

#: How long the secret before a rotation signs too.
OVERLAP = timedelta(hours=24)


async def create(
    session: AsyncSession, settings: Settings, workspace_id: str, request: NewWebhook
) -> tuple[Webhook, str]:
    """A new webhook and its secret, which is kept nowhere. Raises `Invalid`."""
    url = _checked(settings, request.url)
    webhook = Webhook(
        workspace_id=workspace_id, name=request.name, url=url, events=list(request.events), salt=new_salt()
    )
    await repository.insert(session, webhook)
    return webhook, secret_of(settings.key_pepper, webhook.id, webhook.salt)


async def page(session: AsyncSession, workspace_id: str, wanted: PageRequest) -> tuple[list[Webhook], str | None]:
    """A page of the workspace's webhooks."""
    return await repository.page(session, workspace_id, wanted)


async def get(session: AsyncSession, workspace_id: str, webhook_id: str, *, lock: bool = False) -> Webhook:
    """A webhook of this workspace. Raises `NotFound`."""
    webhook = await repository.find(session, workspace_id, webhook_id, lock=lock)
    if webhook is None:
        raise NotFound(f"There is no webhook {webhook_id[:100]!r} in this workspace.", code="webhook_not_found")
    return webhook


async def change(
    session: AsyncSession, settings: Settings, workspace_id: str, webhook_id: str, request: WebhookChange
) -> Webhook:
    """Changes what the request names. Raises `NotFound`, `Invalid`."""
    changes = request.model_dump(exclude_none=True)
    if "url" in changes:
        changes["url"] = _checked(settings, changes["url"])
    if "enabled" in changes:
        changes["disabled_reason"] = None
    webhook = await get(session, workspace_id, webhook_id, lock=True)
    for field, value in changes.items():
        setattr(webhook, field, value)
    await session.flush()
    return webhook


async def delete(session: AsyncSession, workspace_id: str, webhook_id: str) -> None:
    """Deletes a webhook with its log; nothing more is sent to it. Raises `NotFound`."""
    await repository.remove(session, await get(session, workspace_id, webhook_id))


async def rotate(session: AsyncSession, settings: Settings, workspace_id: str, webhook_id: str) -> tuple[Webhook, str]:
    """Gives a webhook a new secret, which is returned; the old one signs too for `OVERLAP`. Raises `NotFound`."""
    webhook = await get(session, workspace_id, webhook_id, lock=True)
    webhook.previous_salt, webhook.salt = webhook.salt, new_salt()
    webhook.previous_secret_until = await clock(session) + OVERLAP
    await session.flush()
    return webhook, secret_of(settings.key_pepper, webhook.id, webhook.salt)


async def send_test(session: AsyncSession, workspace_id: str, webhook_id: str) -> WebhookDelivery:
    """Sends a test event. Raises `NotFound`, `Conflict` for a webhook that is switched off."""
    webhook = _enabled(await get(session, workspace_id, webhook_id, lock=True))
    now = await clock(session)
    (delivery,) = await outbox.put(session, [webhook.id], TEST_EVENT, now, {"id": webhook.id})
    await session.refresh(delivery)
    return delivery


async def deliveries(
    session: AsyncSession, workspace_id: str, webhook_id: str, wanted: PageRequest
) -> tuple[list[WebhookDelivery], str | None]:
    """A page of a webhook's log. Raises `NotFound`."""
    webhook = await get(session, workspace_id, webhook_id)
    return await repository.deliveries(session, webhook.id, wanted)


async def redeliver(session: AsyncSession, workspace_id: str, webhook_id: str, delivery_id: str) -> WebhookDelivery:
    """Sends a delivery again at once, whatever came of it. Raises `NotFound`, `Conflict`."""
    webhook = _enabled(await get(session, workspace_id, webhook_id))
    delivery = await repository.find_delivery(session, webhook.id, delivery_id)
    if delivery is None:
        raise NotFound(f"There is no delivery {delivery_id[:100]!r} to this webhook.", code="delivery_not_found")
    restarted = await repository.restart(session, delivery.id)
    if restarted is None:
        raise Conflict("This delivery is being sent right now; see what comes of it.", code="delivery_in_progress")
    return restarted


def _checked(settings: Settings, url: str) -> str:
    try:
        return checked_url(url, settings.webhook_allowed_networks, allow_http=settings.webhook_allow_http)
    except UrlRefused as error:
        code = "webhook_url_not_allowed"
        fault = FieldError(pointer="/url", detail=str(error), code=code)
        raise Invalid(f"url: {error}", code=code, errors=[fault]) from error


def _enabled(webhook: Webhook) -> Webhook:
    if not webhook.enabled:
        raise Conflict("This webhook is switched off; PATCH it with enabled: true first.", code="webhook_disabled")
    return webhook
