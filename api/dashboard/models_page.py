"""The page of all models, and the page on which a browser gives its key."""

import asyncio

from fastapi import Request
from nicegui import ui

from api.client.asynchronous.client import AsyncClient
from api.client.connection import ClientError
from api.client.documents import Increment, Model, Version
from api.dashboard.frame import MISSING, box, button, frame, link, loaded, page_of, percent, tell, text
from api.dashboard.sessions import Sessions


def register(sessions: Sessions) -> None:
    """Add the pages."""

    @ui.page("/", title="Models · Accrete")
    async def models(request: Request) -> None:
        client = sessions.client_of(request)
        with frame("Models"):
            with box("line"):
                button("New model", lambda: _ask(client), "first")
            with box("grid") as place:
                text("p", "Loading …", "quiet")
        await loaded(place, lambda: _show(client))


async def _show(client: AsyncClient) -> None:
    found = [model async for model in client.models()]
    if not found:
        with box("card"):
            text("h2", "There is no model yet")
            text(
                "p",
                "A model is a classifier that you teach class by class. Make one, then drop folders of images on it.",
            )
        return
    known = await asyncio.gather(*(_look(client, model) for model in found))
    for model, (version, latest) in zip(found, known, strict=True):
        _card(model, version, latest)


async def _look(client: AsyncClient, model: Model) -> tuple[Version | None, Increment | None]:
    """The version in service, and the latest increment."""
    version = await client.version(model["name"], model["current"]) if model["current"] is not None else None
    return version, await anext(client.increments(model["name"]), None)


def _card(model: Model, version: Version | None, latest: Increment | None) -> None:
    running = latest if latest is not None and latest["status"] in {"queued", "running"} else None
    with box("card link"):
        with box("line"):
            link(model["name"], page_of(model["name"]), "big")
            if running is not None:
                text("span", f"{running['status']} …", "tag")
            if model["head"] is not None and model["head"] != model["current"]:
                text("span", f"version {model['head']} waits", "tag")
        with box("figures"):
            _figure("in service", f"v{model['current']}" if model["current"] is not None else MISSING)
            _figure("accuracy, %", percent(version["summary"]["tag"]["average_accuracy"] if version else None))
            _figure("forgetting, %", percent(version["summary"]["tag"]["forgetting"] if version else None))
        text("p", f"{len(model['classes'])} classes · {model['network']} · {model['image_size']} pixels", "quiet")


def _figure(name: str, value: str) -> None:
    with box(""):
        text("div", value, "big")
        text("div", name, "quiet")


def _ask(client: AsyncClient) -> None:
    """Ask for what a new model should be, and make it."""
    with ui.dialog(value=True) as dialog, box("card"):
        text("h2", "New model")
        name = ui.input("Name").props("outlined dense autofocus")
        size = ui.number("Pixels, height and width", value=32, min=8, max=1024, format="%d").props("outlined dense")
        channels = ui.select({3: "colour", 1: "grey"}, value=3, label="Images").props("outlined dense")
        memory = ui.number("Old images to keep of each class", value=20, min=0, format="%d").props("outlined dense")

        async def make() -> None:
            kept = int(memory.value or 0)
            try:
                model = await client.create_model(
                    (name.value or "").strip(),
                    image_size=int(size.value or 0),
                    channels=channels.value,
                    memory={"per_class": kept} if kept else None,
                )
            except ClientError as error:
                tell(error)
                return
            ui.navigate.to(page_of(model["name"], "/teach"))

        with box("line"):
            button("Make it", make, "first")
            button("Cancel", dialog.close)
