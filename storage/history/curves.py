"""The accuracy matrix and every curve of a line of versions, gathered from their stored metrics."""

from collections.abc import Sequence
from typing import Any

from storage.domain import Json

FORMS = ("tag", "taw")  # task-agnostic (argmax over all classes) and task-aware (within the true task)
CURVES = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")


def curves(documents: Sequence[Json]) -> dict[str, Any]:
    """``{"tag": {"matrix": …, …}, "taw": {…}}`` from the metrics of versions t = 0, 1, …, oldest first.

    Row t of the matrix holds the accuracy a[t, u], in 0 … 1, for every task u that version t knows; null means that it
    was not measured. Each row is one longer than the row before, or as long if the version added no task. It is empty
    for a version before all the tasks that the last one has.
    """
    return {
        form: {
            "matrix": [list(document[form]["accuracy"]) for document in documents],
            **{curve: [document[form][curve] for document in documents] for curve in CURVES},
        }
        for form in FORMS
    }
