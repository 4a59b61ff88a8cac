"""The path prefix under which a proxy serves the application."""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """ASGI middleware that tells the application its prefix, whether or not the proxy removes it from paths."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        """Put ``app`` at ``path``."""
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Set ``root_path``, which Starlette's routes and FastAPI's pages use."""
        if scope["type"] == "http":
            scope["root_path"] = self._path
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path of a request without the prefix, as routes name it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def located(request: Request, path: str) -> str:
    """A path of the service with the prefix, as clients have to request it."""
    return f"{request.scope.get('root_path', '')}{path}"
