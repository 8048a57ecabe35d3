"""Jobs carry their estimate, the memory that they need and took; what estimates were off by is kept; claims scale."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "7a1c52e90b46"
down_revision: str | None = "7c1e52d9a0b4"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("estimate", postgresql.JSONB(none_as_null=True, astext_type=sa.Text())))
    op.add_column("jobs", sa.Column("memory_bytes", sa.BigInteger()))
    op.add_column("jobs", sa.Column("peak_memory_bytes", sa.BigInteger()))
    waiting = sa.text("state IN ('queued','running')")
    columns: list[str | sa.TextClause] = ["workspace_id", sa.text("priority DESC"), "created_at", "id"]
    op.create_index("ix_jobs_waiting", "jobs", columns, postgresql_where=waiting)
    op.create_table(
        "estimate_ratios",
        sa.Column("methods", sa.String(), nullable=False),
        sa.Column("targets", sa.String(), nullable=False),
        sa.Column("queue", sa.String(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("memory", sa.Float(), nullable=False),
        sa.Column("run", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("methods", "targets", "queue", name=op.f("pk_estimate_ratios")),
    )


def downgrade() -> None:
    op.drop_table("estimate_ratios")
    op.drop_index("ix_jobs_waiting", table_name="jobs")
    op.drop_column("jobs", "peak_memory_bytes")
    op.drop_column("jobs", "memory_bytes")
    op.drop_column("jobs", "estimate")
