"""Small pictures of stored images, for people; those that were shown lately are kept in memory."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from trainer.networks.pictures import thumbnail

CAPACITY_BYTES = 32 << 20
QUALITY = 80  # of JPEG: about 3 kB at 128 pixels


class Thumbnails:
    """A bounded cache of JPEG files, by content and size; for any thread. The one used least recently goes first."""

    def __init__(self, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        """Keep files of so many bytes together."""
        self._capacity = capacity_bytes
        self._guard = threading.Lock()
        self._files: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0

    def of(self, digest: str, side: int, original: Callable[[], bytes], *, max_pixels: int) -> bytes:
        """The picture of an image, at most ``side`` pixels high and wide, as JPEG.

        ``original`` reads its file, if the picture is not kept. Raises `ImageRejected` for what is no readable image.
        """
        key = (digest, side)
        with self._guard:
            if (found := self._files.get(key)) is not None:
                self._files.move_to_end(key)
                return found
        buffer = io.BytesIO()
        thumbnail(original(), side=side, max_pixels=max_pixels).save(buffer, "JPEG", quality=QUALITY)
        made = buffer.getvalue()
        with self._guard:
            if key not in self._files:
                self._files[key] = made
                self._bytes += len(made)
            while self._bytes > self._capacity:
                self._bytes -= len(self._files.popitem(last=False)[1])
        return made
