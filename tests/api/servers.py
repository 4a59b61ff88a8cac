"""Servers for the tests of client and command line: the real API in a thread, and one that misbehaves on request."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class ScriptedServer:
    """An HTTP server on a free port that answers each request by the next of a list of functions."""

    def __init__(self, *answers: Answer) -> None:
        script, self.requests = iter(answers), list[tuple[str, str, dict[str, str]]]()
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                requests.append((self.command, self.path, headers))
                next(script)(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
                """Say nothing."""

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


Scripted = Callable[..., ScriptedServer]


@contextmanager
def scripted_servers() -> Iterator[Scripted]:
    """A function that starts scripted servers."""
    servers: list[ScriptedServer] = []

    def start(*answers: Answer) -> ScriptedServer:
        servers.append(ScriptedServer(*answers))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.close()


def answer(
    status: int, body: object, kind: str = "application/json", *, bodies: list[bytes] | None = None, **headers: str
) -> Answer:
    """A complete answer, after the request's body has been read (into ``bodies``)."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        request = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if bodies is not None:
            bodies.append(request)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(payload)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(payload)

    return send


def stream(*events: str, complete: bool, pause_seconds: float = 0.0) -> Answer:
    """A stream of events, a pause before each, that ends as it should or breaks off in the middle of a chunk."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in events:
            time.sleep(pause_seconds)
            handler.wfile.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
        handler.wfile.write(b"0\r\n\r\n" if complete else b"ff\r\nevent: status\ndata: {")
        handler.close_connection = True

    return send


def event(sequence: int | None, kind: str, **data: Any) -> str:
    """One event as the service writes it."""
    identifier = "" if sequence is None else f"id: {sequence}\n"
    return f"event: {kind}\n{identifier}data: {json.dumps(data)}\n\n"


@contextmanager
def api_without_worker(home: Path) -> Iterator[str]:
    """The URL of the real API on SQLite and a folder, without any worker: what is queued stays queued."""
    import uvicorn

    from api.app import create_app
    from api.process.embedded import free_port
    from storage.migrations import upgrade
    from storage.settings import Settings

    settings = Settings(home=home, redis_url=f"unix://{home}/nobody.sock", keys="none")
    home.mkdir()
    upgrade(settings.database)
    port = free_port("127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the API did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=60)
