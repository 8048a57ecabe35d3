"""Jobs say which models the steps of their recipe read, beside their own."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "3f6f0c1d8a52"
down_revision: str | None = "bb9ae1a73daa"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    column = sa.Column("step_model_ids", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False)
    op.add_column("jobs", column)


def downgrade() -> None:
    op.drop_column("jobs", "step_model_ids")
