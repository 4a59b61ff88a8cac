"""A version that torch computes gains a graph while it is in memory."""

from pathlib import Path

import pytest

from storage.domain import StoredFile
from storage.history import models, versions
from tests.api.serving.test_precision import asked, of_white
from tests.api.worlds import Json, World, eventually, running
from trainer.networks import load_version
from trainer.networks.manifest import EXECUTABLE


def gain(world: World, name: str, number: int, folder: Path) -> None:
    """Add network.onnx to a version, as `accrete upgrade` does; its answers are told from those of torch."""
    with world.database.read() as connection:
        version = versions.get(connection, models.get(connection, name), number)
    folder.mkdir()
    for file_name, file in version.files.items():
        world.blobs.fetch(file.sha256, folder / file_name)
    loaded = load_version(folder)
    graph = of_white(loaded.network, loaded.transform)
    stored = StoredFile(world.blobs.put(graph), len(graph))
    world.blobs.sync()
    with world.database.write() as connection:
        assert versions.add_file(connection, version, EXECUTABLE, stored, exists=world.blobs.exists)


@pytest.mark.parametrize("number", [1, 2])  # the second one is in service
def test_its_graph_is_served_soon(settings_for, tmp_path, number):
    with running(settings_for(tmp_path, serving_devices="cpu")) as world:
        name = world.model()
        for labels in (["cat", "dog"], ["eel"]):
            world.publish(world.claim(world.increment(name, *labels)["id"]), labels, graph=None)

        def answer() -> Json:
            return asked(world, name, version=number)

        before = answer()
        assert before["version"] == number
        gain(world, name, number, tmp_path / "version")
        assert eventually(lambda: answer()["predictions"] != before["predictions"], seconds=30)
        assert answer()["version"] == number
