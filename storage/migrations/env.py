"""Alembic's environment script; run by `storage.migrations.upgrade` or by the `alembic` command."""

from contextlib import closing
from typing import Any

from alembic import context
from sqlalchemy import event

from storage.database.engine import Database
from storage.database.tables import metadata
from storage.settings import Settings


def ignore_foreign_keys(connection: Any, _record: Any) -> None:
    """Turn foreign keys off while SQLite rebuilds tables: dropping the old table would delete rows that refer to it."""
    connection.execute("PRAGMA foreign_keys = OFF")


with closing(Database(context.config.attributes.get("url") or Settings().database)) as database:
    is_sqlite = database.engine.dialect.name == "sqlite"
    if is_sqlite:
        for engine in database.engines:
            event.listen(engine, "connect", ignore_foreign_keys)
    with database.write() as connection:
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
        with context.begin_transaction():
            context.run_migrations()
        if is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all()):
            raise RuntimeError(f"the migration left rows that refer to nothing: {broken[:10]}")
