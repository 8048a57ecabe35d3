"""Figures that only grow."""

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base


class Count(Base):
    """One series of a counter, or one bucket or the sum of a histogram, as `app.jobs.counts` defines them.

    Rows of jobs come and go; these stay, so that what is counted never goes back.
    """

    __tablename__ = "counts"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: Values of the labels, in the order of their definition.
    labels: Mapped[tuple[str, ...]] = mapped_column(ARRAY(Text, as_tuple=True), primary_key=True)
    #: Of a histogram: the upper bound of its bucket (not cumulative), or ``sum``; of a counter: empty.
    bucket: Mapped[str] = mapped_column(primary_key=True, server_default="")
    value: Mapped[float] = mapped_column(DOUBLE_PRECISION, server_default="0")
