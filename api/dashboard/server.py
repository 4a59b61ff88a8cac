"""The dashboard as an application: its pages, its routes, and who may use them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from nicegui import ui

from api.dashboard import (
    compare_page,
    history_page,
    keys_page,
    model_page,
    models_page,
    pictures,
    teach_page,
    try_page,
    uploads,
)
from api.dashboard.origin import SameOrigin
from api.dashboard.sessions import Sessions

STATIC = Path(__file__).parent / "static"


def create_app(api: str) -> FastAPI:
    """The application that shows the service at the address ``api``; once in a process, as NiceGUI is global."""
    sessions = Sessions(api)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sessions.close()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.mount("/style", StaticFiles(directory=STATIC))
    for routes in (keys_page, pictures, uploads):
        app.include_router(routes.router_of(sessions))
    for page in (models_page, model_page, teach_page, compare_page, try_page, history_page):
        page.register(sessions)
    ui.add_head_html('<link rel="stylesheet" href="/style/style.css">', shared=True)
    ui.run_with(app, title="Accrete", dark=None, language="en-US", tailwind=False, show_welcome_message=False)
    app.add_middleware(SameOrigin)
    return app
