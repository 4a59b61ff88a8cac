"""The command line of `python -m trainer.experiments`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import losses
from storage.domain import Memory
from trainer.experiments import values
from trainer.experiments.data.datasets import Limits
from trainer.experiments.data.published import COLLECTIONS
from trainer.recipes import PRESETS

_DATA = Path("data")


@dataclass(frozen=True)
class Arguments:
    """One experiment."""

    data: tuple[str, ...]
    folder: Path
    limits: Limits
    image_size: int | None  # pixels; None: the data's own
    tasks: int
    first_task_classes: int | None
    class_order: int | None  # seed of a shuffle; None: as the data has them
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: dict[str, Any]
    network: str
    memory: Memory | None
    weights_folder: Path
    devices: tuple[str, ...]
    jobs: int | None  # runs at once; None: one for each device
    threads: int | None  # of each run; None: processors divided by jobs
    out: Path


def parse(words: Sequence[str] | None = None) -> Arguments:
    """Read the command line; ends the process with a message if it is wrong."""
    given = vars(_parser().parse_args(words))
    limits = Limits(given.pop("classes"), given.pop("images_per_class"))
    return Arguments(**given | {"data": tuple(given["data"])}, limits=limits)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.experiments",
        description="Learns a sequence of tasks with one or more strategies, as the service would, and compares them.",
        epilog="Started again with the same words it goes on where it was stopped (docs/experiments.md).",
    )
    for group in (_data, _tasks, _learning, _machine):
        group(parser.add_argument_group(group.__name__[1:]).add_argument)
    return parser


def _data(add: Callable[..., Any]) -> None:
    add(
        "--data",
        nargs="+",
        required=True,
        metavar="NAME|PATH",
        help=f"{', '.join(COLLECTIONS)}; or image trees (class/image, or train/ and test/ of such), zips of them, "
        "folders of zips",
    )
    add(
        "--folder",
        type=Path,
        default=_DATA / "collections",
        help="where the named collections are, or are downloaded to (%(default)s)",
    )
    add("--classes", type=values.count, metavar="N", help="only the first N classes of the data")
    add(
        "--images-per-class",
        type=values.count,
        metavar="N",
        help="train on the first N images of each class; all test images stay",
    )
    add(
        "--image-size",
        type=values.count,
        metavar="PIXELS",
        help="height and width (the data's own, or 32 where they differ)",
    )


def _tasks(add: Callable[..., Any]) -> None:
    add(
        "--tasks",
        type=values.count,
        required=True,
        metavar="N",
        help="how many; classes are divided evenly, archives stay together where they are as many",
    )
    add(
        "--first-task-classes",
        type=values.count,
        metavar="N",
        help="classes of the first task; the others share the rest",
    )
    add(
        "--class-order",
        type=values.order,
        default=None,
        metavar="given|SEED",
        help="as the data has them, or shuffled by a seed (given)",
    )


def _learning(add: Callable[..., Any]) -> None:
    add(
        "--strategies",
        type=values.strategies,
        required=True,
        metavar="A,B,…|all",
        help=f"of {', '.join(losses.names())}",
    )
    add(
        "--seeds",
        type=values.seeds,
        default=(0,),
        metavar="0,1,…",
        help="of weights, order, augmentation and exemplars (0)",
    )
    add(
        "--recipe",
        type=values.recipe,
        default={},
        metavar="PRESET|JSON",
        help=f'{", ".join(PRESETS)}, or an object such as \'{{"preset": "quick", "epochs": 4}}\' (recommended)',
    )
    add("--network", default="resnet32", help="resnet32, or a classifier of torchvision's (%(default)s)")
    add(
        "--memory",
        type=values.memory,
        default=None,
        metavar="N|total:N",
        help="exemplars of each class, or of all together (none)",
    )
    add(
        "--weights-folder",
        type=Path,
        default=_DATA / "weights",
        help="where files named by the recipe's initial_weights are (%(default)s)",
    )


def _machine(add: Callable[..., Any]) -> None:
    add(
        "--devices",
        "--device",
        type=values.devices,
        default=("auto",),
        metavar="auto|cpu|cuda:0,…",
        help="runs take them in turn; auto: every GPU, or the processor (auto)",
    )
    add("--jobs", type=values.count, metavar="N", help="runs at once (one for each device)")
    add("--threads", type=values.count, metavar="N", help="of each run (processors divided by jobs)")
    add(
        "--out",
        type=Path,
        default=_DATA / "experiments",
        metavar="FOLDER",
        help="for versions and results (%(default)s)",
    )
