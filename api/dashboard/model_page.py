"""The page of a model: its accuracy over versions, its classes, and what it confuses."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request
from nicegui import ui
from nicegui.element import Element

from api.client.asynchronous.client import AsyncClient
from api.client.documents import Class, ModelMetrics, VersionMetrics
from api.dashboard import charts
from api.dashboard.frame import MISSING, ask, box, button, draw_page, link, page_of, percent, table, text, thumbnails
from api.dashboard.sessions import Sessions

MOST_CONFUSED = 12  # pairs of classes
MOST_IMAGES = 200  # on the page of confused images


def register(sessions: Sessions) -> None:
    """Add the pages."""

    @ui.page("/models/{name}", title="Model · Accrete")
    async def model(name: str, request: Request) -> None:
        client = sessions.client_of(request)
        await draw_page(lambda: _show(client, name), name, model=name)

    @ui.page("/models/{name}/confused", title="Confused images · Accrete")
    async def confused(
        name: str, request: Request, version: int, label: Annotated[str, Query()], predicted: Annotated[str, Query()]
    ) -> None:
        client = sessions.client_of(request)
        title = f"{label} taken for {predicted}"
        await draw_page(
            lambda: _show_confused(client, name, version, label, predicted), title, model=name, part="/confused"
        )


async def _show(client: AsyncClient, name: str) -> None:
    model = await client.model(name)
    if model["head"] is None:
        with box("card"):
            text("h2", "This model has learned nothing yet")
            text("p", "Drop folders of images on it, one for each class.")
            link("Teach it its first classes", page_of(name, "/teach"))
        return
    history = await client.metrics(name)
    shown = await client.version_metrics(name, model["head"])
    versions = {version["version"]: version async for version in client.versions(name)}
    parent = versions[model["head"]]["parent"] if model["head"] in versions else None
    before = await client.version_metrics(name, parent) if parent in versions and parent is not None else None
    classes = (await client.classes(name, examples=3))["classes"]
    with box("figures"):
        for title, value in (
            ("version in service", f"v{model['current']}" if model["current"] is not None else MISSING),
            ("newest version", f"v{model['head']}"),
            ("accuracy, %", percent(shown["tag"]["average_accuracy"])),
            ("within the task, %", percent(shown["taw"]["average_accuracy"])),
            ("forgetting, %", percent(shown["tag"]["forgetting"])),
        ):
            with box(""):
                text("div", value, "big")
                text("div", title, "quiet")
    with box("two"):
        _curves(history)
        _matrix(history)
    _classes(client, name, classes, shown, before)
    _confusion(name, shown)


def _curves(history: ModelMetrics) -> None:
    tag, taw = history["tag"], history["taw"]
    series = [
        ("accuracy", charts.BLUE, tag["average_accuracy"]),
        ("within the task", charts.GREEN, taw["average_accuracy"]),
        ("forgetting", charts.ORANGE, tag["forgetting"]),
    ]
    with box("card"):
        text("h2", "Accuracy and forgetting over versions")
        ui.echart(charts.curves(history["versions"], series)).classes("chart").props('aria-hidden="true"')
        rows = [
            [f"v{number}", *(percent(shares[place]) for _, _, shares in series)]
            for place, number in enumerate(history["versions"])
        ]
        _as_table(lambda: table(["version", *(title for title, _, _ in series)], rows, right=(1, 2, 3)))


def _matrix(history: ModelMetrics) -> None:
    rows = history["tag"]["matrix"]
    tasks = [f"task {task + 1}" for task in range(len(history["tasks"]))]
    with box("card"):
        text("h2", "Accuracy by task after each version, %")
        ui.echart(charts.matrix(history["versions"], rows)).classes("chart").props('aria-hidden="true"')
        cells = [
            [f"v{number}", *(percent(share) for share in shares), *([""] * (len(tasks) - len(shares)))]
            for number, shares in zip(history["versions"], rows, strict=True)
        ]
        _as_table(lambda: table(["version", *tasks], cells, right=range(1, len(tasks) + 1)))


def _as_table(fill: Any) -> None:
    with box("", "details"):
        text("summary", "As a table", "quiet")
        fill()


def _classes(
    client: AsyncClient, name: str, classes: Sequence[Class], shown: VersionMetrics, before: VersionMetrics | None
) -> None:
    """The classes, worst first."""
    measured, earlier = shown["tag"]["per_class"], before["tag"]["per_class"] if before is not None else {}

    def recall(label: str) -> float:
        found = measured.get(label, {}).get("recall")
        return 2.0 if found is None else float(found)

    rows: list[list[Any]] = []
    for one in sorted(classes, key=lambda one: recall(one["label"])):
        label = one["label"]
        now, then = measured.get(label, {}).get("recall"), earlier.get(label, {}).get("recall")
        rows.append(
            [
                label,
                partial(thumbnails, one["examples"], described=f"an image of {label}", small=True),
                MISSING if one["task"] is None else str(one["task"] + 1),
                str(one["train"]),
                str(one["test"]),
                percent(now),
                partial(_change, now, then),
                partial(_rename_button, client, name, label),
            ]
        )
    with box("card"):
        text("h2", "Classes, worst first")
        headings = ["class", "examples", "task", "to learn", "to evaluate", "recall, %", "change", ""]
        table(headings, rows, right=(2, 3, 4, 5, 6))


def _change(now: float | None, then: float | None) -> None:
    if now is None or then is None:
        text("span", MISSING, "quiet")
        return
    points = 100 * (now - then)
    text("span", f"{points:+.1f}", "good" if points > 0 else "bad" if points < 0 else "quiet")


def _rename_button(client: AsyncClient, name: str, label: str) -> Element:
    return button("Rename", lambda: _rename(client, name, label)).props('aria-label="Rename the class"')


def _rename(client: AsyncClient, name: str, label: str) -> None:
    """Ask what a class is to be called, and rename it."""
    ask(
        f"Rename {label}",
        told="It is called so at once, in every version. Nothing is trained.",
        field="Name",
        value=label,
        act=lambda new: client.rename_class(name, label, new),
        name="Rename it",
    )


def _confusion(name: str, shown: VersionMetrics) -> None:
    labels = shown["classes"]
    wrong = sorted((cell for cell in shown["tag"]["confusion"] if cell[0] != cell[1]), key=lambda cell: -cell[2])
    with box("card"):
        text("h2", "Most confused")
        if not wrong:
            text("p", "No evaluation image is taken for another class.", "quiet")
            return
        rows: list[list[Any]] = []
        for true, predicted, images in wrong[:MOST_CONFUSED]:
            pair = {"version": shown["version"], "label": labels[true], "predicted": labels[predicted]}
            address = page_of(name, "/confused?") + urlencode(pair)
            rows.append([labels[true], labels[predicted], partial(link, str(images), address)])
        table(["class", "taken for", "images"], rows, right=(2,))


async def _show_confused(client: AsyncClient, name: str, version: int, label: str, predicted: str) -> None:
    ids = []
    async for one in client.evaluations(name, version, label=label, predicted=predicted):
        ids.append(one["image_id"])
        if len(ids) == MOST_IMAGES:
            break
    with box("card"):
        if not ids:
            text("p", f"Version {version} takes no image of {label} for {predicted}, or kept no record of it.", "quiet")
        thumbnails(ids, described=f"an image of {label} that was taken for {predicted}")
