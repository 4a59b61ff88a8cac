"""What a network is worth: every metric of it on held-out images, in the service and in experiments alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer import metrics
from trainer.data import ImageSet
from trainer.increment import Learned, head_rows, logits_of
from trainer.reporting import Report


def evaluate(
    learned: Learned,
    tests: ImageSet,
    *,
    ancestors: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    report: Report,
) -> dict[str, Any]:
    """The metrics document on the evaluation images of all tasks that still have some (docs/metrics.md).

    ``ancestors`` are the documents of the versions before it, ``labels`` in the order of the logits. Raises
    `LossNotFinite` for outputs that are not finite.
    """
    norms, biases = head_rows(learned.network)
    measurement = metrics.measure(
        logits=logits_of(learned, tests, report=report).numpy(),
        targets=tests.targets.numpy(),
        task_sizes=learned.network.task_sizes,
        weight_norms=norms,
        biases=biases,
    )
    return metrics.document(ancestors, measurement, labels=labels)
