"""Commands for records of predictions and for versions that are no longer wanted."""

import pytest
from typer.testing import CliRunner

from api.commands.commandline import app
from tests.api.worlds import picture


@pytest.fixture
def run(world):
    """Run a command; its output, and whether it succeeded."""

    def accrete(*arguments, **options):
        done = CliRunner().invoke(app, [*arguments, "--url", str(world.http.base_url)], **options)
        return done.output, done.exit_code == 0

    return accrete


def test_predictions_are_listed_by_reference(world, run):
    name = world.model()
    world.version(name, "cat", "dog")
    assert run("predictions", name) == ("No predictions on record\n", True)
    path = f"/v1/models/{name}/predictions"
    for reference in ("belt 1", "belt 2"):
        world.http.post(path, params={"record": "durable", "reference": reference}, content=picture(1))
    listed, succeeded = run("predictions", name)
    assert succeeded
    assert listed.index("belt 2") < listed.index("belt 1")
    listed, _ = run("predictions", name, "--reference", "belt 1")
    assert "belt 2" not in listed
    assert "%" in listed
    assert "belt 1" not in run("predictions", name, "--limit", "1")[0]


def test_a_version_is_deleted_once_it_is_confirmed(world, run):
    name = world.model()
    world.version(name, "cat", "dog")
    world.version(name, "emu")
    assert not run("erase", "version", name, "1", input="n\n")[1]
    assert world.http.get(f"/v1/models/{name}/versions/1").status_code == 200
    assert run("erase", "version", name, "1", "--yes") == (f"deleted version 1 of {name}\n", True)
    assert world.http.get(f"/v1/models/{name}/versions/1").status_code == 404
    refused, succeeded = run("erase", "version", name, "2", "--yes")
    assert not succeeded
    assert "promote another one first" in refused


def test_a_class_is_renamed_and_listed(world, run):
    name = world.model()
    world.version(name, "cat", "dog")
    listed, succeeded = run("classes", "list", name)
    assert succeeded
    assert [line.split() for line in listed.splitlines()[2:]] == [["cat", "1", "3", "0"], ["dog", "1", "3", "0"]]
    assert run("classes", "rename", name, "dog", "wolf") == ("dog is called wolf from now on\n", True)
    assert "wolf" in run("classes", "list", name)[0]
    told, succeeded = run("classes", "rename", name, "dog", "fox")
    assert not succeeded
    assert "it was renamed 'wolf'" in told


def test_classes_are_dropped_and_merged_by_edits_that_are_queued(world, run):
    name = world.model()
    world.version(name, "cat", "dog", "emu", "fox")
    for command in (("drop", name, "emu"), ("merge", name, "cat", "dog", "--into", "pet")):
        told, succeeded = run("classes", *command, "--no-wait")
        assert succeeded
        assert told.startswith("queued: accrete watch ")
    edits = [one["edit"] for one in world.http.get(f"/v1/models/{name}/increments").json()["items"][:2]]
    assert edits == [{"drop": [], "merge": [{"labels": ["cat", "dog"], "into": "pet"}]}, {"drop": ["emu"], "merge": []}]
    told, succeeded = run("classes", "drop", name, "gnu", "--no-wait")
    assert not succeeded
    assert "there is no class 'gnu'" in told
