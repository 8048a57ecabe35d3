"""Workspaces and API keys."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, CreatedAt, Json, new_id

#: From weakest to strongest; each may do what the ones before it may.
ROLES = ("reader", "member", "admin", "operator")


class Workspace(Base):
    """Owns everything that is uploaded or made."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("wsp"))
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[CreatedAt]


class Key(Base):
    """An API key: looked up by its public prefix, proved by HMAC-SHA256 of the whole."""

    __tablename__ = "keys"
    __table_args__ = (CheckConstraint("role IN ('reader','member','admin','operator')", name="role"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("key"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    name: Mapped[str]
    role: Mapped[str]
    prefix: Mapped[str] = mapped_column(unique=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class IdempotencyKey(Base):
    """The first response to a POST, kept to answer its repetitions.

    A row past `expires_at` counts as absent. While the first request runs, `expires_at` is the short lease of `owner`,
    which renews it: a process that dies frees the key. Afterwards it is the end of the retention.
    """

    __tablename__ = "idempotency_keys"

    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    #: Random name of the request that holds the lease.
    owner: Mapped[str]
    #: Digest of method, path and body (for uploads: of the fields and the file's digest); null until it is known.
    fingerprint: Mapped[str | None]
    #: Null while the first request is still running.
    status: Mapped[int | None]
    headers: Mapped[Json | None]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime] = mapped_column(index=True)
