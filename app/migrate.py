"""Brings a database to the newest tables: Alembic, driven from Python, with the migrations of the wheel."""

from pathlib import Path

from alembic import command
from alembic.config import Config

import migrations


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for one database, without an ``alembic.ini``."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Applies every migration up to `revision`."""
    command.upgrade(alembic_config(database_url), revision)
