"""``/v1/webhooks``."""

from fastapi import APIRouter

from app.accounts.caller import Admin
from app.accounts.routes import WorkspaceRoute
from app.web.pagination import Page, PageDep
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep
from app.webhooks import service
from app.webhooks.schemas import DeliveryView, MadeWebhook, NewWebhook, WebhookChange, WebhookView

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=WorkspaceRoute)


@router.post("", status_code=201, summary="Make a webhook", responses=responses(409, 413))
async def create_webhook(body: NewWebhook, caller: Admin, session: SessionDep, services: ServicesDep) -> MadeWebhook:
    """The secret is shown this once; the service keeps only what it is derived from."""
    webhook, secret = await service.create(session, services.settings, caller.workspace_id, body)
    return MadeWebhook.with_secret(webhook, secret)


@router.get("", summary="List webhooks", responses=responses())
async def list_webhooks(caller: Admin, session: SessionDep, page: PageDep) -> Page[WebhookView]:
    """The workspace's webhooks, newest first."""
    rows, next_cursor = await service.page(session, caller.workspace_id, page)
    return Page(items=[WebhookView.of(row) for row in rows], next_cursor=next_cursor)


@router.get("/{webhook_id}", summary="Show a webhook", responses=responses(404))
async def get_webhook(webhook_id: str, caller: Admin, session: SessionDep) -> WebhookView:
    """One webhook."""
    return WebhookView.of(await service.get(session, caller.workspace_id, webhook_id))


@router.patch("/{webhook_id}", summary="Change a webhook", responses=responses(404, 413))
async def change_webhook(
    webhook_id: str, body: WebhookChange, caller: Admin, session: SessionDep, services: ServicesDep
) -> WebhookView:
    """Another URL, other events, on or off; what the body leaves out stays."""
    return WebhookView.of(await service.change(session, services.settings, caller.workspace_id, webhook_id, body))


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook", responses=responses(404))
async def delete_webhook(webhook_id: str, caller: Admin, session: SessionDep) -> None:
    """With its log; nothing more is sent to it."""
    await service.delete(session, caller.workspace_id, webhook_id)


@router.post("/{webhook_id}:rotate", summary="Rotate a webhook's secret", responses=responses(404, 409))
async def rotate_webhook(webhook_id: str, caller: Admin, session: SessionDep, services: ServicesDep) -> MadeWebhook:
    """A new secret, shown this once; for 24 hours messages are signed with the old one too."""
    webhook, secret = await service.rotate(session, services.settings, caller.workspace_id, webhook_id)
    return MadeWebhook.with_secret(webhook, secret)


@router.post("/{webhook_id}:test", status_code=202, summary="Send a test event", responses=responses(404, 409))
async def test_webhook(webhook_id: str, caller: Admin, session: SessionDep) -> DeliveryView:
    """Sends `webhook.test`, whatever events the webhook wants; the log tells what came of it."""
    return DeliveryView.of(await service.send_test(session, caller.workspace_id, webhook_id))


@router.get("/{webhook_id}/deliveries", summary="Show a webhook's log", responses=responses(404))
async def list_deliveries(webhook_id: str, caller: Admin, session: SessionDep, page: PageDep) -> Page[DeliveryView]:
    """What was sent, is being sent and will be sent, newest event first."""
    rows, next_cursor = await service.deliveries(session, caller.workspace_id, webhook_id, page)
    return Page(items=[DeliveryView.of(row) for row in rows], next_cursor=next_cursor)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}:redeliver",
    status_code=202,
    summary="Send a delivery again",
    responses=responses(404, 409),
)
async def redeliver(webhook_id: str, delivery_id: str, caller: Admin, session: SessionDep) -> DeliveryView:
    """At once, with the same `webhook-id`, whether it failed, succeeded or waits for its next attempt."""
    return DeliveryView.of(await service.redeliver(session, caller.workspace_id, webhook_id, delivery_id))
