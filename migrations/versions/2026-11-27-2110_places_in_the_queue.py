"""Places in the queue are read out of an index, which has them in order."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "b1f4d07c9e25"
down_revision: str | None = "3f0d6b8c2a71"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    queued = sa.text("kind = 'compress' AND state = 'queued'")
    op.create_index("ix_jobs_queue", "jobs", [sa.text("priority DESC"), "created_at", "id"], postgresql_where=queued)


def downgrade() -> None:
    op.drop_index("ix_jobs_queue", table_name="jobs")
