"""The demonstration: a classifier that grows a few classes at a time, without rehearsal and with.

    python -m api.demo                                  # scikit-learn's handwritten digits, two at a time
    python -m api.demo FOLDER --classes-per-step 5      # your own images, in ImageFolder layout

It starts the service in a temporary folder on a free port and speaks to it through the client, as any program would.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from api.client.client import Client, succeeded
from api.client.connection import ClientError
from api.client.documents import Memory, Ranked
from api.commands.commandline import versions_table
from api.commands.console import failure
from api.commands.group import print_anything
from api.commands.progress import display, follow
from api.commands.tables import labels, share, table
from api.demo.images import Picture, fitting_shape, hold_out, read_folder, split_classes, write_archive, write_digits
from api.process.environment import inherited
from storage.settings import Settings

RECIPE: Mapping[str, Any] = {"preset": "quick"}
HELD_OUT = 3  # images a class that are never uploaded, only predicted at the end
DASHBOARD = f"http://127.0.0.1:{Settings.model_fields['dashboard_port'].default}"  # of `make serve`
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_ROWS = 20  # predictions that are printed one by one
_FILES_PER_REQUEST = 16
_KEPT_SETTINGS = {"ACCRETE_DEVICE", "ACCRETE_THREADS"}  # the others may name a real database


@dataclass(frozen=True, slots=True)
class History:
    """One of the two models, which are trained in the same steps."""

    model: str
    title: str
    memory: Memory | None


HISTORIES = (
    History(model="without-rehearsal", title="without rehearsal", memory=None),
    History(model="with-rehearsal", title="with 20 exemplars a class", memory={"per_class": 20}),
)


class DemoFailed(Exception):
    """The demonstration could not go on; the message says why."""


def main(
    data: Annotated[
        Path | None, typer.Argument(envvar="DATA", help="ImageFolder tree; default: handwritten digits.")
    ] = None,
    classes_per_step: Annotated[
        int, typer.Option(envvar="CLASSES_PER_STEP", min=2, help="New classes of each increment.")
    ] = 2,
) -> None:
    """Grow a classifier step by step, without rehearsal and with, and show what each step cost the old classes."""
    started_at = time.monotonic()
    print_anything()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that the service is stopped too
    with tempfile.TemporaryDirectory(prefix="accrete-demo-") as folder:
        try:
            demonstrate(Path(folder), data, classes_per_step)
        except (DemoFailed, ClientError, ValueError) as error:
            raise failure(str(error)) from error
    seconds = time.monotonic() - started_at
    print(f"\nDone in {seconds:.0f} s. To teach a model in the browser: make serve, then the dashboard at {DASHBOARD}")


def demonstrate(folder: Path, data: Path | None, classes_per_step: int) -> None:
    """Run both histories, from the images to the predictions; all files are written into ``folder``."""
    pictures = read_folder(data or write_digits(folder / "digits"))
    steps = split_classes(pictures, classes_per_step)
    uploaded, held = hold_out(pictures, per_class=HELD_OUT)
    image_size, channels = fitting_shape(uploaded)
    archives = [
        write_archive([picture for picture in uploaded if picture.label in step], folder / f"step-{number}.zip")
        for number, step in enumerate(steps, start=1)
    ]
    what = f"images from {data}" if data else "handwritten digits"
    print(
        f"{len(uploaded):,} {what}: {sum(map(len, steps))} classes in {len(steps)} steps, {len(held)} images held out."
    )
    with service(folder / "home") as url, Client(url) as client:
        for history in HISTORIES:
            client.create_model(
                history.model, image_size=image_size, channels=channels, recipe=RECIPE, memory=history.memory
            )
            grow(client, history, archives, steps)
        show_predictions(client, held)
        open_pages(url)


def grow(client: Client, history: History, archives: Sequence[Path], steps: Sequence[Sequence[str]]) -> None:
    """Push one step after the other, then print the versions they made."""
    print(f"\nA classifier {history.title}")
    for archive, step in zip(archives, steps, strict=True):
        with display(title=f"  + {labels(step)}") as shown:
            increment = client.start_increment(history.model, archive, on_upload=shown.uploaded)
            follow(client.events(increment["id"]), shown)
        succeeded(client.increment(increment["id"]))
    versions = sorted(client.versions(history.model), key=lambda version: version["version"])
    print(f"\n{versions_table(versions)}")


def show_predictions(client: Client, held: Sequence[Picture]) -> None:
    """Print the predictions of both classifiers for the images held out."""
    answers = {history.model: predict(client, history.model, held) for history in HISTORIES}
    headings = ["image", "truth", *(history.title for history in HISTORIES)]
    rows = [
        [picture.path.name, picture.label, *(_told(picture, answers[history.model][index]) for history in HISTORIES)]
        for index, picture in enumerate(held)
    ]
    few = rows[:: max(1, -(-len(rows) // _ROWS))]
    print(f"\nPredictions for images held out ({len(few)} of {len(held)})\n{table(headings, few)}\n")
    for history in HISTORIES:
        right = sum(
            picture.label == ranked["label"] for picture, ranked in zip(held, answers[history.model], strict=True)
        )
        print(f"{history.title}: {right} of {len(held)} right")


def open_pages(url: str) -> None:
    """Open the dashboard where a person can see it, and keep the service until they are done."""
    if not (sys.stdin.isatty() and any(os.environ.get(name) for name in DISPLAYS)):
        return
    webbrowser.open(url)  # which sends browsers to the dashboard
    input("\nThe dashboard of these two models is open in your browser. Enter ends the demonstration. ")


def predict(client: Client, model: str, pictures: Sequence[Picture]) -> list[Ranked]:
    """The most probable class of each image."""
    found: list[Ranked] = []
    for start in range(0, len(pictures), _FILES_PER_REQUEST):
        some = [picture.path for picture in pictures[start : start + _FILES_PER_REQUEST]]
        found += [ranked[0] for ranked in client.predict(model, some, top_k=1)["predictions"]]
    return found


def _told(picture: Picture, ranked: Ranked) -> str:
    sign = "✓" if ranked["label"] == picture.label else "✗"
    return f"{sign} {ranked['label']} ({share(ranked['probability'])})"


@contextmanager
def service(home: Path) -> Iterator[str]:
    """Run the embedded service as a process on a free port, and yield its URL; stop it at the end.

    Raises DemoFailed if it does not start, or ends with an error.
    """
    home.mkdir()
    command = [sys.executable, "-m", "api.commands.commandline", "up", "--port", "0", "--home", str(home), "--json"]
    environment = {
        name: value for name, value in inherited().items() if not name.startswith("ACCRETE_") or name in _KEPT_SETTINGS
    } | {"ACCRETE_DRAIN_SECONDS": "0"}  # nobody else sends requests here
    messages = home / "messages.log"
    with (
        messages.open("w") as log,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        ) as process,
    ):
        try:
            ready = process.stdout.readline() if process.stdout else ""
            if not ready:
                raise DemoFailed(f"the service did not start:\n{messages.read_text()}")
            yield json.loads(ready)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait()
    if code != 0:
        raise DemoFailed(f"the service ended with code {code}:\n{messages.read_text()}")


if __name__ == "__main__":
    typer.run(main)
