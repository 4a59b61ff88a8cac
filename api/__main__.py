"""`python -m api`: serve until SIGTERM or SIGINT.

At SIGTERM /readyz answers 503, and for `ACCRETE_DRAIN_SECONDS` connections are still accepted and answered, so that
load balancers have time to notice. After that the process stops listening, event streams end, requests in flight
finish, and the exit code is 0. SIGINT does so at once. A second signal ends the process without waiting for requests.
"""

import argparse
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from api.http.protocol import Protocol
from api.keys.first_key import OPEN, Unguarded, check
from api.process.workers import Workers, end_with
from storage import inherited_signals, safetext
from storage.environment import log_environment_warnings
from storage.logs import configure
from storage.settings import Settings, settings_of_process

if TYPE_CHECKING:
    from api.service import Service

log = logging.getLogger(__name__)

GRACE_SECONDS = 5  # beyond the deadline of the requests in flight, until they are cut off
# How long a thread may hold the interpreter while others wait. With Python's default of 5 ms, a thread that prepares a
# version delays every request again and again.
SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """uvicorn, which tells the application that the process will end while connections are still open."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        """Serve ``app`` as ``config`` says."""
        super().__init__(config)
        self._app = app
        self._ends_at: float | None = None  # by time.monotonic(); None until a signal came

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, except those that were ignored when the process started, as under nohup."""
        ignored = inherited_signals.ignored()
        with super().capture_signals():
            if threading.current_thread() is threading.main_thread():
                inherited_signals.ignore(ignored)
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain at SIGTERM, and to end at SIGINT; after the second signal do not wait for requests.

        uvicorn's own handler is not called, since it would raise the signal again at the end.
        """
        service, now = self._service, time.monotonic()
        if self._ends_at is not None:
            self.force_exit = True
        drains = self._ends_at is None and sig == signal.SIGTERM and service is not None
        self._ends_at = now + (service.settings.drain_seconds if drains and service is not None else 0)
        if service is not None:
            service.draining.set()
        if now >= self._ends_at:
            self._end()

    async def on_tick(self, counter: int) -> bool:
        """Whether to end; uvicorn calls it ten times a second."""
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._end()
        return await super().on_tick(counter)

    @property
    def _service(self) -> "Service | None":
        """The application's service; None while the application starts."""
        return getattr(self._app.state, "service", None)

    def _end(self) -> None:
        self.should_exit = True
        if (service := self._service) is not None:
            service.ending.set()


def main() -> None:
    """Serve on the configured address, with the configured number of processes."""
    arguments = _arguments()
    settings = settings_of_process()
    configure(settings)
    if arguments.lifeline is not None:
        end_with(arguments.lifeline)
    if arguments.worker is None:
        log_environment_warnings(settings)
        try:
            check(settings)
        except Unguarded as error:
            sys.exit(f"error: {safetext.message(str(error))}")
        if not settings.keys_needed:
            log.warning(OPEN.format(port=settings.port))
        if settings.api_workers > 1:
            sys.exit(Workers(settings).run())
    # Imported here: the parent of workers needs neither what serves nor the memory that it takes.
    from api.app import create_app

    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(settings, worker=arguments.worker or 0)
    inherited = None if arguments.descriptor is None else [socket.socket(fileno=arguments.descriptor)]
    Server(app, configuration(app, settings)).run(inherited)


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The configuration of uvicorn to serve ``app``."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # `configure` has set up logging
        access_log=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=math.ceil(settings.deadline_seconds) + GRACE_SECONDS,
        server_header=False,
        http=Protocol,
        ws="none",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve; settings are ACCRETE_… variables.")
    parser.add_argument("--worker", type=int, help="position among the processes that share a port")
    parser.add_argument("--descriptor", type=int, help="the listening socket they share, as it was inherited")
    parser.add_argument("--lifeline", type=int, help="a pipe that ends with the process that started this one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
