"""Quotas of workspaces, replaced keys, uploads on their way, and an audit log that can only grow."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "7c2d91e4ab10"
down_revision: str | None = "8c41d7be2f06"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_QUOTAS = (
    ("quota_stored_bytes", sa.BigInteger()),
    ("quota_jobs", sa.Integer()),
    ("quota_uploads", sa.Integer()),
)
#: Only who says that this is retention may delete, and nobody may change or truncate.
_APPEND_ONLY = """
CREATE FUNCTION audit_events_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('modelpress.audit_retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'audit_events can only grow' USING ERRCODE = 'insufficient_privilege';
END
$$
"""


def upgrade() -> None:
    for name, kind in _QUOTAS:
        op.add_column("workspaces", sa.Column(name, kind, nullable=True))
    op.add_column("keys", sa.Column("replaces", sa.String(), nullable=True))
    op.create_table(
        "upload_slots",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_upload_slots_workspace_id_workspaces")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_slots")),
    )
    op.create_index(op.f("ix_upload_slots_workspace_id"), "upload_slots", ["workspace_id"])
    _create_audit_events()


def _create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=True),
        sa.Column("actor", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object_id", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_listing", "audit_events", ["workspace_id", "created_at", "id"])
    op.create_index("ix_audit_events_age", "audit_events", ["created_at", "id"])
    op.execute(_APPEND_ONLY)
    for name, when, each in (("rows", "UPDATE OR DELETE", "ROW"), ("whole", "TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER audit_events_{name} BEFORE {when} ON audit_events FOR EACH {each} "
            "EXECUTE FUNCTION audit_events_append_only()"
        )


def downgrade() -> None:
    op.drop_table("audit_events")
    op.execute("DROP FUNCTION audit_events_append_only()")
    op.drop_table("upload_slots")
    op.drop_column("keys", "replaces")
    for name, _ in reversed(_QUOTAS):
        op.drop_column("workspaces", name)
