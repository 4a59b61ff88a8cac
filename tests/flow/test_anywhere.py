"""The service where its authors never were: beside other people's modules, under odd paths, in others' environments."""

import sys
from pathlib import Path

import pytest

from api.client.client import Client
from tests.flow.conftest import Service
from tests.patterns import QUICK, SIZE, unseen, write_zip

pytestmark = pytest.mark.flow

OURS = ("api", "trainer", "losses", "storage", "accrete")
LIBRARIES = ("celery", "kombu", "redis", "torch", "numpy", "sqlalchemy", "PIL", "sitecustomize", "sklearn")
ODD_HOME = "50%2F #1? a;b 'q' é"
OF_OTHER_PROJECTS = {
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
    "BROKER_URL": "redis://127.0.0.1:1/0",
    "CELERY_LOADER": "nobody.knows:Loader",
    "DJANGO_SETTINGS_MODULE": "shop.settings",
    "APP": "shop",
    "LC_ALL": "C",
    "PYTHONIOENCODING": "ascii",
}


def write_hostile_modules(folder: Path) -> None:
    """Modules that end whoever imports them, named as ours, as libraries, and as all of the standard library."""
    for name in {*OURS, *LIBRARIES, *sys.stdlib_module_names}:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name} of the working directory was imported')\n")


def test_it_learns_and_predicts_beside_others_modules_under_an_odd_path_in_others_environment(tmp_path: Path) -> None:
    directory = tmp_path / "project"
    directory.mkdir()
    write_hostile_modules(directory)
    service = Service(tmp_path / ODD_HOME / "home", OF_OTHER_PROJECTS, directory=directory)
    service.start()
    try:
        with Client(service.url) as client:
            client.create_model("m", image_size=SIZE, recipe=QUICK)
            archive = write_zip(tmp_path / "batch.zip", ["anise", "basil"])
            client.wait(client.start_increment("m", archive)["id"])
            answer = client.predict("m", unseen("basil", 1))
        assert answer["predictions"][0][0]["label"] == "basil"
    finally:
        assert service.stop() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [ODD_HOME, "batch.zip", "project"]
    assert all(path.suffix == ".py" for path in directory.iterdir())
    assert (service.home / "accrete.db").stat().st_size > 0
