"""Uploads that arrive in pieces, and their parts."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "5b0d7c94e1f3"
down_revision: str | None = "3f6f0c1d8a52"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("metadata", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("received_bytes <= size_bytes", name=op.f("ck_uploads_received")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_uploads_workspace_id_workspaces")),
        sa.ForeignKeyConstraint(
            ["workspace_id", "sha256"],
            ["blobs.workspace_id", "blobs.sha256"],
            name=op.f("fk_uploads_workspace_id_blobs"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_workspace_id"), "uploads", ["workspace_id"])
    op.create_index(op.f("ix_uploads_expires_at"), "uploads", ["expires_at"])
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.String(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name=op.f("fk_upload_parts_upload_id_uploads"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id", "sha256"],
            ["blobs.workspace_id", "blobs.sha256"],
            name=op.f("fk_upload_parts_workspace_id_blobs"),
        ),
        sa.PrimaryKeyConstraint("upload_id", "start", name=op.f("pk_upload_parts")),
    )
    op.create_index("ix_upload_parts_blob", "upload_parts", ["workspace_id", "sha256"])


def downgrade() -> None:
    op.drop_table("upload_parts")
    op.drop_table("uploads")
