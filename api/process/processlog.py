"""The output of the embedded service's processes: all of it goes to one file each, warnings also to the terminal."""

import logging
import re
import sys
from collections import deque
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

from storage import safetext

_FILE_BYTES = 10 << 20  # a log file is rotated at this size, and one old file is kept
_LINE_BYTES = 1 << 16  # longer lines are cut into pieces
_LEVEL = re.compile(r'\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|"level": ?"(debug|info|warning|error|critical)"')
_GRAVE = {"WARNING", "ERROR", "CRITICAL"}


class Console:
    """Standard error, as long as somebody reads it: a closed terminal must not stop the service."""

    def __init__(self) -> None:
        """Begin with an open terminal."""
        self._open = True

    def write(self, text: str) -> None:
        """Print one line, or nothing once the terminal has gone."""
        if not self._open:
            return
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except OSError:  # BrokenPipeError, or EIO of a terminal that was closed
            self._open = False


class ProcessLog:
    """The output of one part over all its restarts."""

    def __init__(self, name: str, folder: Path, *, show: Callable[[str], None] | None, verbose: bool) -> None:
        """Append to ``folder/name.log``; show warnings and worse, everything when verbose, nothing without ``show``."""
        self.path = folder / f"{name}.log"
        self._file = RotatingFileHandler(self.path, maxBytes=_FILE_BYTES, backupCount=1, encoding="utf-8", delay=True)
        self._name, self._show, self._verbose = name, show, verbose
        self._tail: deque[str] = deque(maxlen=12)

    def follow(self, output: BinaryIO) -> None:
        """Copy lines until every process that holds the other end has closed it; runs in a thread of its own."""
        grave = False  # lines without a level, such as those of a traceback, belong to the one before
        with output:
            while raw := output.readline(_LINE_BYTES):
                line = safetext.lines(safetext.discreet(raw.decode("utf-8", "replace").rstrip("\r\n")))
                level = line_level(line)
                grave = grave if level is None else level in _GRAVE
                self.write(line)
                if self._show is not None and (self._verbose or grave):
                    self._show(f"{self._name} | {line}")

    def write(self, line: str) -> None:
        """Add one line to the file."""
        self._tail.append(line)
        self._file.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))

    def tail(self) -> str:
        """The last lines, for the message that says why a process could not start."""
        return "\n".join(f"  {line}" for line in tuple(self._tail))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def line_level(line: str) -> str | None:
    """The level a log line names in its first 120 characters, in capitals; None when it names none."""
    if line.startswith("Traceback (most recent call last)"):
        return "ERROR"
    found = _LEVEL.search(line[:120])
    return (found[1] or found[2]).upper() if found else None
