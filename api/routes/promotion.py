"""A promotion by a person: the version is loaded, checked and warmed before anything is written."""

from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection
from starlette.datastructures import Headers

from api.http.conditional import is_current, matches
from api.http.idempotency import answered, once
from api.schemas.versions import CurrentOut
from api.service import Service
from api.views import records
from storage.domain import Key, Model
from storage.errors import VersionUnfit, VersionUnloadable
from storage.history import models, versions
from storage.requests import audit
from storage.requests.idempotency import Asked

_NEVER = -1  # a revision that no state has


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A request to promote a version."""

    version: int
    if_match: str | None  # ETags of the states in which to promote
    if_none_match: str | None  # ETags of the states in which not to promote
    idempotency_key: str | None
    key: Key | None  # of the person who asks
    reason: str | None

    async def made(self, service: Service, name: str) -> CurrentOut:
        """Promote the version, in the database and in this process; returns the new state of /current.

        Other processes notice by themselves. The conditions are checked before the version is loaded, and again in the
        transaction that writes. Raises `ModelNotFound`, `VersionNotFound`, `VersionUnfit`, `PreconditionFailed` and
        `IdempotencyMismatch`.
        """
        model, earlier = await run_in_threadpool(self._looked_up, service, name)
        if earlier is not None:
            return earlier
        registry = service.engine.registry
        try:
            served = await registry.prepared(model, self.version)
        except VersionUnloadable as error:
            raise VersionUnfit(f"{error.detail} Nothing was changed.", current=model.current) from error
        promoted, answer = await run_in_threadpool(self._written, service, name)
        if promoted.current == self.version:  # else the answer is that of an earlier, repeated request
            registry.enter(served, promoted)
        return answer

    @property
    def _asked(self) -> Asked:
        reason = {} if self.reason is None else {"reason": self.reason}
        return {"route": "promote", "version": self.version, **reason, **self._conditions}

    @property
    def _conditions(self) -> dict[str, str]:
        named = {"if-match": self.if_match, "if-none-match": self.if_none_match}
        return {name: value for name, value in named.items() if value is not None}

    def _expected(self, revision: int) -> int | None:
        """The revision to promote from: any (None), the present one, or `_NEVER` if a condition does not hold."""
        if not self._conditions:
            return None
        headers = Headers(self._conditions)
        tag = etag(revision)
        return revision if matches(headers, tag) and not is_current(headers, tag) else _NEVER

    def _looked_up(self, service: Service, name: str) -> tuple[Model, CurrentOut | None]:
        with service.database.read() as connection:
            model = models.get(connection, name)
            earlier = answered(connection, model, self.idempotency_key, asked=self._asked, kind=CurrentOut)
            if earlier is None:
                models.check_revision(model, self._expected(model.current_revision))
                versions.get(connection, model, self.version)
            return model, earlier

    def _written(self, service: Service, name: str) -> tuple[Model, CurrentOut]:
        with service.database.write() as connection:
            locked = models.lock(connection, name)
            answer = once(
                connection,
                locked,
                self.idempotency_key,
                asked=self._asked,
                kind=CurrentOut,
                give=lambda: self._given(connection, locked),
            )
            return models.get(connection, name), answer

    def _given(self, connection: Connection, locked: Model) -> CurrentOut:
        expected = self._expected(locked.current_revision)
        promoted = models.promote(
            connection,
            locked.name,
            version=self.version,
            expected_revision=expected,
            key=self.key,
            reason=self.reason,
        )
        if promoted.current_revision != locked.current_revision:
            reason = {} if self.reason is None else {"reason": self.reason}
            audit.record_change(connection, changed={"current": [locked.current, promoted.current]}, **reason)
        return records.current(promoted)


def etag(revision: int) -> str:
    """The ETag of a state of /current."""
    return f'"{revision}"'
