"""Where a proxy puts the service: the path that its addresses begin with."""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """ASGI middleware that tells the application where it is, whether or not the proxy takes that off the path."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        """Put ``app`` at ``path``."""
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's routes and FastAPI's pages go by ``root_path``."""
        if scope["type"] == "http":
            scope["root_path"] = self._path
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path of a request as routes name it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def located(request: Request, path: str) -> str:
    """A path of the service as the client has to ask for it."""
    return f"{request.scope.get('root_path', '')}{path}"
