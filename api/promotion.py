"""A promotion by a person: the version is loaded, checked and warmed before anything is written."""

from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection

from api import views
from api.idempotency import answered, once
from api.schemas.versions import CurrentOut
from api.service import Service
from storage import models, versions
from storage.answers import Asked
from storage.domain import Model
from storage.errors import VersionUnfit, VersionUnloadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """What is asked for."""

    version: int
    expected_revision: int | None  # of the state it was decided on; None where that does not matter
    idempotency_key: str | None

    async def made(self, service: Service, name: str) -> CurrentOut:
        """The state it brought about, in the database and in this process; other processes notice by themselves.

        What can be refused is refused before the version is loaded, and decided once more, for good, in the
        transaction that writes it. Raises `ModelNotFound`, `VersionNotFound`, `VersionUnfit`, `PreconditionFailed` and
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
        if promoted.current == self.version:  # not so where the answer is an earlier one that came in between
            registry.enter(served, promoted)
        return answer

    @property
    def _asked(self) -> Asked:
        return {"route": "promote", "version": self.version, "if_match": self.expected_revision}

    def _looked_up(self, service: Service, name: str) -> tuple[Model, CurrentOut | None]:
        with service.database.read() as connection:
            model = models.get(connection, name)
            earlier = answered(connection, model, self.idempotency_key, asked=self._asked, kind=CurrentOut)
            if earlier is None:
                models.check_revision(model, self.expected_revision)
                versions.get(connection, model, self.version)
            return model, earlier

    def _written(self, service: Service, name: str) -> tuple[Model, CurrentOut]:
        with service.database.write() as connection:
            answer = once(
                connection,
                models.lock(connection, name),
                self.idempotency_key,
                asked=self._asked,
                kind=CurrentOut,
                give=lambda: self._given(connection, name),
            )
            return models.get(connection, name), answer

    def _given(self, connection: Connection, name: str) -> CurrentOut:
        return views.current(
            models.promote(connection, name, version=self.version, expected_revision=self.expected_revision)
        )
