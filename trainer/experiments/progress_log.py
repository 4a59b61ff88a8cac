"""The progress of an experiment, as lines on standard error."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from trainer.experiments.runs.run import Order

EPOCH_SECONDS = 5.0  # between two lines about the epochs of one run


def say(text: str) -> None:
    """Print one line, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)  # noqa: T201


class ProgressLog:
    """Prints the messages of runs: every finished task, every end of a run, and some of the epochs."""

    def __init__(self, *, runs: int, tasks: int) -> None:
        """Count up to so many runs, each of so many tasks."""
        self._runs = runs
        self._tasks = tasks
        self._ended = 0
        self._next: dict[str, float] = {}

    def tell(self, order: Order, message: Mapping[str, Any]) -> None:
        """Print a message of `trainer.experiments.runs.children`; epochs only every `EPOCH_SECONDS`."""
        if message["kind"] == "epoch":
            self._epoch(order, message)
        elif message["kind"] == "task":
            tag, taw = (_percent(message[form]) for form in ("tag", "taw"))
            self._say(order, f"{self._place(message)} done in {message['seconds']:.0f} s, TAg {tag}, TAw {taw}")
        else:
            self._ended += 1
            how = "complete" if message["reason"] is None else f"not complete: {message['reason']}"
            self._say(order, f"{how} ({self._ended} of {self._runs} runs)")

    def _epoch(self, order: Order, message: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now >= self._next.setdefault(order.run.digest, now + EPOCH_SECONDS):
            self._say(
                order,
                f"{self._place(message)} epoch {message['epoch']}/{message['epochs']}, loss {message['loss']:.4g}, "
                f"{message['images_per_second']:,.0f} images/s",
            )

    def _say(self, order: Order, text: str) -> None:
        self._next[order.run.digest] = time.monotonic() + EPOCH_SECONDS
        say(f"{order.run.strategy} seed {order.run.seed}: {text}")

    def _place(self, message: Mapping[str, Any]) -> str:
        return f"task {message['task'] + 1}/{self._tasks}"


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"
