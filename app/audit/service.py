"""Who may read what of the audit log."""

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.caller import Caller
from app.audit import repository
from app.tables import AuditEvent
from app.web.pagination import PageRequest


@dataclass(frozen=True)
class Filters:
    """Values that events must have; None for any."""

    workspace_id: str | None = None
    actor: str | None = None
    action: str | None = None
    object_id: str | None = None
    outcome: str | None = None


async def list_page(
    session: AsyncSession,
    caller: Caller,
    filters: Filters,
    times: tuple[datetime | None, datetime | None],
    page: PageRequest,
) -> tuple[list[AuditEvent], str | None]:
    """Events of all workspaces, and of nobody known, for an operator; else of the caller's workspace alone."""
    wanted = asdict(filters)
    if not caller.may("operator"):
        if filters.workspace_id not in (None, caller.workspace_id):
            return [], None
        wanted["workspace_id"] = caller.workspace_id
    return await repository.page_of(session, wanted, *times, page)
