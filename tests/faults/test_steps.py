"""Killed at a named step of an increment, once each: exactly one version comes of it, the same as undisturbed.

The steps are the boundaries of the training process's stages and of the worker's publishing. The programs know
nothing of it: a ``sitecustomize`` in their path has them kill themselves at the step that a file names.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client.client import Client
from tests.flow.conftest import HASTY, Service
from tests.flow.test_worker import wait_for
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow
SAPPER = """
import os, signal, sys

def blow(step):
    order = os.environ["ACCRETE_TEST_FAULT"]
    try:
        with open(order) as file:
            wanted = file.read()
    except FileNotFoundError:
        return
    if wanted == step:
        os.unlink(order)
        os.kill(os.getpid(), signal.SIGKILL)

def before(module, name, step):
    original = getattr(module, name)
    def mined(*arguments, **options):
        blow(step)
        return original(*arguments, **options)
    setattr(module, name, mined)

if "trainer.process" in sys.orig_argv:  # the server that training processes are forked from
    from trainer.process import lines
    stage = lines.LineReport.stage
    def mined(self, name, *arguments, **options):
        blow(name)
        return stage(self, name, *arguments, **options)
    lines.LineReport.stage = mined
elif "trainer.workers" in sys.orig_argv:
    import trainer.workers.attempt
    before(trainer.workers.attempt, "_store", "before the files are stored")
    before(trainer.workers.attempt, "_publish_kept", "before the version is committed")
    before(trainer.workers.attempt, "dispose", "after the version is committed")
    before(trainer.workers.attempt, "Child", "after the claim")
"""
STEPS = (
    "after the claim",
    "ingesting",
    "loading",
    "training",
    "evaluating",
    "selecting",
    "writing",
    "before the files are stored",
    "before the version is committed",
    "after the version is committed",
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that kills itself where it is told to."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SAPPER)
    paths = os.pathsep.join(path for path in (str(folder), os.environ.get("PYTHONPATH", "")) if path)
    started = Service(
        tmp_path_factory.mktemp("home"), HASTY | {"PYTHONPATH": paths, "ACCRETE_TEST_FAULT": str(folder / "step")}
    )
    started.start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def trunk(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with one version, from which every test grows another branch of the same images."""
    with Client(service.url) as client:
        client.create_model("trunk", image_size=SIZE, recipe=QUICK | {"epochs": 3}, memory={"per_class": 4})
        archive = write_zip(tmp_path_factory.mktemp("trunk") / "1.zip", ["anise", "basil"], images=12)
        assert client.wait(client.start_increment("trunk", archive)["id"])["version"] == 1
    return "trunk"


def grown(service: Service, trunk: str, folder: Path, *, step: str | None) -> str:
    """Digest of the weights of a version on top of the first, whose increment is killed at the step."""
    order = Path(service.environment["ACCRETE_TEST_FAULT"])
    with Client(service.url) as client:
        client.promote(trunk, 1)
        before = len(list(client.versions(trunk)))
        if step is not None:
            order.write_text(step)
        second = write_zip(folder / "2.zip", ["chive", "dill"], images=12)
        increment = client.start_increment(trunk, second)["id"]
        done = client.wait(increment)
        assert done["version"] == before + 1
        # It was found, and carried out; the last step comes after the version is there.
        assert wait_for(lambda: not order.exists(), seconds=30)
        outcomes = [attempt["outcome"] for attempt in done["attempts"]]
        survived = step in {None, "after the version is committed"}  # the increment had ended when its worker did
        assert outcomes == (["succeeded"] if survived else ["crashed", "succeeded"])
        picture = unseen("chive", 1)  # the API notices the promotion within a second
        wait_for(lambda: client.predict(trunk, picture)["version"] == before + 1)
        assert [version["version"] for version in client.versions(trunk)] == list(range(1, before + 2))
        wait_for(lambda: not list((service.home / "scratch").glob(f"{increment}-*")))
        return client.version(trunk, before + 1)["files"]["weights.safetensors"]["sha256"]


@pytest.fixture(scope="module")
def undisturbed(service: Service, trunk: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What comes of it when nobody is killed."""
    return grown(service, trunk, tmp_path_factory.mktemp("undisturbed"), step=None)


@pytest.mark.parametrize("step", STEPS)
def test_one_version_comes_of_it_the_same_as_undisturbed(
    service: Service, trunk: str, undisturbed: str, step: str, tmp_path: Path
) -> None:
    assert grown(service, trunk, tmp_path, step=step) == undisturbed
