"""Figures of jobs that only grow; and the trace that a job belongs to."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "7c1e52d9a0b4"
down_revision: str | None = "7c2d91e4ab10"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "counts",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("labels", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("bucket", sa.String(), server_default="", nullable=False),
        sa.Column("value", postgresql.DOUBLE_PRECISION(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", "labels", "bucket", name=op.f("pk_counts")),
    )
    op.add_column("jobs", sa.Column("trace_parent", sa.String(length=55), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "trace_parent")
    op.drop_table("counts")
