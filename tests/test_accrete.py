"""`import accrete`: the names a program needs, whatever else the program calls its own modules."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import accrete
import api.client.client
import api.client.connection
import trainer.networks
from tests.api.servers import ScriptedServer, answer, scripted_servers

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
import api, storage                      # the program's own
import accrete
assert "torch" not in sys.modules
with accrete.Client(sys.argv[1]) as client:
    assert client.model("m")["name"] == "m"
    try:
        client.model("n")
    except accrete.NotFound as problem:
        assert isinstance(problem, accrete.ClientError), type(problem)
    else:
        raise AssertionError("a 404 went unnoticed")
    batch = client.create_batch("m", __import__("pathlib").Path("images"))
try:
    accrete.load_version(__import__("pathlib").Path("nowhere"))
except FileNotFoundError:
    pass
assert "torch" in sys.modules
import trainer
from api import mine
import api.other
assert (api.NAME, storage.NAME, trainer.NAME, mine) == ("theirs",) * 4
print(accrete.__version__)
"""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Knows the model m and no other, and takes one batch."""
    missing = {"type": "/problems/model-not-found", "detail": "none"}
    with scripted_servers() as start:
        yield start(
            answer(200, {"name": "m"}), answer(404, missing, "application/problem+json"), answer(201, {"id": "1"})
        )


def run(program: str, *arguments: str, folder: Path) -> str:
    """What a program prints that lies in a folder, which is where it looks for modules first."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_program_keeps_its_own_packages_of_the_same_names(server: ScriptedServer, tmp_path: Path) -> None:
    for name in ("api/__init__.py", "storage.py", "trainer.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("NAME = mine = 'theirs'\n")
    (tmp_path / "api" / "other.py").touch()
    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.png").touch()
    assert run(PROGRAM, server.url, folder=tmp_path) == version("accrete")


def test_the_client_comes_without_torch_and_what_serves(tmp_path: Path) -> None:
    program = (
        "import accrete, sys; accrete.Client, accrete.AsyncClient, accrete.Event, accrete.succeeded\n"
        "print(sorted({'torch', 'fastapi', 'sqlalchemy', 'celery', 'pydantic', 'typer', 'numpy'} & set(sys.modules)))"
    )
    assert run(program, folder=tmp_path) == "[]"


def test_its_names_are_the_ones_of_the_client_and_of_the_networks() -> None:
    assert accrete.Client is api.client.client.Client
    assert accrete.load_version is trainer.networks.load_version
    for name in accrete.__all__:
        assert getattr(accrete, name).__name__ == name
    errors = [
        name
        for name, value in vars(api.client.connection).items()
        if isinstance(value, type) and issubclass(value, Exception) and not name.startswith("_")
    ]
    assert set(errors) <= set(accrete.__all__)
    assert set(accrete.__all__) <= set(dir(accrete))
    with pytest.raises(AttributeError, match="no attribute 'client'"):
        _ = accrete.client
