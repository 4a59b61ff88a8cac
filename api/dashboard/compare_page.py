"""Two versions of a model side by side: each class with its interval, and the images that changed."""

from typing import Any

from fastapi import Request
from nicegui import ui

from api.client.asynchronous.client import AsyncClient
from api.client.documents import ClassPair, Comparison, Share
from api.dashboard.frame import box, draw_page, link, page_of, table, text, thumbnails
from api.dashboard.sessions import Sessions


def register(sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/models/{name}/compare", title="Compare · Accrete")
    async def compare(name: str, request: Request, version: int | None = None, other: int | None = None) -> None:
        client = sessions.client_of(request)
        await draw_page(lambda: _show(client, name, version, other), name, model=name, part="/compare")


async def _show(client: AsyncClient, name: str, version: int | None, other: int | None) -> None:
    versions = [one async for one in client.versions(name)]
    numbers = [one["version"] for one in versions]
    if len(numbers) < 2:
        with box("card"):
            text("p", "There are not two versions to compare yet.")
            link("Teach the model more classes", page_of(name, "/teach"))
        return
    chosen = version if version in numbers else numbers[-1]
    parents = {one["version"]: one["parent"] for one in versions}
    beside = other if other in numbers else parents[chosen] if parents[chosen] in numbers else numbers[-2]
    assert chosen is not None
    assert beside is not None

    def go(first: int, second: int) -> None:
        ui.navigate.to(page_of(name, f"/compare?version={first}&other={second}"))

    options = {number: f"version {number}" for number in numbers}
    with box("line"):
        ui.select(options, value=chosen, label="Version", on_change=lambda event: go(event.value, beside)).props(
            "outlined dense"
        )
        ui.select(options, value=beside, label="beside", on_change=lambda event: go(chosen, event.value)).props(
            "outlined dense"
        )
    show_comparison(await client.compare(name, chosen, beside))


def show_comparison(found: Comparison) -> None:
    """A comparison: its sentence, its classes, and the images that got worse and better."""
    with box("card"):
        text("p", found["sentence"])
        for title, labels in (("Only in", found["only_version"]), ("No longer in", found["only_other"])):
            if labels:
                text("p", f"{title} version {found['version']}: {', '.join(labels)}", "quiet")
    if not found["classes"]:
        return
    changed = sorted(found["classes"], key=lambda one: one["better"] - one["worse"])
    with box("card"):
        text("h2", "Classes, most lost first")
        headings = ["class", "images", f"v{found['version']}, %", f"v{found['other']}, %", "better", "worse"]
        rows = [
            [
                one["label"],
                str(one["images"]),
                _share(one["version"]),
                _share(one["other"]),
                f"{one['better']}",
                f"{one['worse']}",
            ]
            for one in changed
        ]
        table(headings, rows, right=(1, 2, 3, 4, 5))
    _images("Got worse", [(one, one["got_worse"]) for one in changed])
    _images("Got better", [(one, one["got_better"]) for one in changed[::-1]])


def _share(share: Share) -> str:
    return f"{100 * share['share']:.1f} ({100 * share['low']:.0f}–{100 * share['high']:.0f})"


def _images(title: str, of_classes: list[tuple[ClassPair, list[str]]]) -> None:
    named: list[tuple[ClassPair, Any]] = [(one, ids) for one, ids in of_classes if ids]
    if not named:
        return
    with box("card"):
        text("h2", title)
        for one, ids in named:
            text("p", one["label"], "quiet")
            thumbnails(ids, described=f"an image of {one['label']}")
