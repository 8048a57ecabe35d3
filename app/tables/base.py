"""What all tables share: naming of constraints, ids, time columns."""

import secrets
from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from app.clock import NOW

#: Deterministic constraint names, so that migrations can name what they drop.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Json = dict[str, Any]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=NOW)]
Bytes = Annotated[int, mapped_column(BigInteger)]
Sha256 = Annotated[str, mapped_column(String(64))]


class Base(DeclarativeBase):
    """Root of the tables."""

    metadata = MetaData(naming_convention=NAMING)
    #: None is SQL's null, never JSON's.
    type_annotation_map = {  # noqa: RUF012
        Json: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
        datetime: DateTime(timezone=True),
    }


def new_id(prefix: str) -> str:
    """A fresh public id such as ``job_3xk...``: 20 characters of base 32, 100 bits."""
    alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
    return prefix + "_" + "".join(secrets.choice(alphabet) for _ in range(20))
