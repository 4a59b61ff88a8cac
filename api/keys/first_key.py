"""Before the service listens: install the administrator's first key, and check that not everyone has access."""

from storage.database.engine import Database
from storage.domain import Scope
from storage.errors import Invalid
from storage.requests import audit, keys
from storage.settings import Settings, is_this_machine

OPEN = (
    "No keys are asked for: whoever reaches port {port} of this machine is administrator. Before a proxy or "
    "other people do, set ACCRETE_KEYS=required."
)


class Unguarded(Exception):
    """The service would be open to everyone, or would have no administrator; the message says what to do."""


def check(settings: Settings) -> None:
    """Install the key of ACCRETE_ADMIN_KEY_FILE.

    Raises `Unguarded` if keys are needed and there is no administrator's, if other machines could reach a service
    without keys, or if the file cannot be used.
    """
    if settings.keys == "none" and settings.keys_needed:
        raise Unguarded(
            f"ACCRETE_KEYS=none is for this machine alone, and ACCRETE_HOST={settings.host} can be reached from "
            "others: leave one of the two out."
        )
    if not settings.keys_needed and settings.admin_key_file is None:
        return
    database = Database(settings.database)
    try:
        _check(settings, database)
    finally:
        database.close()


def _check(settings: Settings, database: Database) -> None:
    if settings.admin_key_file is not None:
        _install(settings, database)
    if not settings.keys_needed:
        return
    with database.read() as connection:
        if any(Scope.ADMIN in key.scopes and key.model_id is None for key in keys.in_force(connection)):
            return
    raise Unguarded(
        "Requests need API keys here (ACCRETE_KEYS), and there is no administrator's yet: make one with `accrete keys "
        "create NAME --scope admin`, or name a file that holds one in ACCRETE_ADMIN_KEY_FILE (openssl rand -hex 32 > "
        "FILE)." + _way_without(settings)
    )


def _way_without(settings: Settings) -> str:
    if settings.keys == "required" or not is_this_machine(settings.host):
        return ""
    return " Or say ACCRETE_KEYS=none, if nothing but you reaches this port: no proxy, nobody else on this machine."


def _install(settings: Settings, database: Database) -> None:
    path = settings.admin_key_file
    assert path is not None
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds more than ASCII"
        # Without the file's name: if the variable holds the key itself by mistake, the key would be logged.
        raise Unguarded(f"The file that ACCRETE_ADMIN_KEY_FILE names cannot be read: {why}.") from None
    with database.write() as connection:
        known = keys.of_digest(connection, keys.digest_of(secret))
        try:
            key = keys.install_admin(connection, secret)
        except Invalid as error:
            raise Unguarded(f"The file that ACCRETE_ADMIN_KEY_FILE names: {error.detail}") from error
        if known is None:
            made = {"key": key.name, "scopes": sorted(key.scopes), "model": None}
            audit.note(connection, action="install admin key file", path=f"{key.name} {key.id}", change={"made": made})
