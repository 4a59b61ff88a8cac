"""Multipart forms on their way to disk: the archive streamed, the other fields bounded."""

import asyncio
import hashlib
from email.message import Message
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from storage.errors import BatchInvalid, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

CHUNK = 1 << 20  # bytes gathered before a write is handed to a thread
MAX_FIELD_BYTES = 1 << 20  # of one form field that is not the archive
MAX_PARTS = 32  # of a form, however they are named


class Sink:
    """Gathers small chunks; hashes and writes large ones off the event loop."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._file = file
        self._gathered = bytearray()

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; it may be written with later ones."""
        self._gathered += chunk
        if len(self._gathered) >= CHUNK:
            await self.flush()

    async def flush(self) -> None:
        """Write the bytes gathered so far."""
        gathered, self._gathered = bytes(self._gathered), bytearray()
        self.size += len(gathered)
        await asyncio.to_thread(self._store, gathered)

    def _store(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)


async def read_form(request: Request, boundary: bytes, sink: Sink) -> dict[str, str]:
    """Send the part ``data`` to the sink and return the other parts, which must be small.

    Raises `BatchInvalid` for a form that cannot be read, has no such part or has two parts of one name, and `TooLarge`
    for too many parts or a field that is too long.
    """
    if not boundary:
        raise BatchInvalid(
            "The header Content-Type of the form lacks its boundary: let the client set it, as curl -F, fetch with "
            "FormData and axios do where no Content-Type is given by hand."
        )
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
            for piece in form.take_file_bytes():
                await sink.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise BatchInvalid(
            f"The multipart body cannot be read: {error}. Send it with a boundary, as curl -F does."
        ) from error
    if not form.is_complete:
        raise BatchInvalid("The multipart body ends without its closing boundary: it was cut off. Send it again.")
    if not form.has_file:
        raise BatchInvalid(
            "The form has no part named 'data': put the zip or tar archive there, as in -F data=@batch.zip."
        )
    if form.repeated is not None:
        raise BatchInvalid(f"The form has two parts named {form.repeated[:100]!r}: say which one is meant.")
    return form.fields


class _Form:
    """Follows a multipart parser's callbacks from part to part."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.repeated: str | None = None  # name of a field that came more than once
        self.has_file = False
        self.is_complete = False
        self._parts = 0
        self._pieces: list[bytes] = []
        self._name = ""
        self._value = bytearray()
        self._header_name = b""
        self._header_value = b""
        self._headers = Message()

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def take_file_bytes(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise TooLarge(f"The form has more than {MAX_PARTS} parts.")
        self._headers = Message()
        self._value.clear()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header_name.decode("latin-1")] = self._header_value.decode("latin-1")
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition", ""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        if self._name == "data":
            if self.has_file:
                raise BatchInvalid("The form has two parts named 'data': send one archive a request.")
            self.has_file = True

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "data":
            self._pieces.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise TooLarge(
                f"Form field {self._name[:100]!r} is larger than {MAX_FIELD_BYTES:,} bytes: the archive goes into the "
                "part named 'data'."
            )

    def _end_part(self) -> None:
        if self._name in self.fields:
            self.repeated = self._name
        if self._name != "data":
            self.fields[self._name] = self._value.decode(errors="replace")

    def _end(self) -> None:
        self.is_complete = True
