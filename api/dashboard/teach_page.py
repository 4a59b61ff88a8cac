"""Teaching a model: images are dropped, looked at, and learned from; and what came of it."""

from functools import partial
from pathlib import Path
from typing import Any

from fastapi import Request
from nicegui import ui
from nicegui.element import Element

from api.client.asynchronous.client import AsyncClient
from api.client.connection import ClientError
from api.client.documents import Batch, Increment, Model
from api.dashboard.compare_page import show_comparison
from api.dashboard.feed import Feed
from api.dashboard.frame import box, button, draw_page, link, page_of, percent, table, tell, text
from api.dashboard.sessions import Sessions

MOST_REJECTS = 50  # that are shown


class Drop(Element, component=Path(__file__).parent / "static" / "drop.js"):
    """Where folders and archives are dropped; sends them to the route of the uploads."""

    def __init__(self, model: str, on_sent: Any) -> None:
        """Take what is dropped for a model; ``on_sent`` gets the id of the batch."""
        super().__init__()
        self._props["address"] = page_of(model).replace("/models/", "/uploads/", 1)
        self.on("sent", on_sent)


def register(sessions: Sessions) -> None:
    """Add the page."""
    feed = Feed()

    @ui.page("/models/{name}/teach", title="Teach · Accrete")
    async def teach(name: str, request: Request, increment: str | None = None) -> None:
        client = sessions.client_of(request)
        await draw_page(lambda: _show(client, feed, name, increment), name, model=name, part="/teach")


async def _show(client: AsyncClient, feed: Feed, name: str, increment_id: str | None) -> None:
    model = await client.model(name)
    if increment_id is None:
        async for latest in client.increments(name):
            if latest["status"] in {"queued", "running"}:
                increment_id = latest["id"]
            break
    if increment_id is not None:
        await _follow(client, feed, model, increment_id)
        return
    stage = box("stack")
    with stage:
        Drop(name, lambda event: _look(client, model, event.args, stage))


async def _look(client: AsyncClient, model: Model, batch_id: str, stage: Element) -> None:
    """Show what was found in a batch, and ask how to learn it."""
    try:
        batch = await client.batch(batch_id)
        strategies = {one["name"]: one async for one in client.strategies()}
    except ClientError as error:
        tell(error)
        return
    stage.clear()
    with stage:
        _found(batch, set(model["classes"]))
        with box("card"):
            text("h2", "How to learn it")
            explained = text("p", strategies[model["strategy"]]["explanation"], "quiet")
            with box("form"):
                strategy = ui.select(sorted(strategies), value=model["strategy"], label="Strategy").props(
                    "outlined dense"
                )
                epochs = ui.number("Epochs (empty: as the model)", min=1, max=1000, format="%d").props("outlined dense")
                promote = ui.select(
                    {"auto": "put into service at once", "manual": "wait for me"}, value="auto", label="The new version"
                ).props("outlined dense")
            strategy.on_value_change(lambda event: explained.set_text(strategies[event.value]["explanation"]))
            known = [one["label"] for one in batch["classes"] if one["label"] in model["classes"]]

            async def begin() -> None:
                try:
                    started = await client.start_increment(
                        model["name"],
                        batch_id=batch["id"],
                        strategy=strategy.value,
                        recipe={"epochs": int(epochs.value)} if epochs.value else None,
                        promote=promote.value,
                        known_classes="rehearse" if known else None,
                    )
                except ClientError as error:
                    tell(error)
                    return
                ui.navigate.to(page_of(model["name"], f"/teach?increment={started['id']}"))

            with box("line"):
                button("Teach", begin, "first")
                button("Other images", ui.navigate.reload)


def _found(batch: Batch, known: set[str]) -> None:
    with box("card"):
        text("h2", f"Found: {batch['images']} images of {len(batch['classes'])} classes")
        rows: list[list[Any]] = [
            [
                one["label"],
                str(one["train"] + one["test"]),
                "known: will be rehearsed" if one["label"] in known else "new",
            ]
            for one in batch["classes"]
        ]
        table(["class", "images", ""], rows, right=(1,))
        for note in batch["notes"]:
            text("p", note, "quiet")
        for ignored in batch["ignored"]:
            text(
                "p",
                f"Left aside, {ignored['reason']}: {ignored['count']} files, such as {ignored['files'][0]}",
                "quiet",
            )
    if batch["reject_count"]:
        with box("card"):
            text("h2", f"Left out: {batch['reject_count']} files")
            table(["file", "because"], [[one["file"], one["reason"]] for one in batch["rejects"][:MOST_REJECTS]])


async def _follow(client: AsyncClient, feed: Feed, model: Model, increment_id: str) -> None:
    """Show an increment to its end, and then what came of it."""
    with box("card"):
        head = text("h2", "Waiting")
        state = text("p", "", "number")
        with box("bar"):
            done = box("").style("width: 0%")
        stop = button("Cancel", partial(_cancel, client, increment_id))
    result = box("stack")
    async for increment in feed.follow(client, increment_id, ui.context.client):
        _tell_progress(increment, head, state, done)
    stop.delete()
    with result:
        await _result(client, model, await client.increment(increment_id))


def _tell_progress(increment: Increment, head: Any, state: Any, done: Element) -> None:
    progress = increment["progress"]
    head.set_text(
        {"queued": "Waiting for its turn", "running": "Learning"}.get(increment["status"], increment["status"])
    )
    if progress is None:
        return
    parts = [progress["stage"]]
    if progress["epoch"] is not None:
        parts.append(f"epoch {progress['epoch']} of {progress['epochs']}")
    if progress["loss"] is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress["images_per_second"] is not None:
        parts.append(f"{progress['images_per_second']:.0f} images/s")
    if progress["eta_seconds"] is not None:
        parts.append(f"{progress['eta_seconds']:.0f} s left")
    state.set_text(" · ".join(parts))
    if progress["step"] is not None and progress["steps"]:
        done.style(f"width: {100 * progress['step'] / progress['steps']:.0f}%")


async def _cancel(client: AsyncClient, increment_id: str) -> None:
    try:
        await client.cancel(increment_id)
    except ClientError as error:
        tell(error)


async def _result(client: AsyncClient, model: Model, increment: Increment) -> None:
    name, number = model["name"], increment["version"]
    with box("card"):
        if number is None:
            text("h2", f"It has {'failed' if increment['status'] == 'failed' else 'been cancelled'}")
            text("p", increment["error"] or "No version was made of it.", "fault")
            link("Try other images", page_of(name, "/teach?increment="))
            return
        metrics = await client.version_metrics(name, number)
        text("h2", f"Version {number} is there")
        text(
            "p",
            f"Accuracy {percent(metrics['tag']['average_accuracy'])} %, within the task "
            f"{percent(metrics['taw']['average_accuracy'])} %, forgetting {percent(metrics['tag']['forgetting'])} %.",
        )
        text("p", "It is in service." if increment["promoted"] else f"It waits: {increment['note']}.", "quiet")
        with box("line"):
            link("Try an image", page_of(name, "/try"))
            link("Look at the classes", page_of(name))
            link("Promote or go back", page_of(name, "/history"))
            link("Teach more", page_of(name, "/teach"))
    if increment["parent"] is not None:
        show_comparison(await client.compare(name, number, increment["parent"]))
