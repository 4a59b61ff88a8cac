"""Where a browser gives the API key that the dashboard uses for it: a page of plain HTML, without scripts."""

from html import escape
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api.client.asynchronous.client import AsyncClient
from api.client.connection import ClientError
from api.dashboard.sessions import COOKIE, Sessions

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Key · Accrete</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/style/style.css"></head>
<body class="nicegui-content"><header class="top"><a class="brand" href="/">Accrete</a></header>
<main class="page"><h1>Key</h1><form class="card" method="post" action="/key">
<p class="quiet">{state}</p>
<label>API key <input name="key" type="password" autocomplete="off" class="button wide"></label>
<p class="fault" role="alert">{fault}</p>
<div class="line"><button class="button first">Use it</button>
<button class="button" name="end" value="1">Forget it</button></div></form></main></body></html>"""
MAX_BYTES = 10_000  # of the form


def router_of(sessions: Sessions) -> APIRouter:
    """The routes of the page."""
    router = APIRouter()

    @router.get("/key")
    async def ask(request: Request) -> Response:
        return _page(sessions, request)

    @router.post("/key")
    async def take(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BYTES:
                return _page(sessions, request, fault="This is too long for a key.", status=413)
        form = parse_qs(body.decode("utf-8", "replace"))
        sessions.end(request.cookies.get(COOKIE))
        await sessions.tidy()
        answer = RedirectResponse("/", status_code=303)
        if "end" in form:
            answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
            return answer
        key = form.get("key", [""])[0].strip()
        try:
            async with AsyncClient(sessions.api, key=key) as client:
                async for _ in client.models():
                    break
        except ClientError as error:
            return _page(sessions, request, fault=str(error), status=403)
        secure = request.headers.get("X-Forwarded-Proto", request.url.scheme) == "https"
        answer.set_cookie(COOKIE, sessions.begin(key), httponly=True, samesite="strict", secure=secure)
        return answer

    return router


def _page(sessions: Sessions, request: Request, *, fault: str = "", status: int = 200) -> Response:
    state = (
        "This browser has given a key. It stays in the memory of the dashboard until you end it or for 12 hours unused."
        if sessions.key_of(request) is not None
        else "The service may ask for a key; `accrete keys create` makes one. It stays in the memory of the dashboard."
    )
    return HTMLResponse(_PAGE.format(state=escape(state), fault=escape(fault)), status_code=status)
