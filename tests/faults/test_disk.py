"""A disk that is full, a real one of 64 MB: what does not fit is refused and leaves nothing, and then all goes on."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from api.client.client import Client
from api.client.connection import Problem
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import training, wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "accrete-test", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def service(disk: Path) -> Iterator[Service]:
    """A service whose home is on that disk."""
    started = Service(disk / "home", HASTY)
    started.start()
    yield started
    assert started.stop() == 0


@contextmanager
def full(disk: Path, *, left: int) -> Iterator[None]:
    """The disk with so many bytes free."""
    state = os.statvfs(disk)
    filler = disk / "filler"
    try:
        filler.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - left)))
    except OSError as error:  # the service has written something meanwhile, and the disk is full already
        if error.errno != errno.ENOSPC:
            raise
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)


def test_an_upload_that_does_not_fit_leaves_nothing_and_can_be_sent_again(
    service: Service, disk: Path, tmp_path: Path
) -> None:
    large = write_zip(tmp_path / "1.zip", ["anise", "basil"], extra={"basil/noise.png": os.urandom(6_000_000)})
    with Client(service.url) as client:
        client.create_model("upload", image_size=SIZE, recipe=QUICK)
        with full(disk, left=3_000_000):
            with pytest.raises(Problem) as refused:
                client.start_increment("upload", large)
            assert (refused.value.status, refused.value.kind) == (507, "storage-full")
            assert not [path for path in (service.home / "scratch").rglob("*") if path.is_file()]
        assert list(client.increments("upload")) == []
        done = client.wait(client.start_increment("upload", large)["id"])
        assert (done["version"], [reject["file"] for reject in done["rejects"]]) == (1, ["basil/noise.png"])


def test_a_disk_that_fills_while_an_increment_trains_costs_an_attempt_at_most(
    service: Service, disk: Path, tmp_path: Path
) -> None:
    with Client(service.url) as client:
        client.create_model("filling", image_size=SIZE, recipe=QUICK | {"epochs": 30})
        increment = client.start_increment("filling", write_zip(tmp_path / "1.zip", ["anise", "basil"]))["id"]
        wait_for(lambda: training(client, increment))
        with full(disk, left=0):
            time.sleep(5)  # nothing can be written, so nothing can be looked for
        done = client.wait(increment)
        assert (done["status"], done["version"]) == ("succeeded", 1)
        assert client.predict("filling", unseen("anise", 2))["version"] == 1
