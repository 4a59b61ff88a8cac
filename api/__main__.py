"""`python -m api`: serve until SIGTERM or SIGINT; readiness goes red first, streams end, requests in flight finish."""

import logging
import signal
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.guard import Unguarded, check
from storage.settings import Settings

GRACE_SECONDS = 10


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
    """Serve on the configured address."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        check(settings)
    except Unguarded as error:
        sys.exit(f"error: {error}")
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    Server(app, config).run()


if __name__ == "__main__":
    main()
