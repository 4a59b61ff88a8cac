"""Wishes for files of versions: each is made by one process at a time, and given up if it ends every process."""

import pytest

from storage.domain import Version
from storage.history import exports, models, versions
from tests.storage.worlds import World, together

FILE = "network.pt2"
ATTEMPTS = 3


@pytest.fixture
def version(world: World) -> Version:
    published = world.learn(world.create(), "a", "b")
    return published.version


def begin(world: World, version: Version, *, lease_seconds: float = 60.0) -> bool:
    asked = world.read(exports.find, version, FILE)
    return world.write(exports.begin, asked, lease_seconds=lease_seconds, most_attempts=ATTEMPTS)


def test_asking_again_changes_nothing(world: World, version: Version):
    asked = world.write(exports.request, version, FILE)
    assert world.write(exports.request, version, FILE) == asked
    assert world.read(exports.waiting) == [asked]
    assert world.read(exports.find, version, "another") is None


def test_of_many_processes_one_makes_it(world: World, version: Version):
    world.write(exports.request, version, FILE)
    assert sum(together(*(lambda: begin(world, version) for _ in range(4)))) == 1
    assert world.read(exports.waiting) == []


def test_after_a_killed_process_the_next_takes_it_up(world: World, version: Version):
    world.write(exports.request, version, FILE)
    assert begin(world, version, lease_seconds=-1)
    assert begin(world, version)


def test_what_ends_every_process_is_given_up(world: World, version: Version):
    world.write(exports.request, version, FILE)
    assert [begin(world, version, lease_seconds=-1) for _ in range(ATTEMPTS + 2)] == [True] * ATTEMPTS + [False] * 2
    found = world.read(exports.find, version, FILE)
    assert found is not None
    assert f"{ATTEMPTS} times" in (found.error or "")
    assert world.read(exports.waiting) == []


def test_a_lease_is_prolonged(world: World, version: Version):
    asked = world.write(exports.request, version, FILE)
    assert begin(world, version, lease_seconds=-1)
    world.write(exports.renew, asked, lease_seconds=60)
    assert not begin(world, version)


def test_what_was_made_or_cannot_be_made_waits_no_longer(world: World, version: Version):
    asked = world.write(exports.request, version, FILE)
    world.write(exports.succeed, asked, {"images": 3})
    world.write(exports.fail, asked, "too late")
    found = world.read(exports.find, version, FILE)
    assert found is not None
    assert (found.agreement, found.error) == ({"images": 3}, None)
    assert world.read(exports.waiting) == []


def test_with_its_version_a_wish_goes(world: World, version: Version):
    world.learn(world.model(), "c", "d")
    world.write(exports.request, version, FILE)
    world.write(versions.remove, world.write(models.lock, "plants"), version.number)
    assert world.read(exports.waiting) == []
