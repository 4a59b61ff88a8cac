"""What the client's calls do with local files. The functions block: the asynchronous client calls them in a thread."""

import base64
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx

from api.client.packing import OnUpload
from api.client.paths import media_type


@dataclass(frozen=True, slots=True)
class Form:
    """Images as the parts of a form, read in pieces."""

    paths: Sequence[Path]
    content_type: str
    length: int  # bytes

    def chunks(self, on_upload: OnUpload | None) -> Iterator[bytes]:
        """The bytes of the form."""
        sent = 0
        with ExitStack() as opened:
            stream = _request(self.paths, self.content_type, opened).stream
            assert isinstance(stream, httpx.SyncByteStream)
            for chunk in stream:
                yield chunk
                sent += len(chunk)
                if on_upload is not None:
                    on_upload(sent, self.length)


def form_of(paths: Sequence[Path]) -> Form:
    """The form that adds these images to a batch; raises OSError for a file that cannot be read."""
    content_type = f"multipart/form-data; boundary={secrets.token_hex(16)}"
    with ExitStack() as opened:
        length = int(_request(paths, content_type, opened).headers["Content-Length"])
    return Form(paths, content_type, length)


def encoded(images: Sequence[bytes | Path]) -> list[str]:
    """Images in base64, read from their files where they are paths."""
    contents = (image.read_bytes() if isinstance(image, Path) else image for image in images)
    return [base64.b64encode(content).decode("ascii") for content in contents]


def made(folder: Path) -> Path:
    """A folder, made with those above it unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _request(paths: Sequence[Path], content_type: str, opened: ExitStack) -> httpx.Request:
    """A request that is not sent: it writes the form. Its files are closed with ``opened``."""
    parts = [("images", (path.name, opened.enter_context(path.open("rb")), media_type(path))) for path in paths]
    return httpx.Request("POST", "/", files=parts, headers={"Content-Type": content_type})
