"""Webhooks, and the outbox of what they are to be told, which is also the log of deliveries."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, text
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, CreatedAt, Json, new_id


class Webhook(Base):
    """Where a workspace wants to be told of events. Its secret is derived from `salt` and kept nowhere."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_listing", "workspace_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("whk"))
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str | None]
    url: Mapped[str]
    events: Mapped[list[Any]]
    enabled: Mapped[bool] = mapped_column(server_default="true")
    #: Why the service itself switched it off.
    disabled_reason: Mapped[str | None]
    salt: Mapped[bytes] = mapped_column(LargeBinary)
    #: Salt of the secret before the last rotation, which signs too until `previous_secret_until`.
    previous_salt: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_secret_until: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class WebhookDelivery(Base):
    """One event on its way to one webhook.

    A sender that takes a row makes it ``sending``, counts the attempt and moves `next_attempt_at` to the end of its
    lease: past that time the row is due again, whoever had it. State and `attempts` together guard what it records.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending','sending','succeeded','failed')", name="state"),
        Index("ix_webhook_deliveries_listing", "webhook_id", "created_at", "id"),
        Index("ix_webhook_deliveries_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index("ix_webhook_deliveries_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("whd"))
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str]
    #: The very text that is sent and signed.
    body: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    #: Attempts before the schedule of pauses began anew, at a redelivery.
    attempts_before: Mapped[int] = mapped_column(server_default="0")
    #: Null once it is over.
    next_attempt_at: Mapped[datetime | None]
    #: Of the latest attempt: when, what the receiver answered, what went wrong, how long it took.
    attempted_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[Json | None]
    duration_ms: Mapped[int | None]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[datetime | None]
