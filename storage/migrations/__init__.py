"""Schema migrations: `upgrade(url)` brings any database, empty or old, to the present tables."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, text

from storage.database import Database

_ADVISORY_LOCK = 0x616363726574


def configuration(url: str | URL) -> Config:
    """Alembic's configuration for a database, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Run what is missing; several processes may ask at once, one does it while the others wait."""
    database = Database(url)
    try:
        with database.engine.connect() as guard:
            if guard.dialect.name == "postgresql":  # SQLite's writers queue by themselves
                guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
                command.upgrade(configuration(url), revision)
                guard.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
                return
        command.upgrade(configuration(url), revision)
    finally:
        database.close()
