"""Schema migrations: `upgrade(url)` brings any database, empty or old, to the present tables."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, make_url, text

from storage.database.engine import Database

_ADVISORY_LOCK = 0x616363726574


def configuration(url: str | URL) -> Config:
    """Alembic's configuration for a database, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def latest() -> str:
    """The revision of a database with the present tables."""
    return str(ScriptDirectory.from_config(configuration("sqlite://")).get_current_head())


def revision(url: str | URL) -> str | None:
    """The schema revision of a database; None if there is no database of this service. Creates nothing."""
    named = make_url(url)
    if named.get_backend_name() == "sqlite" and not Path(named.database or "").is_file():
        return None  # a connection would create the file
    database = Database(url)
    try:
        with database.read() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Run the missing migrations; if several processes call this at once, one runs them and the others wait."""
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
