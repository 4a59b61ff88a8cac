"""A backup of the running service, restored elsewhere, predicts and learns on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.client.client import Client
from api.client.documents import Ranked
from tests.flow.conftest import Grower, Service
from tests.patterns import unseen, write_zip

pytestmark = pytest.mark.flow


def accrete(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command beside the service of a home folder, or without one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    return subprocess.run(
        [sys.executable, "-m", "api.commands.commandline", *arguments],
        env=inherited | {"ACCRETE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def said(predictions: list[list[Ranked]]) -> dict[tuple[int, str], float]:
    """Probability of each label of each picture."""
    return {
        (number, ranked["label"]): ranked["probability"] for number, one in enumerate(predictions) for ranked in one
    }


def test_a_restored_service_predicts_the_same_and_learns_on(
    service: Service, client: Client, grower: Grower, tmp_path: Path
) -> None:
    grower.learn("anise", "basil")
    file, home = tmp_path / "backup.tar", tmp_path / "elsewhere"
    written = accrete(service.home, "backup", str(file))
    assert (written.returncode, written.stderr) == (0, "")
    assert "exists already" in accrete(service.home, "backup", str(file)).stderr
    restored = accrete(home, "restore", str(file))
    assert (restored.returncode, restored.stderr) == (0, "")
    assert "empty one" in accrete(home, "restore", str(file)).stderr
    pictures = [*unseen("anise", 3), *unseen("basil", 3)]
    elsewhere = Service(home)
    elsewhere.start()
    try:
        with Client(elsewhere.url) as other:
            assert other.metrics(grower.name) == client.metrics(grower.name)
            here, there = (said(one.predict(grower.name, pictures)["predictions"]) for one in (client, other))
            assert there == pytest.approx(here, abs=1e-5)  # each chose how it computes, by measurement
            archive = write_zip(tmp_path / "more.zip", ["chive", "dill"])
            assert other.wait(other.start_increment(grower.name, archive)["id"])["version"] == 2
    finally:
        assert elsewhere.stop() == 0
