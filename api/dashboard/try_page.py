"""Trying an image: the classes that versions give it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui
from nicegui.element import Element

from api.client.asynchronous.client import AsyncClient
from api.client.documents import Ranked
from api.dashboard.frame import box, draw_page, link, page_of, text
from api.dashboard.sessions import Sessions
from api.dashboard.uploads import MOST_BYTES


class Pick(Element, component=Path(__file__).parent / "static" / "pick.js"):
    """Where an image is dropped or chosen; it is sent to the route that tries it."""

    def __init__(self, model: str, on_answered: Callable[[Any], object]) -> None:
        """Take an image for a model; ``on_answered`` gets its name and the answers."""
        super().__init__()
        self._address = page_of(model).replace("/models/", "/tries/", 1)
        self._props["most"] = MOST_BYTES
        self.on("answered", on_answered)
        self.beside(0)

    def beside(self, version: int) -> None:
        """Ask another version too; 0: none."""
        self._props["address"] = self._address + (f"?beside={version}" if version else "")
        self.update()


def register(sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/models/{name}/try", title="Try · Accrete")
    async def attempt(name: str, request: Request) -> None:
        client = sessions.client_of(request)
        await draw_page(lambda: _show(client, name), name, model=name, part="/try")


async def _show(client: AsyncClient, name: str) -> None:
    model = await client.model(name)
    if model["current"] is None:
        with box("card"):
            text("p", "No version is in service yet.")
            link("Teach the model its first classes", page_of(name, "/teach"))
        return
    numbers = [version["version"] async for version in client.versions(name)]
    others = {0: "no other version"} | {number: f"version {number}" for number in numbers if number != model["current"]}
    with box("card"):
        beside = ui.select(others, value=model["previous"] or 0, label="Beside the version in service").props(
            "outlined dense"
        )
        picking = Pick(name, lambda event: _show_answers(answers, event.args))
        picking.beside(beside.value)
        beside.on_value_change(lambda event: picking.beside(event.value))
    answers = box("two")


def _show_answers(place: Element, told: dict[str, Any]) -> None:
    place.clear()
    with place:
        for one in told["answers"]:
            _answer(one["version"], one["ranked"], told["name"])


def _answer(version: int, ranked: Sequence[Ranked], file: str) -> None:
    with box("card"):
        text("h2", f"Version {version}")
        text("p", file, "quiet")
        for one in ranked:
            with box("line"):
                text("span", one["label"]).style("min-width: 8em")
                with box("bar"):
                    box("").style(f"width: {100 * one['probability']:.1f}%")
                text("span", f"{100 * one['probability']:.1f} %", "number")
