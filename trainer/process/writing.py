"""Writing a version's files: the network, its graphs, its manifest, and what it says of each evaluation image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.evaluations import FILE
from trainer.learning.data import ImageSet
from trainer.learning.learned import Learned
from trainer.networks import write_version
from trainer.networks.manifest import EXECUTABLE, INT8
from trainer.process.context import AttemptContext
from trainer.process.evaluations import evaluations_of
from trainer.process.executable import add_executable
from trainer.process.job import Job
from trainer.process.protocol import VERSION, Made
from trainer.process.quantised import add_int8
from trainer.process.verification import check_written


def write(
    job: Job,
    learned: Learned,
    made: Made,
    context: AttemptContext,
    *,
    measured: ImageSet,
    shown: ImageSet | None,
    execution: Any,
) -> None:
    """Write the version's files, and read them back; raises `Invalid` for a version that must not be published.

    ``measured`` are its evaluation images. ``shown`` are images that it learned from, to scale a graph in int8;
    ``execution`` says how it was trained.
    """
    folder = context.folder / VERSION
    folder.mkdir()
    manifest = {
        "model": job.model.name,
        "version": made.number,
        "parent": made.parent,
        "tasks": made.tasks,
        "data_digest": made.data_digest,
        "code_version": made.code_version,
        "execution": execution,
        "metrics": made.metrics,
        "increment": job.increment.id,
        "strategy": job.increment.strategy,
        "recipe": dict(job.increment.recipe),
    }
    if job.increment.edit is not None:
        manifest["edit"] = job.increment.edit.to_json()
    with context.report.opaque():
        executable = add_executable(folder, learned.network, learned.transform, measured)
        if (reason := executable.get("error")) is not None:
            context.report.note(f"no exporter can write {job.model.network}, so the version has no graph: {reason}")
        elif context.settings.int8 and shown is not None:
            executable["int8"] = add_int8(folder, shown, measured)
            if (why_not := executable["int8"]["reason"]) is not None:
                context.report.note(f"no {INT8} is offered: {why_not}")
        write_version(
            folder,
            learned.network,
            transform=learned.transform,
            manifest=manifest | {"executable": executable},
            files=[name for name in (EXECUTABLE, INT8) if (folder / name).exists()],
        )
        check_written(folder)


def write_evaluations(made: Made, measured: ImageSet, logits: NDArray[np.float64], context: AttemptContext) -> None:
    """Write what the version says of each evaluation image, by its logits [images, classes], beside its files.

    No reader of version.json has to know of it.
    """
    sizes = [len(task) for task in made.tasks]
    results = evaluations_of(logits, targets=measured.targets.numpy(), ids=measured.ids, task_sizes=sizes)
    (context.folder / VERSION / FILE).write_bytes(results.encoded())
