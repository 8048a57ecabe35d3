"""The database's clock: the only one that time-outs and retentions know, however many machines there are."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

#: The time at which a statement comes to it, not that of the transaction's begin.
NOW: ColumnElement[datetime] = func.clock_timestamp()


def seconds(number: Any) -> ColumnElement[Any]:
    """An interval of so many seconds: a number, or a column."""
    interval: ColumnElement[Any] = func.make_interval(0, 0, 0, 0, 0, 0, number)
    return interval


async def clock(session: AsyncSession) -> datetime:
    """The time now."""
    now: datetime = (await session.execute(select(NOW))).scalar_one()
    return now
