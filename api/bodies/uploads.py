"""Bodies on their way to disk: streamed, bounded, and removed if anything goes wrong."""

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from fastapi import Request
from python_multipart.multipart import parse_options_header

from api.bodies.forms import Sink, read_form
from api.pids import is_alive
from storage.errors import ArchiveUnreadable
from storage.settings import Settings


@dataclass
class Upload:
    """A body on disk; of a multipart form, the part ``data``, with the form's other fields."""

    path: Path
    sha256: str
    size: int
    fields: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def received(request: Request, settings: Settings) -> AsyncIterator[Upload]:
    """Stream the body, or its multipart part ``data``, into a file that is removed at the end unless it was moved.

    Raises `BatchInvalid` for a form without that part, `ArchiveUnreadable` if the part is empty, and `TooLarge`
    (`api.http.limits` checks the length of every body).
    """
    folder = _folder(settings, os.getpid())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / uuid4().hex
    try:
        with path.open("wb") as file:
            sink = Sink(file)
            kind, options = parse_options_header(request.headers.get("content-type", ""))
            fields: dict[str, str] = {}
            if kind == b"multipart/form-data":
                fields = await read_form(request, options.get(b"boundary", b""), sink)
            else:
                async for chunk in request.stream():
                    await sink.write(chunk)
            await sink.flush()
        if kind == b"multipart/form-data" and sink.size == 0:
            raise ArchiveUnreadable("The form's part 'data' is empty: put the zip or tar archive there.")
        yield Upload(path=path, sha256=sink.digest.hexdigest(), size=sink.size, fields=fields)
    finally:
        path.unlink(missing_ok=True)


def clear_abandoned(settings: Settings) -> None:
    """Remove the unfinished uploads of those processes of this machine that have ended."""
    prefix = _folder(settings, "").name
    for folder in settings.scratch.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix)
        if pid.isdecimal() and (int(pid) == os.getpid() or not is_alive(int(pid))):
            shutil.rmtree(folder)


def _folder(settings: Settings, pid: int | str) -> Path:
    """The folder of one process; with the host's name, as process ids of two containers on one volume may be equal."""
    return settings.scratch / f"uploads-{socket.gethostname()}-{pid}"
