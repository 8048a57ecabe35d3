"""Alembic's environment: connects to the database of the configuration, or of the settings, and runs migrations."""

from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from app.config import get_settings
from app.tables import Base

#: Two processes that start at once must not migrate at once (any fixed number serves).
_LOCK = 7_236_941_857


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.run_migrations()


def _online() -> None:
    # psycopg serves sync and async under one URL, so no event loop is needed here, and a running one does not matter.
    url = context.config.get_main_option("sqlalchemy.url") or get_settings().database_url
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        _migrate(connection)


def _offline() -> None:
    """``alembic upgrade --sql``: prints SQL for a database administrator to run."""
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    _offline()
else:
    _online()
