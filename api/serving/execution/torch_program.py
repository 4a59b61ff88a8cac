"""One run of `trainer.networks.computing`: started, asked, and killed when it does not answer in time."""

import importlib.util
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.networks.frames import LENGTH, Header, encode

Pixels = NDArray[np.uint8] | NDArray[np.float32]  # [n, channels, size, size]

START_SECONDS = 60.0  # at most, until torch is imported and the device works
ANSWER_SECONDS = 300.0  # at most, for a load and for a computation
END_SECONDS = 5.0  # given to a process to end by itself, and to the system to remove a killed one
DEVICE_FILES = Path("/dev")

log = logging.getLogger(__name__)


class TorchProcessError(Exception):
    """The torch process could not do what it was asked to; the text says why."""


class TorchProcessEnded(TorchProcessError):
    """The torch process has ended before it answered; another one may answer."""


def is_available() -> bool:
    """Whether torch is installed."""
    return importlib.util.find_spec("torch") is not None


def cuda_devices() -> int:
    """How many NVIDIA GPUs torch can use; asked of a process that ends with the answer."""
    if not any(DEVICE_FILES.glob("nvidia[0-9]*")) or not is_available():
        return 0
    command = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    try:
        asked = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=START_SECONDS, check=True
        )
        return int(asked.stdout.split()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        log.warning("no GPU is used, since torch did not say how many there are: %s", error)
        return 0


class TorchProgram:
    """A process and its pipes; used by one thread at a time, except for `kill`."""

    def __init__(self, device: str, threads: int) -> None:
        """Start the process; `await_start` waits until it works."""
        self._device = device
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.networks.computing", device, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipes = self._process.stdin, self._process.stdout
        self._orders, self._answers = (pipe.fileno() for pipe in self._pipes)
        for descriptor in (self._orders, self._answers):
            os.set_blocking(descriptor, False)  # a process that hangs must not hold up its parent

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def await_start(self) -> None:
        """Wait for the first answer; raises `TorchProcessError` if the device cannot be used."""
        try:
            self._converse((), START_SECONDS)
        except TorchProcessError:
            self.end()
            raise

    def ask(self, order: Mapping[str, Any], arrays: Sequence[Pixels] = ()) -> tuple[Header, bytearray]:
        """Send an order, with the arrays one after the other as its bytes; header and bytes of the answer.

        Raises `TorchProcessError` with the error that the process answers, or because it does not answer.
        """
        parts = [np.ascontiguousarray(array).data.cast("B") for array in arrays]
        return self._converse((memoryview(encode(order, sum(map(len, parts)))), *parts), ANSWER_SECONDS)

    def kill(self) -> None:
        """End the process at once; a conversation on another thread raises `TorchProcessEnded`."""
        self._process.kill()

    def end(self) -> int | None:
        """End the process and close its pipes; its exit status, None if the system could not remove it in time."""
        for pipe in self._pipes:
            pipe.close()  # which ends it
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(END_SECONDS)
            self.kill()
        return None

    def _converse(self, parts: Sequence[memoryview], seconds: float) -> tuple[Header, bytearray]:
        deadline = time.monotonic() + seconds
        try:
            for part in parts:
                self._write(part, deadline)
            (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
            answer: Header = json.loads(self._read(length, deadline))
            data = self._read(answer["bytes"], deadline)
        except (BrokenPipeError, EOFError) as error:
            text = f"the torch process of {self._device} has ended with status {self.end()}; its log may say why"
            raise TorchProcessEnded(text) from error
        except TimeoutError as error:
            self.kill()
            self.end()
            text = f"the torch process of {self._device} has not answered for {seconds:g} s and was killed"
            raise TorchProcessError(text) from error
        except BaseException:  # half an order or half an answer is in the pipes
            self.kill()
            self.end()
            raise
        if "error" in answer:
            raise TorchProcessError(answer["error"])
        return answer, data

    def _write(self, data: memoryview, deadline: float) -> None:
        while data:
            _await(self._orders, select.POLLOUT, deadline)
            data = data[os.write(self._orders, data) :]

    def _read(self, size: int, deadline: float) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            _await(self._answers, select.POLLIN, deadline)
            if (count := os.readv(self._answers, [rest])) == 0:
                raise EOFError
            rest = rest[count:]
        return data


def _await(descriptor: int, event: int, deadline: float) -> None:
    """Wait until a pipe can be used or is closed; raises TimeoutError at the deadline."""
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError
