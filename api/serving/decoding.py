"""Image files to pixels, on a fixed number of threads."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from api.measures import Measures
from api.serving.minibatches import late
from storage.errors import AccreteError, ImageUnreadable
from trainer.networks.pictures import Form, ImageRejected

log = logging.getLogger(__name__)

PIECE = 8  # images of a request that one thread decodes; larger requests use several threads


class Decoders:
    """A pool of threads; Pillow releases the interpreter lock while it decodes.

    Not a ThreadPoolExecutor: its futures are not needed here, and cost more than handing over the work.
    """

    def __init__(self, *, max_pixels: int, measures: Measures) -> None:
        """Start as many threads as there are processors."""
        self._max_pixels, self._measures = max_pixels, measures
        self._work: SimpleQueue[tuple[Decoding, int] | None] = SimpleQueue()  # None ends a thread
        self._threads = [
            threading.Thread(target=self._decode_on, name=f"decoder-{number}", daemon=True)
            for number in range(os.cpu_count() or 2)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the queued work, then end the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def decode(
        self, files: Sequence[bytes], form: Form, deadline: float, done: Callable[[NDArray[np.uint8] | Exception], None]
    ) -> None:
        """Decode files, then call ``done`` on one of the threads, with uint8 [n, channels, size, size] or an error.

        After ``deadline``, by time.monotonic(), no more images are decoded.
        """
        decoding = Decoding(self, files, form, deadline, done)
        for start in range(0, len(files), PIECE):
            self._work.put((decoding, start))

    def _decode_on(self) -> None:
        while (work := self._work.get()) is not None:
            decoding, start = work
            decoding.decode(start)
            del decoding, work  # an idle thread must not keep images in memory

    def row(self, data: bytes, form: Form, position: int) -> bytes:
        """Decoded pixels of an image, as bytes; raises `ImageUnreadable` that names its position in the request."""
        try:
            with self._measures.decode_seconds.time():
                return form.row(data, max_pixels=self._max_pixels)
        except ImageRejected as rejected:
            raise ImageUnreadable(
                f"Image {position} (counted from 0) cannot be read: {rejected}. Send JPEG, PNG, WebP, BMP or GIF.",
                image=position,
            ) from rejected


class Decoding:
    """A request's images, decoded into one block of memory; the thread that decodes the last one calls ``done``."""

    def __init__(
        self,
        decoders: Decoders,
        files: Sequence[bytes],
        form: Form,
        deadline: float,
        done: Callable[[NDArray[np.uint8] | Exception], None],
    ) -> None:
        """Allocate the block for all images."""
        self._decoders, self._files, self._form, self._deadline, self._done = decoders, files, form, deadline, done
        self._pixels = np.empty((len(files), form.channels, form.image_size, form.image_size), np.uint8)
        self._lock = threading.Lock()
        self._left = len(range(0, len(files), PIECE))
        self._fault: Exception | None = None

    def decode(self, start: int) -> None:
        """Decode up to `PIECE` images from position ``start`` on; after an error no more are decoded."""
        form = self._form
        try:
            for position in range(start, min(start + PIECE, len(self._files))):
                if self._fault is not None:
                    break
                if time.monotonic() >= self._deadline:
                    raise late()
                row = np.frombuffer(self._decoders.row(self._files[position], form, position), np.uint8)
                picture = row.reshape(form.image_size, form.image_size, form.channels)
                self._pixels[position] = picture.transpose(2, 0, 1)
        except AccreteError as error:
            self._fault = error
        except Exception as error:  # passed to the waiting request, as an unreadable image is
            log.exception("decoding failed")
            self._fault = error
        with self._lock:
            self._left -= 1
            is_last = self._left == 0
        if is_last:
            self._done(self._fault if self._fault is not None else self._pixels)
