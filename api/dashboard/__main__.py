"""`python -m api.dashboard`: serves the dashboard, in one process, until SIGINT or SIGTERM."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import uvicorn

ENDING_SECONDS = 5  # for uploads under way at the end


def main() -> None:
    """Serve the dashboard of a service."""
    parser = argparse.ArgumentParser(prog="python -m api.dashboard", description="The pages of an Accrete service.")
    parser.add_argument("--api", required=True, help="address of the API, such as http://127.0.0.1:8000")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--home", type=Path, default=Path("data"), help="folder for what it writes")
    asked = parser.parse_args()
    if int(os.environ.get("WEB_CONCURRENCY", "1")) > 1:
        sys.exit("accrete dashboard: WEB_CONCURRENCY asks for several processes, and a page lives in one: unset it")
    # Read when nicegui is imported; else it writes into the working folder.
    os.environ["NICEGUI_STORAGE_PATH"] = str(asked.home / "dashboard")
    from api.dashboard.server import create_app

    # Addresses of the socket hold the page's id, by which its events are trusted: they stay out of the log.
    options: dict[str, Any] = {"access_log": False, "log_level": "warning", "timeout_graceful_shutdown": ENDING_SECONDS}
    uvicorn.run(create_app(asked.api), host=asked.host, port=asked.port, **options)


if __name__ == "__main__":
    main()
