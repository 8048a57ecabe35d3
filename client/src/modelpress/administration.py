"""The nouns of those who run a service: workspaces, keys, webhooks, the audit log, usage."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Final, Unpack

from modelpress.administration_views import AuditEvent, Delivery, Key, Usage, Webhook, Workspace
from modelpress.nouns import Collection, Noun, Owned, everything, paged, present
from modelpress.requests import AuditFilters, Call, Quota, segment
from modelpress.session import Session
from modelpress.views import Page

_TIMES: Final = ("since", "until")


class AsyncWorkspaces(Collection[Workspace]):
    """`/v1/workspaces`: for operators."""

    path, view = "workspaces", Workspace

    async def create(self, name: str) -> Workspace:
        """A new workspace."""
        return self._parse(await self._session.json(Call("POST", "workspaces", json={"name": name})))

    async def update(self, id: str, quotas: Quota) -> Workspace:
        """Changes its quotas; what is absent stays, None is the deployment's limit, 0 none."""
        call = Call("PATCH", f"workspaces/{segment(id)}", json={"quotas": dict(quotas)})
        return self._parse(await self._session.json(call))


class AsyncKeys(Collection[Key]):
    """`/v1/keys`."""

    path, view = "keys", Key

    async def create(
        self, name: str, role: str = "member", *, workspace_id: str | None = None, expires_at: datetime | None = None
    ) -> Key:
        """A new key; the answer's `key` is the secret, shown this once."""
        expiry = None if expires_at is None else expires_at.isoformat()
        body = present({"name": name, "role": role, "workspace_id": workspace_id, "expires_at": expiry})
        return self._parse(await self._session.json(Call("POST", "keys", json=body)))

    async def rotate(self, id: str, *, overlap_s: int | None = None) -> Key:
        """A new key in its place; the old one works for `overlap_s` seconds more (a day where absent)."""
        call = Call("POST", f"keys/{segment(id)}:rotate", json=present({"overlap_s": overlap_s}))
        return self._parse(await self._session.json(call))

    async def delete(self, id: str) -> None:
        """Revokes it."""
        await self._delete(id)


class AsyncWebhooks(Owned[Webhook]):
    """`/v1/webhooks`: for admins."""

    path, view = "webhooks", Webhook

    async def create(self, url: str, events: Sequence[str], *, name: str | None = None) -> Webhook:
        """A new webhook; the answer's `secret` verifies its messages and is shown this once."""
        body = present({"url": url, "events": [*events], "name": name})
        return self._parse(await self._session.json(Call("POST", "webhooks", json=body)))

    async def update(
        self,
        id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        name: str | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Changes what is given."""
        body = present({"url": url, "events": None if events is None else [*events], "name": name, "enabled": enabled})
        return self._parse(await self._session.json(Call("PATCH", f"webhooks/{segment(id)}", json=body)))

    async def rotate(self, id: str) -> Webhook:
        """A new secret; for a while the old one signs too, until `previous_secret_until`."""
        return self._parse(await self._session.json(Call("POST", f"webhooks/{segment(id)}:rotate")))

    async def test(self, id: str) -> Delivery:
        """Sends a message of the type `webhook.test`."""
        return Delivery.parse(await self._session.json(Call("POST", f"webhooks/{segment(id)}:test")))

    async def deliveries(self, id: str) -> AsyncGenerator[Delivery]:
        """What was sent to it, newest first."""
        async for delivery in everything(self._session, f"webhooks/{segment(id)}/deliveries", Delivery.parse, {}):
            yield delivery

    async def redeliver(self, id: str, delivery_id: str) -> Delivery:
        """Sends a message once more."""
        path = f"webhooks/{segment(id)}/deliveries/{segment(delivery_id)}:redeliver"
        return Delivery.parse(await self._session.json(Call("POST", path)))


class AsyncAudit(Noun[AuditEvent]):
    """`/v1/audit`: for admins."""

    path, view = "audit", AuditEvent

    async def page(
        self, /, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[AuditFilters]
    ) -> Page[AuditEvent]:
        """A part of the log, newest first."""
        params = {"limit": limit, "cursor": cursor, **_query(filters)}
        return await paged(self._session, self.path, self._parse, params)

    async def list(self, /, **filters: Unpack[AuditFilters]) -> AsyncGenerator[AuditEvent]:
        """The log, newest first, fetched page by page as it is asked for."""
        async for event in everything(self._session, self.path, self._parse, _query(filters)):
            yield event


class AsyncUsage:
    """`/v1/usage`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, *, workspace_id: str | None = None) -> Usage:
        """What the workspace uses and how much it may; another one's is for operators."""
        call = Call("GET", "usage", params={"workspace_id": workspace_id})
        return Usage.parse(await self._session.json(call))


def _query(filters: AuditFilters) -> dict[str, str]:
    given: dict[str, Any] = {**filters}
    return {name: value.astimezone().isoformat() if name in _TIMES else value for name, value in given.items()}
