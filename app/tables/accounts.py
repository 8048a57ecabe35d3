"""Workspaces, API keys, and the log of who changed what."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, CreatedAt, Json, new_id

#: From weakest to strongest; each may do what the ones before it may.
ROLES = ("reader", "member", "admin", "operator")


class Workspace(Base):
    """Owns everything that is uploaded or made."""

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("wsp"))
    name: Mapped[str] = mapped_column(unique=True)
    # Limits of this workspace in place of the deployment's; 0: none; null: the deployment's.
    quota_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    quota_jobs: Mapped[int | None]
    quota_uploads: Mapped[int | None]
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
    #: The key that this one was made to replace.
    replaces: Mapped[str | None]
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


class UploadSlot(Base):
    """An upload that is on its way; its request renews `expires_at`, so a process that dies frees the slot."""

    __tablename__ = "upload_slots"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("slt"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"), index=True)
    expires_at: Mapped[datetime]


class AuditEvent(Base):
    """What somebody changed, or was refused. A trigger refuses every change of a row, and deletion but by retention.

    Ids without foreign keys: what is told here outlives what it tells of.
    """

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_audit_events_listing", "workspace_id", "created_at", "id"),
        Index("ix_audit_events_age", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("aud"))
    #: Null where nobody is known to have asked.
    workspace_id: Mapped[str | None]
    #: Id of a key, ``oidc:`` and a token's subject, or ``command line``; null for who could not prove himself.
    actor: Mapped[str | None]
    #: Name of the operation: ``create_job``, ``revoke_key``, ..., or ``authenticate``.
    action: Mapped[str]
    object_id: Mapped[str | None]
    #: ``ok``, or the code of the error that refused it.
    outcome: Mapped[str]
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    created_at: Mapped[CreatedAt]
