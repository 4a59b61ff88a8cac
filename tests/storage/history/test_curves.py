"""Curves of a line of versions."""

from typing import Any

from storage.history.curves import curves


def stored(accuracy: list[float | None], **values: float | None) -> dict[str, Any]:
    """As much of a metrics document as curves are made of; task-aware values are task-agnostic ones plus 10."""
    names = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")
    tag: dict[str, Any] = {"accuracy": accuracy, **{name: values.get(name) for name in names}, "per_class": {"cat": {}}}
    more = {name: None if (value := values.get(name)) is None else value + 10 for name in names}
    return {"tag": tag, "taw": {**tag, **more, "accuracy": [1.0] * len(accuracy)}}


def test_rows_become_a_lower_triangle_and_values_curves():
    gathered = curves(
        [
            stored([0.9], average_accuracy=0.9, average_incremental_accuracy=0.9),
            stored([None, 0.8], average_accuracy=0.5, forgetting=0.25, backward_transfer=-0.25),
        ]
    )
    assert gathered == {
        "tag": {
            "matrix": [[0.9], [None, 0.8]],
            "average_accuracy": [0.9, 0.5],
            "average_incremental_accuracy": [0.9, None],
            "forgetting": [None, 0.25],
            "backward_transfer": [None, -0.25],
        },
        "taw": {
            "matrix": [[1.0], [1.0, 1.0]],
            "average_accuracy": [10.9, 10.5],
            "average_incremental_accuracy": [10.9, None],
            "forgetting": [None, 10.25],
            "backward_transfer": [None, 9.75],
        },
    }


def test_a_model_without_versions_has_empty_curves():
    assert curves([])["tag"] == {
        "matrix": [],
        "average_accuracy": [],
        "average_incremental_accuracy": [],
        "forgetting": [],
        "backward_transfer": [],
    }
