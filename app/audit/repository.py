"""SQL of the audit log."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.tables import AuditEvent
from app.web.pagination import PageRequest


async def page_of(
    session: AsyncSession,
    equal: Mapping[str, str | None],
    since: datetime | None,
    until: datetime | None,
    page: PageRequest,
) -> tuple[list[AuditEvent], str | None]:
    """A page of the events from `since` to before `until`; `equal`: column -> value, None for any."""
    statement = select(AuditEvent).filter_by(**{name: value for name, value in equal.items() if value is not None})
    if since is not None:
        statement = statement.where(AuditEvent.created_at >= since)
    if until is not None:
        statement = statement.where(AuditEvent.created_at < until)
    return await page.rows(session, statement, AuditEvent)
