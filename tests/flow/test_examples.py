"""The examples, as their first lines say, against a running service."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import nbformat
import pytest
from nbclient import NotebookClient

from tests.flow.conftest import Service
from tests.patterns import picture

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).parents[2] / "examples"
LABELS = ("anise", "basil")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, and a file that is none."""
    made = tmp_path_factory.mktemp("images")
    for label in LABELS:
        (made / label).mkdir()
        for number in range(20):
            (made / label / f"{number}.png").write_bytes(picture(label, number))
    (made / "basil" / "broken.png").write_bytes(b"no image")
    return made


def run(service: Service, *command: str | Path) -> str:
    """What an example prints."""
    environment = os.environ | {"ACCRETE_URL": service.url}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def taught(service, folder):
    """A model that the shell example taught, and what it printed."""
    model = f"curl-{uuid4().hex[:8]}"
    return model, run(service, "sh", EXAMPLES / "curl.sh", folder, model, folder / "basil" / "3.png")


def test_curl_alone_teaches_and_predicts(taught):
    model, printed = taught
    assert "event: " in printed
    assert f'"model":"{model}","version":1' in printed.replace(" ", "")
    assert printed.rindex('"label":"basil"') > printed.index("== the version in service")


def test_digits_grow_two_classes_at_a_time(service):
    printed = run(service, sys.executable, EXAMPLES / "digits.py", f"digits-{uuid4().hex[:8]}")
    assert [line.partition(":")[0] for line in printed.splitlines()[:3]] == ["version 1", "version 2", "version 3"]
    assert "a 3 is taken for a" in printed


def test_a_folder_of_ones_own_is_taught(service, folder):
    model = f"own-{uuid4().hex[:8]}"
    printed = run(service, sys.executable, EXAMPLES / "own_folder.py", folder, model)
    assert "left out: basil/broken.png" in printed
    assert "version 1 is in service" in printed
    assert sorted(line.split()[0] for line in printed.splitlines()[-2:]) == sorted(LABELS)


def test_tritons_client_predicts(service, taught, folder):
    model, _ = taught
    images = [folder / "anise" / "1.png", folder / "basil" / "2.png"]
    printed = run(service, sys.executable, EXAMPLES / "triton_client.py", model, *images).splitlines()
    assert [line.split()[0] for line in printed] == ["1.png", "2.png"]
    assert [line.split()[1].rpartition(":")[2] for line in printed] == list(LABELS)


def test_the_asynchronous_client_sends_many_at_once(service, taught, folder):
    model, _ = taught
    printed = run(service, sys.executable, EXAMPLES / "load.py", model, folder / "anise" / "1.png", "200", "16")
    assert printed.startswith("200 answers, ")


def test_the_notebook_runs(service, monkeypatch, tmp_path):
    monkeypatch.setenv("ACCRETE_URL", service.url)
    notebook = nbformat.read(EXAMPLES / "versions.ipynb", as_version=4)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code"), "commit it without outputs"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert outputs[-1]["data"]["text/plain"] == "1"
