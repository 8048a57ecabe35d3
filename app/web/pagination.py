"""Pages of lists: newest first, continued by an opaque cursor that stays right while rows come and go."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel
from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import FieldError, Invalid

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = None


@dataclass(frozen=True)
class PageRequest:
    """Which page is asked for: at most `limit` rows after the row of `after`."""

    limit: int
    after: tuple[datetime, str] | None

    async def rows(self, session: AsyncSession, statement: Select[Any], table: Any) -> tuple[list[Any], str | None]:
        """The page's rows of `statement` (of one table that has `id` and `created_at`) and the next page's cursor."""
        newest_first = statement.order_by(table.created_at.desc(), table.id.desc()).limit(self.limit + 1)
        if self.after is not None:
            newest_first = newest_first.where(tuple_(table.created_at, table.id) < tuple_(*self.after))
        rows = list(await session.scalars(newest_first))
        more = len(rows) > self.limit
        rows = rows[: self.limit]
        return rows, _encode(rows[-1].created_at, rows[-1].id) if more else None


async def _page_request(
    limit: Annotated[int, Query(ge=1, le=200, description="Most items in the answer.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> PageRequest:
    return PageRequest(limit, None if cursor is None else _decode(cursor))


PageDep = Annotated[PageRequest, Depends(_page_request)]


def _encode(created_at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()}|{row_id}".encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        time, separator, row_id = text.partition("|")
        created_at = datetime.fromisoformat(time)
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    if not separator or created_at.tzinfo is None or "\0" in row_id:
        raise _bad_cursor()
    return created_at, row_id


def _bad_cursor() -> Invalid:
    detail = "not a cursor of this list; take `next_cursor` of the page before, unchanged"
    return Invalid(detail, code="invalid_cursor", errors=[FieldError(pointer="/query/cursor", detail=detail)])
