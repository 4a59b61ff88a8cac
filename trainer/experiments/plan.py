"""The runs of an experiment, and the digest that identifies a run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import losses
import trainer
from storage.domain import ClassCount, KnownClasses, Memory
from storage.errors import Invalid, UnknownNetwork
from storage.work.admission import check_classes
from trainer import networks, recipes
from trainer.experiments.data import tasks as sequence
from trainer.experiments.data.tasks import Task
from trainer.learning.increment import PROCEDURE
from trainer.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """One strategy with one seed over all tasks."""

    strategy: str
    recipe: Recipe
    network: str
    memory: Memory | None
    data_digest: str
    digest: str  # over everything that affects the outcome

    @property
    def seed(self) -> int:
        """Seed of all its random numbers."""
        return self.recipe.seed

    @property
    def name(self) -> str:
        """A name for people, and for its folder."""
        return f"{self.strategy}-seed{self.seed}-{self.digest[:12]}"


@dataclass(frozen=True)
class Setting:
    """What the runs of an experiment have in common; they differ only in strategy and seed."""

    network: str
    memory: Memory | None
    recipe: Mapping[str, Any]  # what was asked for, on top of each strategy's own values
    initial_weights: str | None  # SHA-256 of the file that the recipe names
    image_size: int  # pixels
    channels: int  # 1 or 3
    data_digest: str

    def run(self, strategy: str, seed: int) -> Run:
        """The run of a strategy with a seed; raises `UnknownStrategy` and `RecipeInvalid`."""
        recipe = recipes.resolve(strategy, self.recipe, {"seed": seed})
        return Run(strategy, recipe, self.network, self.memory, self.data_digest, self._digest(strategy, recipe))

    def _digest(self, strategy: str, recipe: Recipe) -> str:
        """SHA-256 of what affects the outcome; of a preset that is its values, not its name."""
        identity = {
            "data": self.data_digest,
            "network": self.network,
            "memory": None if self.memory is None else asdict(self.memory),
            "strategy": strategy,
            "recipe": recipe.model_dump(exclude={"preset"}),
            "initial_weights": self.initial_weights,
            "releases": releases(),
            "procedure": PROCEDURE,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def describe(
    tasks: Sequence[Task], *, network: str, memory: Memory | None, recipe: Mapping[str, Any], weights_folder: Path
) -> Setting:
    """The setting of an experiment on these tasks; raises `Invalid`."""
    if "seed" in recipe:
        raise Invalid("--recipe has a seed: seeds are given by --seeds")
    weights = None
    if isinstance(name := recipe.get("initial_weights"), str):
        try:
            weights = hashlib.sha256((weights_folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise Invalid(f"initial_weights {name!r} cannot be read from --weights-folder: {error}") from error
    channels, size, _width = tasks[0].train.shape
    return Setting(network, memory, recipe, weights, size, channels, sequence.digest(tasks))


def runs(setting: Setting, tasks: Sequence[Task], *, strategies: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Every run, seed by seed, so that all strategies can be compared early.

    Everything is checked before the first run begins: raises `UnknownStrategy`, `UnknownNetwork`, `RecipeInvalid`,
    `StrategyUnfit` and `Invalid`.
    """
    planned = [setting.run(strategy, seed) for seed in seeds for strategy in strategies]
    try:
        networks.check(setting.network, channels=setting.channels, image_size=setting.image_size)
    except ValueError as error:
        raise UnknownNetwork(str(error)) from error
    for run in planned:
        recipes.check_fit(
            run.strategy,
            run.recipe,
            network=setting.network,
            channels=setting.channels,
            image_size=setting.image_size,
            head_kind=None,
        )
        _check_tasks(tasks, setting.memory, rehearses_all=recipes.known(run.strategy).every_image)
    return planned


def _check_tasks(tasks: Sequence[Task], memory: Memory | None, *, rehearses_all: bool) -> None:
    """Check every task by the rules of the service for a batch."""
    known: list[str] = []
    for task in tasks:
        classes = len(known) + len(task.labels)
        train, test = (side.targets.bincount(minlength=classes) for side in (task.train, task.test))
        counts = [
            ClassCount(label, train=int(train[target]), test=int(test[target]))
            for target, label in enumerate(task.labels, start=len(known))
        ]
        remembers = bool(known) and (rehearses_all or (memory is not None and memory.share(len(known)) > 0))
        check_classes(batch=counts, known=known, policy=KnownClasses.REFUSE, has_memory=remembers)
        known += task.labels


def releases() -> dict[str, str]:
    """Release numbers of accrete and torch."""
    try:
        accrete = version("accrete")
    except PackageNotFoundError:  # run from a folder of sources
        accrete = "not installed"
    return {"accrete": accrete, "torch": str(torch.__version__)}


@cache
def code_version() -> str:
    """Releases, and a digest of the sources that train and measure, as they were at the first call.

    It is kept with the results, but is not part of a run's identity: a changed comment must not invalidate a long run.
    """
    state = hashlib.sha256()
    for package in (losses, trainer):
        folder = Path(str(package.__file__)).parent
        for file in sorted(folder.rglob("*.py")):
            if "experiments" not in file.relative_to(folder).parts:
                state.update(f"{package.__name__}/{file.relative_to(folder).as_posix()}\0".encode() + file.read_bytes())
    named = ", ".join(f"{name} {number}" for name, number in releases().items())
    return f"{named}, sources {state.hexdigest()[:12]}"
