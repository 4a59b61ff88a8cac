"""`accrete keys`: create, list and revoke API keys, directly in the database; these commands need no key themselves."""

from typing import Annotated, Any

import typer

from api.commands.console import emit, failure, warn
from api.commands.options import AsJson
from api.commands.storage import absence, opened
from api.commands.tables import MISSING, table

app = typer.Typer(
    help="Create, list and revoke API keys, in the database that ACCRETE_HOME or ACCRETE_DATABASE_URL names."
)

SCOPES = {
    "predict": "predictions, and reading models, increments and metrics",
    "train": "what predict permits, and changing models, batches, images, increments and promotions",
    "admin": "everything",
}


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[
        list[str], typer.Option(help="; ".join(f"{scope}: {what}" for scope, what in SCOPES.items()) + ". Repeatable.")
    ],
    model: Annotated[str | None, typer.Option(help="The one model it is good for; default: all.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Requests a second; default: no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and show it, only this once."""
    from storage.domain import Scope
    from storage.history import models
    from storage.requests import audit, keys

    if unknown := sorted(set(scope) - SCOPES.keys()):
        raise failure(f"unknown scope {', '.join(unknown)}: there are {', '.join(SCOPES)}")
    if not 0 < len(name) <= 200 or not name.isprintable():
        raise failure("a name has 1 to 200 printable characters")
    with opened() as (_, database, _), database.write() as connection:
        model_id = models.get(connection, model).id if model is not None else None
        scopes = frozenset(map(Scope, scope))
        key, secret = keys.create(connection, name=name, scopes=scopes, model_id=model_id, rate=rate)
        made = {"key": key.name, "scopes": sorted(key.scopes), "model": model}
        audit.note(connection, action="create key", path=f"{key.name} {key.id}", change={"made": made})
    document = {"id": key.id, "name": name, "scopes": sorted(key.scopes), "model": model, "rate": rate, "key": secret}
    text = f"{secret}\n\nSend it as `Authorization: Bearer KEY`, or set ACCRETE_API_KEY. It is not shown again."
    emit(document if as_json else None, text)


@app.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List all keys, revoked ones too; the secrets themselves are not stored."""
    from storage.history import models
    from storage.requests import keys

    empty = "No keys yet: accrete keys create NAME --scope admin"
    if (nowhere := absence()) is not None:
        warn([nowhere])
        emit({"items": []} if as_json else None, empty)
        return
    with opened() as (_, database, _), database.read() as connection:
        found = keys.every(connection)
        names = {key.model_id: models.by_id(connection, key.model_id).name for key in found if key.model_id is not None}
    items: list[dict[str, Any]] = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "model": names[key.model_id] if key.model_id is not None else None,
            "rate": key.rate,
            "created_at": key.created_at.isoformat(),
            "revoked_at": key.revoked_at.isoformat() if key.revoked_at is not None else None,
        }
        for key in found
    ]
    headings = ["id", "name", "scopes", "model", "rate", "created", "revoked"]
    rows = [
        [
            item["id"],
            item["name"],
            ", ".join(item["scopes"]),
            item["model"] or MISSING,
            item["rate"] or MISSING,
            item["created_at"][:19],
            (item["revoked_at"] or MISSING)[:19],
        ]
        for item in items
    ]
    emit({"items": items} if as_json else None, table(headings, rows) if rows else empty)


@app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="Id of a key, or the name of one or more.")], as_json: AsJson = False
) -> None:
    """Revoke a key permanently; a running service refuses it within a second."""
    from storage.requests import audit, keys

    with opened() as (_, database, _), database.write() as connection:
        revoked = keys.revoke(connection, key)
        for one in revoked:
            change = {"changed": {"revoked": [False, True]}}
            audit.note(connection, action="revoke key", path=f"{one.name} {one.id}", change=change)
    ids = [one.id for one in revoked]
    emit({"revoked": ids} if as_json else None, "\n".join(f"revoked {one.name} ({one.id})" for one in revoked))
