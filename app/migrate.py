"""Brings a database to the newest tables: Alembic, driven from Python, with the migrations of the wheel."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

import migrations


class MigrationError(Exception):
    """The database cannot be brought to this version's tables."""


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for one database, without an ``alembic.ini``."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str) -> None:
    """Applies every migration that is missing.

    Raises:
        MigrationError: the database is not there, or has tables of a newer version.
    """
    try:
        command.upgrade(alembic_config(database_url), "head")
    except CommandError as error:
        raise MigrationError(
            f"the database has tables that this version does not know, probably of a newer version ({error}): "
            "upgrade Modelpress, or restore a backup made by this version"
        ) from error
    except OperationalError as error:
        raise MigrationError(f"the database is not reachable: {error.orig}") from error


@cache
def newest_revision() -> str | None:
    """The revision that this version's tables have."""
    return ScriptDirectory.from_config(alembic_config("postgresql://")).get_current_head()


async def revision_of(session: AsyncSession) -> str | None:
    """The revision of the database's tables; None where it has none."""
    try:
        found: str | None = await session.scalar(text("SELECT version_num FROM alembic_version"))
    except ProgrammingError:  # no such table: it was never migrated
        return None
    return found
