"""The root: a browser is sent to the dashboard."""

from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from api.service import ServiceDep
from storage.errors import NotFound

router = APIRouter(include_in_schema=False)


@router.get("/")
async def root(request: Request, service: ServiceDep) -> Response:
    """Send a browser to the dashboard; raises `NotFound` where none is known."""
    if (url := service.settings.dashboard_url) is None:
        raise NotFound("There is no page here: /docs describes the API, and ACCRETE_DASHBOARD_URL names a dashboard.")
    return RedirectResponse(_for(url, request.url.hostname or ""), status_code=307)


def _for(url: str, host: str) -> str:
    """The address as the one who asks reaches it: all addresses of a machine are none that a browser can go to."""
    parts = urlsplit(url)
    if parts.hostname not in {"::", str(ip_address(0))}:
        return url
    named = f"[{host}]" if ":" in host else host
    return urlunsplit(parts._replace(netloc=f"{named}:{parts.port}"))
