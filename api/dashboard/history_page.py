"""The history of a model: its versions, increments and promotions; and going back."""

from functools import partial
from typing import Any

from fastapi import Request
from nicegui import ui

from api.client.asynchronous.client import AsyncClient
from api.client.documents import Version
from api.dashboard.frame import MISSING, ask, box, button, draw_page, link, moment, page_of, percent, table, text
from api.dashboard.sessions import Sessions

MOST = 100  # rows of each list


def register(sessions: Sessions) -> None:
    """Add the page."""

    @ui.page("/models/{name}/history", title="History · Accrete")
    async def history(name: str, request: Request) -> None:
        client = sessions.client_of(request)
        await draw_page(lambda: _show(client, name), name, model=name, part="/history")


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
    ask(
        f"Put version {number} into service",
        told="Predictions go on; the next increment starts from this version.",
        field="Why (for the record)",
        value="",
        act=lambda reason: client.promote(name, number, reason=reason or None),
        name="Put it into service",
    )
