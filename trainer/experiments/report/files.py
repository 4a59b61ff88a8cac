"""The results of one setting as files for people: results.csv, results.md and the plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from storage.errors import Invalid
from trainer.experiments import results
from trainer.experiments.arguments import Arguments
from trainer.experiments.data.tasks import Task
from trainer.experiments.plan import Setting
from trainer.experiments.report import plots, tables
from trainer.experiments.results import Record


@dataclass(frozen=True)
class Report:
    """The report on all recorded runs of a setting, including those of earlier commands."""

    out: Path
    setting: Setting
    described: tuple[tuple[str, str], ...]  # what the runs have in common: name and value

    def write(self, shown: Sequence[str] = ()) -> None:
        """Write the CSV file and the table again; the table shows the plots of these names."""
        lines = self._lines()
        results.write_csv(self.out / "results.csv", lines)
        tables.write_table(self.out / "results.md", lines, described=self.described, plots=shown)

    def draw(self) -> None:
        """Draw the plots, and write the table with them; raises ImportError if matplotlib is missing."""
        self.write(plots.draw(self.out, self._lines()))

    def _lines(self) -> list[Record]:
        @cache
        def digest(strategy: str, seed: int) -> str | None:
            try:
                return self.setting.run(strategy, seed).digest
            except Invalid:  # the recipe is not one for this strategy
                return None

        found = results.read(self.out / results.RESULTS)
        return [line for line in found if line["run"] == digest(line["strategy"], line["seed"])]


def setting_in_words(asked: Arguments, setting: Setting, tasks: Sequence[Task]) -> tuple[tuple[str, str], ...]:
    """The setting in words: pairs of name and value."""
    memory = asked.memory
    return (
        ("data", _named(asked.data)),
        ("tasks", f"{len(tasks)}, with {', '.join(str(len(task.labels)) for task in tasks)} classes"),
        ("training images", ", ".join(str(len(task.train)) for task in tasks)),
        ("images", f"{setting.image_size} × {setting.image_size}, {setting.channels} channels"),
        ("network", setting.network),
        ("recipe", ", ".join(f"{name} {value}" for name, value in asked.recipe.items()) or "recommended"),
        (
            "exemplars",
            "none"
            if memory is None
            else f"{memory.per_class} a class"
            if memory.per_class
            else f"{memory.total} in all",
        ),
    )


def _named(sources: Sequence[str]) -> str:
    """The sources; if several have one folder in common, that folder and their names."""
    if len({Path(source).parent for source in sources}) > 1 or len(sources) == 1:
        return " ".join(sources)
    return f"{Path(sources[0]).parent}: {', '.join(Path(source).name for source in sources)}"
