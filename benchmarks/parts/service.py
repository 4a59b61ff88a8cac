"""The embedded service, started as a user starts it."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEPT_SETTINGS = {"ACCRETE_DEVICE", "ACCRETE_THREADS"}  # others may name somebody's real database


@dataclass(frozen=True)
class Service:
    """Where it answers, and the process all of its processes descend from."""

    url: str
    pid: int


@contextmanager
def running(home: Path, tree: Path | None = None, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`accrete up` on a free port, with everything it writes in ``home``; of another checkout if there is a ``tree``.

    ``settings``: further ones, by the names of their environment variables.
    """
    python, environment = of_tree(tree)
    unwanted = {name for name in environment if name.startswith("ACCRETE_")} - KEPT_SETTINGS
    process = subprocess.Popen(
        [python, "-m", "api.commands.commandline", "up", "--home", str(home), "--port", "0"],
        cwd=tree,
        env={name: value for name, value in environment.items() if name not in unwanted} | dict(settings or {}),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Service(_address(process), process.pid)
    finally:
        process.terminate()  # not by SIGINT, which the shell has background jobs ignore
        process.wait()


def of_tree(tree: Path | None) -> tuple[str, dict[str, str]]:
    """The interpreter and the environment variables for a checkout's programs: its ``.venv``, or else this one's."""
    if tree is None:
        return sys.executable, dict(os.environ)
    own = tree / ".venv/bin/python"
    return str(own) if own.exists() else sys.executable, os.environ | {"PYTHONPATH": str(tree)}


def _address(process: subprocess.Popen[str]) -> str:
    """The URL that the service prints once it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://[\d.]+:\d+", line):
            # Read on, or a service that has much to say would wait for a reader.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return found.group()
    raise SystemExit("the service did not start")
