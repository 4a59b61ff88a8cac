"""Opens the storage for commands that use it directly, whether or not the service runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.commands.console import failure, warn

if TYPE_CHECKING:
    from storage.blobs.store import BlobStore
    from storage.database.engine import Database
    from storage.settings import Settings


@contextmanager
def opened(*, existing: bool = True) -> "Iterator[tuple[Settings, Database, BlobStore]]":
    """The settings, the database and the blobs; errors become one line and exit code 1.

    With ``existing`` the database must have its tables already, and is migrated to the present schema. Without it, the
    database is used as it is.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from sqlalchemy.exc import SQLAlchemyError

    from storage.blobs.opening import open_blobs
    from storage.database.engine import Database
    from storage.environment import environment_warnings
    from storage.errors import AccreteError, NotFound
    from storage.migrations import revision, upgrade
    from storage.settings import read_settings

    try:
        settings = read_settings()
        warn(environment_warnings(settings))
        if existing and revision(settings.database) is None:
            raise NotFound(_no_service(settings))
        settings.home.mkdir(parents=True, exist_ok=True)
        if existing:
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


def absence() -> str | None:
    """The message that no service was found in ACCRETE_HOME; None if there is one, or ACCRETE_DATABASE_URL is set.

    For commands that answer with an empty list if there is no service.
    """
    from storage.environment import environment_warnings
    from storage.migrations import revision
    from storage.settings import SettingsInvalid, read_settings

    try:
        settings = read_settings()
    except SettingsInvalid as error:
        raise failure(str(error)) from error
    if settings.database_url is not None or revision(settings.database) is not None:
        return None
    warn(environment_warnings(settings))  # where there is a service, `opened` prints these
    return _no_service(settings)


def _no_service(settings: "Settings") -> str:
    if settings.database_url is None:
        return (
            f"no service has its home in {settings.home.resolve()}: set ACCRETE_HOME to the folder of the service that "
            "you mean (and ACCRETE_DATABASE_URL, if it has a database of its own), or start one there with `accrete up`"
        )
    return (
        f"no service uses the database that ACCRETE_DATABASE_URL names (its home would be {settings.home.resolve()}): "
        "name the database of the service you mean, or start a service with it"
    )
