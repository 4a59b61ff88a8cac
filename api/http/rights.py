"""The scope that a route requires of a key: declared in the route's decorator, and nowhere else.

`api.http.guarded_route` reads it there, allows no route without it, and checks it before a body is read. OpenAPI, the
messages of refusals and the audit log are derived from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Security, params
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from storage.domain import Scope

bearer = HTTPBearer(
    auto_error=False,
    description="An API key, of `accrete keys create`. Not needed where the service listens on this machine alone.",
)


@dataclass(frozen=True, slots=True)
class Right:
    """A route's dependency that declares what a key needs; FastAPI describes it in OpenAPI."""

    scope: Scope
    needs_model_in_path: bool  # if not, a key of one model may use a path that names no model

    async def __call__(self, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> None:
        """Do nothing: the key is checked before a route's dependencies are solved."""


def needs(scope: Scope, *, needs_model_in_path: bool = True) -> Any:
    """An entry for a route's ``dependencies``: its key needs this scope.

    Reading needs the scope `predict`, but reading images and batches needs `train`: teams upload them, and the teams'
    customers, who predict, should not see them.
    """
    return Security(Right(scope, needs_model_in_path), scopes=[scope.value])


def right_among(dependencies: Sequence[params.Depends]) -> Right:
    """The entry of `needs` among a route's dependencies; raises `TypeError` unless there is exactly one."""
    found = [one.dependency for one in dependencies if isinstance(one.dependency, Right)]
    if len(found) != 1:
        raise TypeError("a route says once which scope a key needs for it: dependencies=[needs(Scope.…)]")
    return found[0]
