"""Database migrations (Alembic), shipped in the wheel."""
