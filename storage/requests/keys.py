"""The API keys: stored as digests only; a revoked key is never valid again.

A key holds 256 random bits, so nobody can try them all, and one round of SHA-256 is enough to protect the keys in a
stolen database. A slow hash (argon2, scrypt) is for passwords that people invent; here it would slow requests down.
"""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, insert, or_, select, update

from storage.database import rows
from storage.database.tables import keys
from storage.domain import Key, Scope, new_id, now
from storage.errors import Invalid, KeyNotFound

PREFIX = "accrete_"  # lets people and secret scanners recognise a key
SECRET_BYTES = 32
ADMIN_FILE = "admin key file"  # name of the key that ACCRETE_ADMIN_KEY_FILE brings
LEAST_LENGTH, MOST_LENGTH = 32, 500  # characters of a key from the admin key file


def digest_of(secret: str) -> str:
    """What is stored of a key: SHA-256, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(
    connection: Connection,
    *,
    name: str,
    scopes: Collection[Scope],
    model_id: str | None = None,
    rate: float | None = None,
) -> tuple[Key, str]:
    """Make a key; returns it and its secret, which is not stored."""
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    return _add(connection, name=name, secret=secret, scopes=scopes, model_id=model_id, rate=rate), secret


def install_admin(connection: Connection, secret: str) -> Key:
    """Make the secret from the admin key file an admin key, and revoke the key from an earlier secret of the file.

    A key that was revoked stays revoked. Raises `Invalid` for a secret that is too short or too long, is not printable
    ASCII, or holds spaces.
    """
    if not LEAST_LENGTH <= len(secret) <= MOST_LENGTH or not secret.isascii() or not secret.isprintable():
        raise Invalid(
            f"the admin key must be {LEAST_LENGTH} to {MOST_LENGTH} printable ASCII characters in one line, and "
            "random: openssl rand -hex 32"
        )
    if " " in secret:
        raise Invalid("the admin key must not hold spaces: openssl rand -hex 32 makes a good one")
    digest = digest_of(secret)
    others = (keys.c.name == ADMIN_FILE) & (keys.c.digest != digest) & keys.c.revoked_at.is_(None)
    connection.execute(update(keys).where(others).values(revoked_at=now()))
    row = connection.execute(select(keys).where(keys.c.digest == digest)).mappings().one_or_none()
    if row is not None:
        return rows.key(row)
    return _add(connection, name=ADMIN_FILE, secret=secret, scopes={Scope.ADMIN}, model_id=None, rate=None)


def in_force(connection: Connection) -> tuple[Key, ...]:
    """Every key that is not revoked."""
    return tuple(rows.key(row) for row in connection.execute(_query().where(keys.c.revoked_at.is_(None))).mappings())


def every(connection: Connection) -> tuple[Key, ...]:
    """Every key, revoked ones included, oldest first."""
    return tuple(rows.key(row) for row in connection.execute(_query()).mappings())


def of_digest(connection: Connection, digest: str) -> Key | None:
    """The key in force with that digest."""
    query = select(keys).where(keys.c.digest == digest).where(keys.c.revoked_at.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    return rows.key(row) if row is not None else None


def revoke(connection: Connection, id_or_name: str) -> Sequence[Key]:
    """Revoke the key of that id, or all keys of that name; raises `KeyNotFound` if none is in force."""
    named = or_(keys.c.id == id_or_name, keys.c.name == id_or_name) & keys.c.revoked_at.is_(None)
    found = [rows.key(row) for row in connection.execute(_query().where(named)).mappings()]
    if not found:
        raise KeyNotFound(f"There is no key {id_or_name!r} in force: accrete keys list shows ids and names.")
    connection.execute(update(keys).where(named).values(revoked_at=now()))
    return found


def _add(
    connection: Connection,
    *,
    name: str,
    secret: str,
    scopes: Collection[Scope],
    model_id: str | None,
    rate: float | None,
) -> Key:
    key = Key(
        id=new_id(),
        name=name,
        digest=digest_of(secret),
        scopes=frozenset(scopes),
        model_id=model_id,
        rate=rate,
        created_at=now(),
    )
    connection.execute(
        insert(keys).values(
            id=key.id,
            name=key.name,
            digest=key.digest,
            scopes=sorted(key.scopes),
            model_id=key.model_id,
            rate=key.rate,
            created_at=key.created_at,
        )
    )
    return key


def _query() -> Select[Any]:
    return select(keys).order_by(keys.c.created_at, keys.c.id)
