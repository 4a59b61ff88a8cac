"""What a key needs for a route: it stands in the route's signature, and nowhere else.

`api.http.guarded_route` reads it there, lets no route be without it, and checks it before a body is read; OpenAPI, the
texts of refusals and the audit log follow from it.
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
    """A dependency of a route by which FastAPI describes what a key needs for it."""

    scope: Scope
    tells_of_models: bool  # if not, keys of one model may ask although the path names none

    async def __call__(self, _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> None:
        """Do nothing: the key was checked before the route's dependencies are solved."""


def needs(scope: Scope, *, tells_of_models: bool = True) -> Any:
    """Among the ``dependencies`` of a route: a key for it needs this scope.

    Looking is for whoever predicts, but for the images themselves: they are what teams upload, not what their
    customers should see.
    """
    return Security(Right(scope, tells_of_models), scopes=[scope.value])


def right_among(dependencies: Sequence[params.Depends]) -> Right:
    """What `needs` has put among the dependencies of a route; raises `TypeError` unless it did so once."""
    found = [one.dependency for one in dependencies if isinstance(one.dependency, Right)]
    if len(found) != 1:
        raise TypeError("a route says once which scope a key needs for it: dependencies=[needs(Scope.…)]")
    return found[0]
