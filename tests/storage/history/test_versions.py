"""Versions: their line of ancestors, and which of them may go."""

from dataclasses import replace

import pytest

from storage.domain import Model, Promotion, StoredFile
from storage.errors import BlobMissing, VersionInUse, VersionNotFound
from storage.history import metrics, models, versions
from storage.material import references
from tests.storage.worlds import World, sha256, together


@pytest.fixture
def grown(world: World) -> Model:
    """Versions 1 – 2 – 3, and 4, which starts from 2."""
    model = world.create()
    for labels in ("ab", "cd", "ef"):
        world.learn(model, *labels)
    world.write(models.promote, model.name, version=2)
    world.learn(model, "g", "h", "i")
    return world.model()


def line(world: World, model: Model, number: int | None) -> list[int]:
    return [version.number for version in world.read(versions.lineage, model, number)]


def test_a_line_of_ancestors_begins_with_the_first_task(world: World, grown: Model):
    assert line(world, grown, 4) == [1, 2, 4]
    assert line(world, grown, 3) == [1, 2, 3]
    assert line(world, grown, 1) == [1]
    assert line(world, grown, None) == []


def test_metrics_come_in_the_order_of_the_line(world: World, grown: Model):
    ancestors = world.read(versions.lineage, grown, 4)
    documents = world.read(metrics.of_versions, ancestors)
    assert [document["tag"]["accuracy"] for document in documents] == [[1.0], [1.0] * 2, [1.0] * 3]
    assert world.read(metrics.of_versions, ancestors[::-1]) == documents[::-1]
    assert world.read(metrics.of_versions, ()) == ()


def test_a_deleted_ancestor_keeps_its_place_and_its_metrics(world: World, grown: Model):
    before = world.read(metrics.of_versions, world.read(versions.lineage, grown, 4))
    world.write(versions.remove, grown, 1)
    ancestors = world.read(versions.lineage, grown, 4)
    assert [(one.number, one.deleted_at is not None) for one in ancestors] == [(1, True), (2, False), (4, False)]
    assert world.read(metrics.of_versions, ancestors) == before
    assert [one.number for one in world.read(versions.page, grown, limit=9, cursor=None).items] == [2, 3, 4]


def test_a_version_that_never_was_is_said_by_number(world: World, grown: Model):
    for number in (0, -1, 5, 2**31, 2**70):
        for call in (versions.get, versions.remove):
            with pytest.raises(VersionNotFound, match=str(number)):
                world.write(call, grown, number)
        assert world.read(versions.find, grown.id, number) is None


def test_a_deleted_version_is_not_found_but_remembered(world: World, grown: Model):
    world.write(versions.remove, grown, 3)
    for call in (versions.get, versions.remove):
        with pytest.raises(VersionNotFound):
            world.write(call, grown, 3)
    remembered = world.read(versions.find, grown.id, 3)
    assert remembered is not None
    assert remembered.deleted_at is not None


def test_versions_of_another_model_are_not_found(world: World, grown: Model):
    with pytest.raises(VersionNotFound, match="'other'"):
        world.read(versions.get, world.create("other"), 1)


def test_versions_are_paged_in_the_order_of_their_numbers(world: World, grown: Model):
    first = world.read(versions.page, grown, limit=3, cursor=None)
    second = world.read(versions.page, grown, limit=3, cursor=first.next_cursor)
    assert [one.number for one in (*first.items, *second.items)] == [1, 2, 3, 4]
    assert second.next_cursor is None


def test_the_version_in_service_stays(world: World, grown: Model):
    with pytest.raises(VersionInUse, match="current"):
        world.write(versions.remove, grown, 4)
    assert world.read(versions.get, grown, 4).deleted_at is None


def test_the_head_stays(world: World, grown: Model):
    made = world.learn(grown, "x", "y", promote=Promotion.MANUAL).version
    with pytest.raises(VersionInUse, match="head"):
        world.write(versions.remove, world.model(), made.number)
    assert world.read(versions.get, grown, made.number).deleted_at is None


def test_what_an_increment_is_being_trained_from_stays(world: World, grown: Model):
    made = world.push(grown, "x", "y")
    claim = world.must_claim()
    world.write(models.promote, grown.name, version=2)
    with pytest.raises(VersionInUse, match=made.id):
        world.write(versions.remove, world.model(), 4)
    assert world.publish(claim, replace(world.outcome(claim), parent=4)) is not None
    world.write(versions.remove, world.model(), 4)


def test_a_deleted_version_is_not_the_previous_one_any_more(world: World, grown: Model):
    assert (grown.current, grown.previous) == (4, 2)
    world.write(versions.remove, grown, 3)
    assert world.model().previous == 2
    world.write(versions.remove, grown, 2)
    assert (world.model().current, world.model().previous) == (4, None)


def test_deleting_lets_go_of_the_files(world: World, grown: Model):
    files = {file.sha256 for file in world.read(versions.get, grown, 3).files.values()}
    assert world.read(references.unreferenced, files) == set()
    world.write(versions.remove, grown, 3)
    assert files <= world.released()
    assert world.read(references.unreferenced, files) == files


def test_a_file_that_another_version_shares_is_still_needed(world: World, grown: Model):
    world.push(grown, "x", "y")
    claim = world.must_claim()
    shared = world.read(versions.get, grown, 3).files["weights.safetensors"]
    outcome = world.outcome(claim)
    files = {**outcome.files, "weights.safetensors": shared}
    assert world.publish(claim, replace(outcome, files=files)) is not None
    world.write(versions.remove, world.model(), 3)
    assert shared.sha256 in world.released()
    assert len(world.read(references.unreferenced, world.released())) == len(world.released()) - 1
    assert shared.sha256 not in world.read(references.unreferenced, world.released())


def test_numbers_of_one_model_and_of_all(world: World, grown: Model):
    empty = world.create("an empty one")
    world.write(versions.remove, grown, 1)
    assert world.read(versions.numbers, world.model()) == [2, 3, 4]
    assert [world.read(versions.is_there, grown.id, number) for number in range(6)] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert world.read(versions.numbers, empty) == []
    everything = [(model.name, number) for model, number in world.read(versions.all_numbers)]
    assert everything == [("an empty one", None), *((grown.name, number) for number in (2, 3, 4))]


def stored(_digest: str) -> bool:
    return True


def test_a_file_is_added_to_a_version_that_has_none_of_that_name(world: World, grown: Model):
    assert [version.number for version in world.read(versions.without_file, "graph")] == [1, 2, 3, 4]
    assert world.read(versions.without_file, "version.json") == []
    second = world.read(versions.get, grown, 2)
    file = StoredFile(sha256("graph"), 5)
    assert world.write(versions.add_file, second, "graph", file, exists=stored)
    assert world.read(versions.get, grown, 2) == replace(second, files={**second.files, "graph": file})
    assert [version.number for version in world.read(versions.without_file, "graph")] == [1, 3, 4]
    assert world.read(references.unreferenced, {file.sha256}) == set()
    world.write(versions.remove, world.model(), 2)
    assert file.sha256 in world.released()
    assert file.sha256 in world.read(references.unreferenced, {file.sha256})


def test_a_file_that_is_there_already_is_not_replaced(world: World, grown: Model):
    second = world.read(versions.get, grown, 2)
    first, other = StoredFile(sha256("graph"), 5), StoredFile(sha256("another"), 7)
    assert world.write(versions.add_file, second, "graph", first, exists=stored)
    assert not world.write(versions.add_file, second, "graph", other, exists=stored)
    assert not world.write(versions.add_file, second, "graph", first, exists=stored)
    assert world.read(versions.get, grown, 2).files["graph"] == first
    released = {first.sha256, other.sha256} & world.released()
    assert released == {first.sha256, other.sha256}
    assert world.read(references.unreferenced, released) == {other.sha256}  # the only one that will be deleted


def test_nothing_is_added_to_a_version_that_was_deleted_meanwhile(world: World, grown: Model):
    third = world.read(versions.get, grown, 3)
    world.write(versions.remove, grown, 3)
    file = StoredFile(sha256("graph"), 5)
    assert not world.write(versions.add_file, third, "graph", file, exists=stored)
    found = world.read(versions.find, grown.id, 3)
    assert found is not None
    assert found.files == third.files
    assert file.sha256 in world.released()
    world.write(versions.remove, grown, 1)
    world.write(models.delete_model, grown.name)
    assert not world.write(versions.add_file, third, "graph", file, exists=stored)


def test_a_file_whose_blob_was_deleted_meanwhile_is_not_added(world: World, grown: Model):
    second = world.read(versions.get, grown, 2)
    with pytest.raises(BlobMissing, match="was deleted while graph was being stored"):
        world.write(versions.add_file, second, "graph", StoredFile(sha256("graph"), 5), exists=lambda _digest: False)
    assert world.read(versions.get, grown, 2) == second


def test_of_two_at_once_one_adds_the_file(world: World, grown: Model):
    second = world.read(versions.get, grown, 2)
    files = [StoredFile(sha256(f"graph {n}"), n) for n in range(2)]

    def add(file: StoredFile) -> bool:
        return world.write(versions.add_file, second, "graph", file, exists=stored)

    added = together(*(lambda file=file: add(file) for file in files))
    assert sorted(added) == [False, True]
    assert world.read(versions.get, grown, 2).files["graph"] == files[added.index(True)]
    wanted, unwanted = files[added.index(True)].sha256, files[added.index(False)].sha256
    assert unwanted in world.released()
    assert world.read(references.unreferenced, {wanted, unwanted}) == {unwanted}
