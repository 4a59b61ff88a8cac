"""Displays of a running upload or increment: bars on a terminal, lines elsewhere, JSON lines on request."""

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from api.client.documents import Increment
from api.commands.tables import size
from api.commands.wording import as_commands
from storage import safetext

if TYPE_CHECKING:
    from rich.progress import TaskID

    from api.client.client import Event


class Display(AbstractContextManager["Display"], Protocol):
    """Shows the progress of an upload and the events of an increment."""

    def uploaded(self, sent: int, total: int) -> None:
        """Show that ``sent`` of ``total`` bytes of an upload have been sent."""

    def happened(self, event: "Event") -> None:
        """Show an event of the increment."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the display."""


def display(*, title: str = "", as_json: bool = False) -> Display:
    """The display that fits standard output; ``title`` stands before each of its lines."""
    if as_json:
        return JsonLines()
    return Bars(title) if sys.stdout.isatty() else Lines(title)


def follow(events: Iterable["Event"], shown: Display) -> Increment | None:
    """Show events to the end; returns the increment of the last ``status`` event, None if there was none."""
    increment: Any = None
    for event in events:
        shown.happened(event)
        if event.kind == "status":
            increment = event.data
    return increment  # type: ignore[no-any-return]  # the contract of `status` events


class JsonLines:
    """One JSON document a line: ``{"event", "id", "data"}``."""

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    def uploaded(self, sent: int, total: int) -> None:
        """Uploads are silent."""

    def happened(self, event: "Event") -> None:
        """Write the event as it came."""
        _line(safetext.in_json(json.dumps({"event": event.kind, "id": event.id, "data": event.data})))


class Lines:
    """A line for each step, for logs and pipes."""

    def __init__(self, title: str = "") -> None:
        self._prefix = f"{title}: " if title else ""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open."""

    def uploaded(self, sent: int, total: int) -> None:
        """Print one line, at the end."""
        if sent == total:
            self._tell(f"uploaded {size(total)}")

    def happened(self, event: "Event") -> None:
        """Print stages, epochs and the end, but no live progress."""
        if event.kind == "stage":
            self._tell(event.data["stage"])
        elif event.kind == "epoch":
            self._tell(epoch_line(event.data))
        elif event.kind == "status" and (outcome := outcome_line(event.data)):
            self._tell(outcome)

    def _tell(self, text: str) -> None:
        _line(self._prefix + text)


class Bars:
    """A bar for the upload, one for the training, and a line that stays at the end."""

    def __init__(self, title: str = "") -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._title = title
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[figures]}", markup=False),
            transient=True,
        )
        self._upload: TaskID | None = None
        self._training = self._progress.add_task(self._name("waiting"), total=None, visible=False, figures="")

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Clear the bars away."""
        self._progress.stop()

    def uploaded(self, sent: int, total: int) -> None:
        """Move the upload's bar."""
        if self._upload is None:
            self._upload = self._progress.add_task(self._name("upload"), total=total, figures="")
        figures = f"{size(sent)} of {size(total)}"
        self._progress.update(self._upload, completed=sent, figures=figures, visible=sent < total)

    def happened(self, event: "Event") -> None:
        """Move the training's bar."""
        self._progress.update(self._training, visible=True)
        if event.kind == "stage":
            self._progress.update(self._training, description=self._name(event.data["stage"]))
        elif event.kind == "epoch":
            done = {"completed": event.data["epoch"], "total": event.data["epochs"]}
            self._progress.update(self._training, figures=epoch_line(event.data), **done)
        elif event.kind == "progress":
            self._move(event.data)
        elif event.kind == "status" and (outcome := outcome_line(event.data)):
            self._progress.update(self._training, visible=False)
            self._progress.console.print(self._name(outcome), markup=False, highlight=False, emoji=False)

    def _move(self, progress: dict[str, Any]) -> None:
        if not progress.get("epochs") or not progress.get("steps"):
            return
        epochs = progress["epoch"] - 1 + (progress["step"] or 0) / progress["steps"]
        self._progress.update(
            self._training,
            description=self._name(progress["stage"]),
            completed=epochs,
            total=progress["epochs"],
            figures=epoch_line(progress),
        )

    def _name(self, text: str) -> str:
        return safetext.line(f"{self._title}: {text}" if self._title else text)


def epoch_line(data: dict[str, Any]) -> str:
    """Where training stands, from the data of an ``epoch`` or ``progress`` event."""
    parts = [f"epoch {data['epoch']}/{data['epochs']}"]
    if data.get("loss") is not None:
        parts.append(f"loss {data['loss']:.4f}")
    if data.get("images_per_second") is not None:
        parts.append(f"{data['images_per_second']:.0f} images/s")
    if data.get("eta_seconds") is not None:
        parts.append(f"{data['eta_seconds']:.0f} s left")
    return ", ".join(parts)


def outcome_line(increment: dict[str, Any]) -> str | None:
    """The result of a successful increment in one line; None for one that still runs, failed or was cancelled."""
    if increment["status"] != "succeeded":
        return None
    place = "is in service" if increment["promoted"] else f"is not in service: {as_commands(increment['note'] or '')}"
    rejects = increment["rejects"]
    left_out = (
        f"; {increment['reject_count']:,} files were left out, such as {rejects[0]['file']} ({rejects[0]['reason']})"
        if rejects
        else ""
    )
    return f"version {increment['version']} {place}{left_out}"


def _line(text: str) -> None:
    sys.stdout.write(safetext.line(text) + "\n")
    sys.stdout.flush()
