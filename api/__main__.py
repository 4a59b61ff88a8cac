"""`python -m api`: serve until SIGTERM or SIGINT; readiness goes red first, streams end, requests in flight finish."""

import argparse
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.guard import OPEN, Unguarded, check
from api.protocol import Protocol
from api.workers import Workers
from storage import safetext
from storage.logs import configure
from storage.settings import Settings, SettingsInvalid, read_settings
from storage.surroundings import tell_oddities

log = logging.getLogger(__name__)

GRACE_SECONDS = 10
# How long a thread that computes in Python may make the others wait. At Python's own 5 ms, one that prepares a version
# holds every request up again and again.
SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """uvicorn, telling the application that it is about to end while connections are still open."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        """Serve ``app`` as ``config`` says."""
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second Ctrl-C wait for nobody."""
        if (service := getattr(self._app.state, "service", None)) is not None:  # None: asked to end while starting
            service.draining.set()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True  # no word to uvicorn's own handler, which would raise the signal again at the end


def main() -> None:
    """Serve on the configured address, by as many processes as are configured."""
    arguments = _arguments()
    try:
        settings = read_settings()
    except SettingsInvalid as error:
        sys.exit(f"error: {safetext.message(str(error))}")
    configure(settings)
    if arguments.worker is None:
        tell_oddities(settings)
        try:
            check(settings)
        except Unguarded as error:
            sys.exit(f"error: {safetext.message(str(error))}")
        if not settings.keys_needed:
            log.warning(OPEN.format(port=settings.port))
        if settings.api_workers > 1:
            sys.exit(Workers(settings).run())
    # Here, not above: it loads torch, half a gigabyte and some seconds that the parent of workers has no use for.
    from api.app import create_app

    sys.setswitchinterval(SWITCH_SECONDS)
    app = create_app(settings, worker=arguments.worker or 0)
    inherited = None if arguments.descriptor is None else [socket.socket(fileno=arguments.descriptor)]
    Server(app, configuration(app, settings)).run(inherited)


def configuration(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # `configure` has said how
        access_log=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        http=Protocol,
        ws="none",
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m api", description="Serve; settings are ACCRETE_… variables.")
    parser.add_argument("--worker", type=int, help="position among the processes that share a port")
    parser.add_argument("--descriptor", type=int, help="the listening socket they share, as it was inherited")
    return parser.parse_args()


if __name__ == "__main__":
    main()
