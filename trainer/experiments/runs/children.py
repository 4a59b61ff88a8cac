"""Runs in child processes, several at once, each on a device; no child outlives this process."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO

from trainer.experiments.runs.process import ELSEWHERE, ORDER, REFUSED
from trainer.experiments.runs.run import Order

CRASH = "crash.log"  # in a run's folder

Tell = Callable[[Order, Mapping[str, Any]], None]


def perform_all(orders: Sequence[Order], *, devices: Sequence[str], jobs: int, tell: Tell) -> int:
    """Perform every order, ``jobs`` at once; returns how many failed.

    ``tell`` gets the messages of each run, about its epochs, its tasks and its end. At the end ``reason`` is None if
    the run is complete. Ctrl-C and SIGTERM kill every child, and then KeyboardInterrupt is raised.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(_perform_all(orders, devices=devices, jobs=jobs, tell=tell))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except ExceptionGroup as group:  # `tell` raised it, so the other runs were cancelled
        raise group.exceptions[0] from None
    finally:
        signal.signal(signal.SIGTERM, before)


async def _perform_all(orders: Sequence[Order], *, devices: Sequence[str], jobs: int, tell: Tell) -> int:
    waiting, failed = deque(orders), 0
    itself = asyncio.current_task()
    assert itself is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, itself.cancel)

    async def work(device: str) -> None:
        nonlocal failed
        while waiting:
            order = replace(waiting.popleft(), device=device)
            reason, failure = await _perform(order, tell)
            failed += failure
            tell(order, {"kind": "end", "reason": reason})

    async with asyncio.TaskGroup() as group:
        for slot in range(min(jobs, len(orders))):
            group.create_task(work(devices[slot % len(devices)]))
    return failed


async def _perform(order: Order, tell: Tell) -> tuple[str | None, bool]:
    """Perform an order: the reason if the run is not complete, else None; and whether it failed."""
    refusal = "it gave no reason"
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trainer.experiments.runs.process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches only this process, which ends the child
            env=_environment(order),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(ORDER.dump_json(order) + b"\n")
            async for line in process.stdout:
                message = json.loads(line)
                if message["kind"] == "refusal":
                    refusal = message["reason"]
                else:
                    tell(order, message)
            status = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if status in {0, ELSEWHERE}:
            return ("another process works on it" if status else None), False
        return (refusal if status == REFUSED else _crash(order, status, errors)), True


def _environment(order: Order) -> dict[str, str]:
    """The child's environment: waiting threads sleep, since busy waiting makes parallel runs many times slower."""
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "OMP_NUM_THREADS": str(order.threads)}


def _crash(order: Order, status: int, errors: BinaryIO) -> str:
    """How the process ended, with the last line of its error output; all of the output is written to a file."""
    errors.seek(0)
    log = order.folder.path / CRASH
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        shutil.copyfileobj(errors, file)
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"ended early ({how}): {lines[-1] if lines else 'it left no message'}; all of it is in {log}"
