"""What an increment learns from and is measured on: which stored images come into it, and which never do."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from sqlalchemy import delete

from storage.blobs.opening import open_blobs
from storage.blobs.store import BlobStore
from storage.database.engine import Database
from storage.database.tables import images
from storage.domain import Image, KnownClasses, Memory, Model, Split, StoredFile, new_id
from storage.errors import BatchInvalid, NothingToLearn
from storage.history import models
from storage.material import batches, browsing
from storage.material import images as stored_images
from storage.material.browsing import Filter
from storage.settings import Settings
from storage.work import relabelling
from storage.work.leases import Claim
from tests.conftest import copy_sqlite
from tests.patterns import picture
from tests.storage.worlds import World, statements
from trainer.evaluation.evaluate import evaluate
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned
from trainer.networks import EvaluationTransform, build, write_version
from trainer.process.context import AttemptContext
from trainer.process.job import read_job
from trainer.process.lines import LineReport
from trainer.process.material import Material, gather
from trainer.recipes import resolve
from trainer.reporting import SilentReport

SIZE = 32  # of the models that `World.create` makes
Files = Mapping[str, Iterable[int]]  # numbers of a class's pictures


@dataclasses.dataclass
class Story:
    """A model in a real database with real pictures, taught without training."""

    world: World
    blobs: BlobStore
    settings: Settings
    folder: Path
    model: Model
    claim: Claim | None = None  # of the increment gathered last

    def memory(self, memory: Memory | None) -> None:
        self.world.write(models.change, self.model.name, {"memory": dataclasses.asdict(memory) if memory else None})

    def push(self, train: Files, test: Files, *, strategy: str = "lwf") -> str:
        """A queued increment whose batch is ingested; its id."""
        pushed = self.world.push(self.model, *train, strategy=strategy, known_classes=KnownClasses.REHEARSE)
        stored = [
            Image(new_id(), pushed.batch, label, f"{number}.png", self.blobs.put(picture(label, number)), 9, split)
            for split, files in ((Split.TRAIN, train), (Split.TEST, test))
            for label, numbers in files.items()
            for number in numbers
        ]
        self.world.write(batches.record_ingestion, pushed.batch, ingested=stored, rejects=(), digest="0" * 64)
        return pushed.id

    def learn(self, train: Files, test: Files, *, kept: int = 0) -> None:
        """The same up to a version of an untrained network, with exemplars of the batch."""
        self.push(train, test)
        claim = self.world.must_claim()
        outcome = self.world.outcome(claim)
        network = build("resnet32", channels=3, image_size=SIZE, task_sizes=[len(task) for task in outcome.tasks])
        transform = EvaluationTransform(SIZE, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        folder = self.folder / new_id()
        folder.mkdir()
        write_version(folder, network, transform=transform, manifest={"tasks": outcome.tasks})
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        files = {name: StoredFile(self.blobs.put_file(folder / name), size) for name, size in sizes.items()}
        batch_id = self.world.look(claim.increment_id).batch
        stored = self.world.read(stored_images.of_batch, batch_id, split=Split.TRAIN)
        chosen = {label: [image.id for image in stored if image.label == label][:kept] for label in train}
        assert self.world.publish(claim, dataclasses.replace(outcome, files=files, exemplars=chosen)) is not None

    def gather(self, train: Files, test: Files, *, strategy: str = "lwf", device: str = "cpu") -> Material:
        """What an attempt at one more increment would work with."""
        self.push(train, test, strategy=strategy)
        self.claim = self.world.must_claim()
        job = self.world.read(read_job, self.claim)
        scratch = self.folder / new_id()
        scratch.mkdir()
        with (scratch / "lines").open("w") as lines:
            context = AttemptContext(self.world.database, self.blobs, self.settings, scratch, LineReport(lines))
            return gather(job, resolve(strategy), context, device=torch.device(device))


@pytest.fixture
def story(database_url: str, tmp_path: Path) -> Iterator[Story]:
    """A model that keeps two exemplars a class and knows a (anise) and b (basil), taught on six pictures of each."""
    settings = Settings(home=tmp_path)
    world = World(Database(database_url))
    model = world.create(memory=Memory(per_class=2))
    told = Story(world, open_blobs(settings.blobs), settings, tmp_path, model)
    told.learn({"anise": range(6), "basil": range(6)}, {"anise": [100, 101], "basil": [100, 101]}, kept=2)
    yield told
    world.database.close()


def shown(images: ImageSet | None, story: Story) -> Counter[tuple[str, str]]:
    """Label and file name of each image of a set."""
    if images is None:
        return Counter()
    found = story.world.read(stored_images.by_ids, images.ids)
    assert len(found) == len(images)
    return Counter((image.label, image.filename) for image in found)


def pictures(label: str, *numbers: int) -> Counter[tuple[str, str]]:
    return Counter((label, f"{number}.png") for number in numbers)


NEW: dict[str, Files] = {"train": {"chive": range(4), "dill": range(4)}, "test": {"chive": [100], "dill": [100]}}


def test_new_images_are_learned_beside_the_exemplars_and_every_task_is_measured_on_its_own(story):
    material = story.gather(**NEW)
    assert material.tasks == (("anise", "basil"), ("chive", "dill"))
    assert shown(material.train, story) == pictures("chive", *range(4)) + pictures("dill", *range(4))
    assert len(material.rehearsed or ()) == len(material.kept or ()) == 4
    assert [shown(task, story) for task in material.tests] == [
        pictures("anise", 100, 101) + pictures("basil", 100, 101),
        pictures("chive", 100) + pictures("dill", 100),
    ]
    assert material.parent is not None
    assert sorted(material.rehearsed.targets.tolist()) == [0, 0, 1, 1]
    assert sorted(material.train.targets.tolist()) == [2] * 4 + [3] * 4


def test_what_is_measured_on_is_never_learned_from_whatever_batch_brings_it_again(story):
    again: Files = {"chive": range(4), "dill": [0, 1, 100], "anise": [7, 100]}  # all called training images
    for strategy in ("lwf", "joint"):
        material = story.gather(again, {"chive": [100], "dill": [100], "basil": [0]}, strategy=strategy)
        learned = shown(material.train, story) + shown(material.rehearsed, story)
        for held in (("anise", "100.png"), ("dill", "100.png")):
            assert held not in learned
        assert ("anise", "7.png") in learned
        assert shown(material.tests[0], story) == pictures("anise", 100, 101) + pictures("basil", 100, 101)
        story.world.end(story.claim)


def test_joint_training_learns_every_training_image_once(story):
    material = story.gather({**NEW["train"], "anise": [0, 50]}, NEW["test"], strategy="joint")
    assert shown(material.train, story) + shown(material.rehearsed, story) == sum(
        (
            pictures("anise", *range(6), 50),
            pictures("basil", *range(6)),
            pictures("chive", *range(4)),
            pictures("dill", *range(4)),
        ),
        Counter(),
    )
    assert len(material.kept or ()) == 4  # 0.png of anise comes with the batch now; its place is taken by another


def test_joint_training_on_what_retention_left_is_refused_with_the_numbers(story):
    with story.world.database.write() as connection:
        gone = connection.execute(delete(images).where(images.c.label == "basil").where(images.c.filename == "3.png"))
    assert gone.rowcount == 1
    with pytest.raises(BatchInvalid, match=r"not all are left \(basil 5 of 6\)"):
        story.gather(**NEW, strategy="joint")
    story.world.end(story.claim)
    assert len(story.gather(**NEW).rehearsed or ()) == 4  # another strategy goes on


def test_a_larger_memory_is_filled_from_the_images_that_are_stored(story):
    story.memory(Memory(per_class=4))
    material = story.gather(**NEW)
    assert Counter(material.kept.targets.tolist()) == {0: 4, 1: 4}
    assert set(shown(material.kept, story)) <= set(pictures("anise", *range(6)) + pictures("basil", *range(6)))
    of_anise = material.kept.select((material.kept.targets == 0).nonzero().flatten())
    first = story.world.read(stored_images.by_ids, of_anise.ids[:2])
    assert {image.filename for image in first} == {"0.png", "1.png"}  # what the parent kept stays most wanted
    assert material.rehearsed is material.kept


def test_without_a_memory_nothing_is_rehearsed(story):
    story.memory(None)
    material = story.gather(**NEW)
    assert material.kept is None
    assert material.rehearsed is None


def test_a_single_class_needs_an_image_of_an_old_one_beside_it(story):
    alone: dict[str, Files] = {"train": {"chive": range(4)}, "test": {"chive": [100]}}
    assert len(story.gather(**alone).rehearsed or ()) == 4
    story.world.end(story.claim)
    with story.world.database.write() as connection:
        connection.execute(delete(images).where(images.c.label.in_(["anise", "basil"])))
    with pytest.raises(NothingToLearn, match="'chive' alone cannot be learned"):
        story.gather(**alone)


def test_images_of_known_classes_alone_are_learned_beside_the_exemplars_of_all(story):
    more: dict[str, Files] = {"train": {"basil": [7, 8, 9]}, "test": {"basil": [107]}}
    material = story.gather(**more)
    assert (material.tasks, material.new_classes) == ((("anise", "basil"),), 0)
    assert shown(material.train, story) == pictures("basil", 7, 8, 9)
    assert sorted(material.rehearsed.targets.tolist()) == [0, 0, 1, 1]
    # Measured on what its first increment brought.
    assert [shown(task, story) for task in material.tests] == [
        pictures("anise", 100, 101) + pictures("basil", 100, 101)
    ]
    story.world.end(story.claim)
    story.memory(None)
    every = story.gather(**more, strategy="joint")
    assert shown(every.rehearsed, story) == pictures("anise", *range(6)) + pictures("basil", *range(6))


def test_after_a_version_without_a_new_class_each_task_is_measured_on_its_own_images(story):
    story.learn({"basil": [7, 8, 9]}, {"basil": [107]}, kept=2)
    material = story.gather(**NEW)
    assert material.tasks == (("anise", "basil"), ("chive", "dill"))
    assert [shown(task, story) for task in material.tests] == [
        pictures("anise", 100, 101) + pictures("basil", 100, 101),
        pictures("chive", 100) + pictures("dill", 100),
    ]
    story.world.end(story.claim)
    every = story.gather(**NEW, strategy="joint")  # what that version brought is among all there is
    assert shown(every.rehearsed, story) == pictures("anise", *range(6)) + pictures("basil", *range(10)) - pictures(
        "basil", 6
    )


def test_a_job_is_read_in_as_many_statements_however_long_its_line_is(tmp_path, migrated_sqlite):
    copy_sqlite(migrated_sqlite, tmp_path / "accrete.db")
    world = World(Database(f"sqlite:///{tmp_path / 'accrete.db'}"))
    model, lengths = world.create(), []
    for labels in ("ab", "cd", "ef", "gh"):
        pushed = world.push(model, *labels)
        claim = world.must_claim()
        with statements() as sent:
            job = world.read(read_job, claim)
        lengths.append(len(sent))
        batches_of_line = [world.look(version.increment_id).batch for version in job.line]
        assert [batch.id for batch in job.old_batches] == batches_of_line
        world.ingest(pushed.batch)
        assert world.publish(claim, world.outcome(claim)) is not None
    world.database.close()
    assert len(set(lengths[1:])) == 1


def test_known_classes_alone_need_an_image_of_each_class_when_the_attempt_begins(story):
    """They were there when it was asked for."""
    story.push({"basil": [7, 8, 9]}, {"basil": [107]})
    claim = story.world.must_claim()
    story.world.read(read_job, claim).check_classes()
    with story.world.database.write() as connection:
        connection.execute(delete(images).where(images.c.label == "anise").where(images.c.split == Split.TRAIN))
    with pytest.raises(NothingToLearn, match="of 'anise' there is no image to learn from"):
        story.world.read(read_job, claim).check_classes()


def test_known_classes_alone_do_without_an_image_that_is_measured_on(story):
    """Nothing else is left of anise, so nothing of it would be shown."""
    with story.world.database.write() as connection:
        connection.execute(delete(images).where(images.c.label == "anise").where(images.c.split == Split.TRAIN))
    with pytest.raises(NothingToLearn, match="of 'anise' there is no image to learn from"):
        story.gather({"anise": [100], "basil": [7, 8]}, {"anise": [101], "basil": [107]})


def test_known_classes_alone_whose_images_are_all_measured_on_are_refused(story):
    with pytest.raises(BatchInvalid, match="No training image of the batch is left"):
        story.gather({"basil": [100, 101]}, {"basil": [107]})


def test_a_class_whose_training_images_are_all_measured_on_is_named(story):
    with pytest.raises(BatchInvalid, match="No training image is left of dill"):
        story.gather({"chive": range(4), "dill": [100]}, {"chive": [100], "dill": [100]})


def test_a_version_none_of_whose_evaluation_images_is_left_has_figures_that_are_null(story):
    """All were erased, or retention did not keep them: nothing was measured, and nothing is made up."""
    with story.world.database.write() as connection:
        connection.execute(delete(images).where(images.c.split == Split.TEST))
    material = story.gather({"chive": [1, 2], "dill": [1, 2]}, {})
    assert material.tests == (None, None)
    assert len(material.measured) == 0
    network = build("resnet32", channels=3, image_size=SIZE, task_sizes=[2, 2])
    learned = Learned(network, EvaluationTransform(SIZE, 3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)))
    ancestor = {form: {"accuracy": [0.5]} for form in ("tag", "taw")}
    labels = ["anise", "basil", "chive", "dill"]
    found = evaluate(learned, material.measured, ancestors=[ancestor], labels=labels, report=SilentReport()).document
    assert found["test_images"] == [None, None]
    for form in ("tag", "taw"):
        assert found[form]["accuracy"] == [None, None]
        for figure in ("average_accuracy", "micro_accuracy", "forgetting", "calibration_error", "triangle_accuracy"):
            assert found[form][figure] is None
        assert {value for entry in found[form]["per_class"].values() for value in entry.values()} == {0, None}
        assert found[form]["confusion"] == []
    json.dumps(found, allow_nan=False)


def test_what_is_left_of_the_evaluation_images_is_measured(story):
    with story.world.database.write() as connection:
        connection.execute(delete(images).where(images.c.split == Split.TEST))
    material = story.gather({"chive": [1, 2], "dill": [1, 2]}, {"chive": [9], "dill": [8, 9]})
    assert shown(material.measured, story) == pictures("chive", 9) + pictures("dill", 8, 9)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_parent_is_loaded_onto_the_device_that_trains(story, device: str):
    material = story.gather(**NEW, device=device)
    assert material.parent is not None
    assert {parameter.device.type for parameter in material.parent.network.parameters()} == {device}
    assert {buffer.device.type for buffer in material.parent.network.buffers()} == {device}


def test_an_evaluation_image_that_was_moved_is_one_of_its_new_class_from_the_next_increment_on(story):
    story.learn({"chive": range(6), "dill": range(6)}, {"chive": [100, 101], "dill": [100, 101]})
    found = story.world.read(
        browsing.of_model, story.model, Filter(labels=frozenset(["chive"]), split=Split.TEST), limit=9, cursor=None
    )
    wrong = next(image for image in found.items if image.filename == "100.png")
    story.world.write(relabelling.relabel, story.model, wrong.id, "basil", key_name="me")
    material = story.gather({"fennel": range(6), "ginger": range(6)}, {"fennel": [100], "ginger": [100]})
    first, second, _ = material.tests
    assert shown(first, story) == pictures("anise", 100, 101) + pictures("basil", 100, 101) + pictures("basil", 100)
    assert shown(second, story) == pictures("chive", 101) + pictures("dill", 100, 101)


def test_a_moved_image_is_no_evaluation_image_of_a_class_of_which_none_are_left(story):
    story.learn({"chive": range(6), "dill": range(6)}, {"chive": [100, 101], "dill": [100, 101]})
    for label in ("anise", "basil"):
        left = story.world.read(
            browsing.of_model, story.model, Filter(labels=frozenset([label]), split=Split.TEST), limit=9, cursor=None
        )
        story.world.write(stored_images.forget, [image.id for image in left.items])
    found = story.world.read(
        browsing.of_model, story.model, Filter(labels=frozenset(["chive"]), split=Split.TEST), limit=9, cursor=None
    )
    story.world.write(relabelling.relabel, story.model, found.items[0].id, "basil", key_name="me")
    material = story.gather({"fennel": range(6), "ginger": range(6)}, {"fennel": [100], "ginger": [100]})
    assert material.tests[0] is None
