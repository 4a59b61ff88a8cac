"""The history of a model: its versions, increments and promotions; and going back."""

from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from api.client.asynchronous.client import AsyncClient
from api.client.connection import ClientError
from api.client.documents import Version
from api.dashboard.frame import MISSING, box, button, frame, link, loaded, moment, page_of, percent, table, tell, text
from api.dashboard.sessions import Sessions

MOST = 100  # rows of each list


def register(sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/models/{name}/history", title="History · Accrete")
    async def history(name: str, request: Request) -> None:
        client = sessions.client_of(request)
        with frame(name, model=name, part="/history"), box("stack") as place:
            text("p", "Loading …", "quiet")
        await loaded(place, lambda: _show(client, name))


async def _show(client: AsyncClient, name: str) -> None:
    versions = [version async for version in client.versions(name)][::-1][:MOST]
    with box("card"):
        text("h2", "Versions")
        if not versions:
            text("p", "There is none yet.", "quiet")
            link("Teach the model its first classes", page_of(name, "/teach"))
        else:
            headings = ["version", "from", "made", "classes", "strategy", "accuracy, %", "forgetting, %", ""]
            table(headings, [_row(client, name, version) for version in versions], right=(3, 5, 6))
    increments = []
    async for increment in client.increments(name):
        increments.append(increment)
        if len(increments) == MOST:
            break
    with box("card"):
        text("h2", "Increments and edits")
        rows: list[list[Any]] = [
            [
                moment(one["created_at"]),
                "edit" if one["edit"] is not None else one["strategy"],
                partial(link, one["status"], page_of(name, f"/teach?increment={one['id']}")),
                f"v{one['version']}" if one["version"] is not None else MISSING,
                one["error"] or one["note"] or "",
            ]
            for one in increments
        ]
        table(["when", "what", "status", "version", ""], rows)
    promotions = []
    async for promotion in client.promotions(name):
        promotions.append(promotion)
        if len(promotions) == MOST:
            break
    with box("card"):
        text("h2", "Promotions")
        rows = [
            [
                moment(one["created_at"]),
                f"v{one['version']}",
                f"v{one['previous']}" if one["previous"] is not None else MISSING,
                one["key"] or ("its increment" if one["increment_id"] is not None else MISSING),
                one["reason"] or "",
            ]
            for one in promotions
        ]
        table(["when", "version", "before", "by", "why"], rows)


def _row(client: AsyncClient, name: str, version: Version) -> list[Any]:
    number = version["version"]

    def act() -> None:
        if version["current"]:
            text("span", "in service", "tag good")
        else:
            button("Put into service", lambda: _ask(client, name, number))

    return [
        f"v{number}",
        f"v{version['parent']}" if version["parent"] is not None else MISSING,
        moment(version["created_at"]),
        str(len(version["classes"])),
        "edit" if version["edit"] is not None else version["strategy"],
        percent(version["summary"]["tag"]["average_accuracy"]),
        percent(version["summary"]["tag"]["forgetting"]),
        act,
    ]


def _ask(client: AsyncClient, name: str, number: int) -> None:
    """Ask for a reason, and put a version into service."""
    with ui.dialog(value=True) as dialog, box("card"):
        text("h2", f"Put version {number} into service")
        text("p", "Predictions go on; the next increment starts from this version.", "quiet")
        reason = ui.input("Why (for the record)").props("outlined dense autofocus")

        async def promote() -> None:
            try:
                await client.promote(name, number, reason=reason.value or None)
            except ClientError as error:
                tell(error)
                return
            dialog.close()
            ui.navigate.reload()

        with box("line"):
            button("Put it into service", promote, "first")
            button("Cancel", dialog.close)
