"""Server-sent events: the text format of the HTML standard (§9.2.6), read from chunks of bytes as they arrive."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event; ``id`` is None for one that brought none of its own."""

    kind: str
    data: str
    id: str | None


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    r"""Complete lines, ended by \n, \r\n or \r; what the stream breaks off in the middle of is dropped."""
    pending = b""
    for chunk in chunks:
        pending += chunk
        # A \r at the very end may be the first half of \r\n: it waits for the next chunk.
        complete, held = (pending[:-1], b"\r") if pending.endswith(b"\r") else (pending, b"")
        *ended, rest = _LINE_END.split(complete)
        pending = rest + held
        for line in ended:
            yield line.decode("utf-8", "replace")


def events(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """The events of a stream; comments, and events without data, are passed over."""
    kind, data, identifier = "message", list[str](), None
    for line in lines(chunks):
        if not line:
            if data:
                yield ServerSentEvent(kind=kind, data="\n".join(data), id=identifier)
            kind, data, identifier = "message", [], None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data.append(value)
        elif field == "id" and "\0" not in value:
            identifier = value
