"""Alembic's way into our tables; run through `storage.migrations.upgrade`, or by the `alembic` command."""

from alembic import context

from storage.database import Database
from storage.settings import Settings
from storage.tables import metadata

database = Database(context.config.attributes.get("url") or Settings().database)
with database.write() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
database.close()
