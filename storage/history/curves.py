"""The accuracy matrix and every curve of a line of versions, gathered from their stored metrics."""

from collections.abc import Sequence
from typing import Any

from storage.domain import Json

FORMS = ("tag", "taw")  # task-agnostic (argmax over all classes) and task-aware (within the true task)
CURVES = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")


def curves(documents: Sequence[Json]) -> dict[str, Any]:
    """``{"tag": {"matrix": …, …}, "taw": {…}}`` of the metrics of versions t = 0, 1, …, oldest first.

    Row t of the matrix is a[t, u] for the tasks u that version t knows, in 0 … 1; null is what was not measured. A row
    is longer than the one before by its version's task, or as long where that brought none.
    """
    return {
        form: {
            "matrix": [list(document[form]["accuracy"]) for document in documents],
            **{curve: [document[form][curve] for document in documents] for curve in CURVES},
        }
        for form in FORMS
    }
