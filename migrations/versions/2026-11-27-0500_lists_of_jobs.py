"""Lists of jobs by state, name and tag read what they show, however many others there are."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "3f0d6b8c2a71"
down_revision: str | None = "7a1c52e90b46"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    shown = sa.text("kind = 'compress'")
    op.create_index("ix_jobs_state", "jobs", ["workspace_id", "state", "created_at", "id"], postgresql_where=shown)
    op.create_index("ix_jobs_name", "jobs", ["workspace_id", "name", "created_at", "id"], postgresql_where=shown)
    op.create_index("ix_jobs_tags", "jobs", ["tags"], postgresql_using="gin", postgresql_where=shown)


def downgrade() -> None:
    for name in ("ix_jobs_tags", "ix_jobs_name", "ix_jobs_state"):
        op.drop_index(name, table_name="jobs")
