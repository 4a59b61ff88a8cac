"""What commands need that work on the storage itself, beside a running service or without one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.commands.console import failure, warn

if TYPE_CHECKING:
    from storage.blobs import BlobStore
    from storage.database import Database
    from storage.settings import Settings


@contextmanager
def opened(*, migrated: bool = True) -> "Iterator[tuple[Settings, Database, BlobStore]]":
    """The settings, the database, brought to its present tables, and the blobs; errors become one line."""
    from botocore.exceptions import BotoCoreError, ClientError
    from sqlalchemy.exc import SQLAlchemyError

    from storage.blobs import open_blobs
    from storage.database import Database
    from storage.errors import AccreteError
    from storage.migrations import upgrade
    from storage.settings import read_settings
    from storage.surroundings import oddities

    try:
        settings = read_settings()
        warn(oddities(settings))
        settings.home.mkdir(parents=True, exist_ok=True)
        if migrated:
            upgrade(settings.database)
        database = Database(settings.database)
        try:
            yield settings, database, open_blobs(settings.blobs)
        finally:
            database.close()
    except AccreteError as error:
        raise failure(error.detail) from error
    except (OSError, SQLAlchemyError, ValueError, BotoCoreError, ClientError) as error:
        raise failure(str(error).splitlines()[0]) from error
