"""A training that was interrupted and taken up again comes to the weights of one that was not, to the last bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer.learning.test_training import SIZE, images_of
from trainer.learning.checkpoint import Checkpoint, read, write
from trainer.learning.compute import ComputeConfig
from trainer.learning.data import ImageSet
from trainer.learning.increment import Architecture, learn
from trainer.learning.learned import Learned
from trainer.recipes import resolve
from trainer.reporting import SilentReport


class Killed(Exception):
    """The process ends here."""


class Folder:
    """Checkpoints in a file, as another process would find them; ends the training after so many."""

    def __init__(self, file: Path, *, last: int | None = None) -> None:
        self.file = file
        self.last = last
        self.saved: list[int] = []

    def load(self) -> Checkpoint | None:
        return read(self.file) if self.file.exists() else None

    def save(self, checkpoint: Checkpoint) -> None:
        write(self.file, checkpoint)
        self.saved.append(checkpoint.epoch)
        if len(self.saved) == self.last:
            raise Killed


def learned(
    checkpoints: Folder | None = None,
    *,
    parent: Learned | None = None,
    exemplars: ImageSet | None = None,
    strategy: str = "lwf",
    name: str = "resnet32",
    size: int = SIZE,
    **recipe: Any,
) -> Learned:
    images = images_of(22, size=size)
    if parent is not None:
        images = ImageSet(images.pool, images.targets + sum(parent.network.task_sizes), images.ids)
    return learn(
        parent=parent,
        architecture=Architecture(name, size, 3),
        new_classes=2,
        images=images,
        exemplars=exemplars,
        strategy=strategy,
        recipe=resolve(strategy, {"epochs": 5, "minibatch": 8, "learning_rate": 0.02, "warmup_epochs": 1.0}, recipe),
        t=len(parent.network.task_sizes) if parent is not None else 0,
        weights_folder=Path(),
        device=torch.device("cpu"),
        report=SilentReport(),
        checkpoints=checkpoints,
    )


def weights(made: Learned) -> dict[str, Tensor]:
    return made.network.state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


def interrupted(file: Path, *epochs: int, **learning: Any) -> Learned:
    """Learned by one process after another, each but the last killed after so many epochs."""
    for last in epochs:
        torch.manual_seed(torch.initial_seed() + 1)  # nothing may come from what a process happens to have drawn before
        with pytest.raises(Killed):
            learned(Folder(file, last=last), **learning)
    return learned(Folder(file), **learning)


@pytest.mark.parametrize(
    "recipe",
    [
        {"schedule": "cosine"},
        {"schedule": "one-cycle"},
        {"schedule": "constant", "momentum": 0.0, "warmup_epochs": 3.0},
        {"schedule": "plateau", "patience": 1, "validation_share": 0.3, "epochs": 7},
        {"sampling": "class-balanced", "augmentation": "crop-flip", "gradient_clip": None},
        {"precision": "bfloat16"},
        {"epochs": 2, "least_steps": 14},
        {"precision": "float32", "label_smoothing": 0.1},
    ],
    ids=lambda recipe: "-".join(map(str, recipe.values())),
)
@pytest.mark.parametrize("killed_after", [(1,), (3,), (2, 1, 1)])
def test_a_resumed_training_gives_the_weights_of_an_undisturbed_one(tmp_path, recipe, killed_after):
    undisturbed = learned(**recipe)
    assert_same(weights(interrupted(tmp_path / "c", *killed_after, **recipe)), weights(undisturbed))


@pytest.mark.parametrize("strategy", ["lwf-bsr", "lwm-sr", "lucir-br2", "freeze", "joint"])
def test_so_does_an_increment_with_a_teacher_and_exemplars(tmp_path, strategy):
    first = learned(strategy="lucir" if strategy.startswith("lucir") else "lwf", size=16)
    old = images_of(8, size=16)
    options: dict[str, Any] = {"parent": first, "exemplars": old, "strategy": strategy, "size": 16}
    undisturbed = learned(**options)
    assert_same(weights(interrupted(tmp_path / "c", 2, 2, **options)), weights(undisturbed))


def test_so_does_a_network_with_dropout(tmp_path):
    options: dict[str, Any] = {"name": "mobilenet_v2", "size": 32, "epochs": 3}
    undisturbed = learned(**options)
    assert_same(weights(interrupted(tmp_path / "c", 1, **options)), weights(undisturbed))


def test_a_training_that_was_complete_is_not_gone_through_again(tmp_path):
    undisturbed = learned(Folder(tmp_path / "c"))
    again = Folder(tmp_path / "c")
    assert_same(weights(learned(again)), weights(undisturbed))
    assert again.saved == []


def test_one_that_had_come_to_a_halt_early_neither(tmp_path):
    recipe: dict[str, Any] = {
        "schedule": "plateau",
        "patience": 1,
        "validation_share": 0.3,
        "epochs": 50,
        "rate_divisor": 500.0,
    }
    watched = Folder(tmp_path / "c")
    undisturbed = learned(watched, **recipe)
    assert len(watched.saved) < 50
    again = Folder(tmp_path / "c")
    assert_same(weights(learned(again, **recipe)), weights(undisturbed))
    assert again.saved == []


def test_saving_checkpoints_does_not_change_the_training(tmp_path):
    watched = Folder(tmp_path / "c")
    assert_same(weights(learned(watched)), weights(learned()))
    assert watched.saved == [1, 2, 3, 4, 5]


def test_a_resumed_training_keeps_the_precision_and_threads_it_began_with(tmp_path):
    """Though this process would choose others: another machine, or another setting."""
    began = torch.get_num_threads()
    undisturbed = learned(precision="float32")
    with pytest.raises(Killed):
        learned(Folder(tmp_path / "c", last=2), precision="float32")
    torch.set_num_threads(began + 1)
    try:
        resumed = learned(Folder(tmp_path / "c"), precision="bfloat16")
        assert torch.get_num_threads() == began
    finally:
        torch.set_num_threads(began)
    assert resumed.execution == ComputeConfig(device="cpu", precision="float32", threads=began)
    assert_same(weights(resumed), weights(undisturbed))


def test_a_checkpoint_is_small_and_reads_as_it_was_written(tmp_path):
    watched = Folder(tmp_path / "c")
    made = learned(watched)
    size = sum(tensor.numel() * tensor.element_size() for tensor in weights(made).values())
    assert watched.file.stat().st_size < 2.2 * size  # weights and one buffer of momentum
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    checkpoint = watched.load()
    assert checkpoint is not None
    assert checkpoint.epoch == 5
    write(tmp_path / "again", checkpoint)
    assert (tmp_path / "again").read_bytes() == watched.file.read_bytes()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="weights is no checkpoint"):
        read(tmp_path / "weights")
