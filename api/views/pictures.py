"""The history of a model as a picture: accuracy and forgetting by version, and accuracy by task."""

import io
import math

from api.schemas.metrics import ModelMetricsOut

_FORMS = {"tag": "task-agnostic", "taw": "task-aware"}
_LEGIBLE_TASKS = 12  # beyond, the numbers in the squares would overlap
_BLUE, _ORANGE = "#2a6fbb", "#d9822b"


def history(metrics: ModelMetricsOut) -> bytes:
    """A PNG: curves of average accuracy and forgetting over the versions, and the task-agnostic accuracy matrix."""
    from matplotlib.figure import Figure  # a sixth of what the API imports, and rarely used
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    curves, matrix = figure.subplots(1, 2, width_ratios=[3, 2])
    for (form, title), style in zip(_FORMS.items(), ("-", "--"), strict=True):
        drawn = getattr(metrics, form)
        for name, colour in (("average_accuracy", _BLUE), ("forgetting", _ORANGE)):
            points = [(v, y * 100) for v, y in zip(metrics.versions, drawn[name], strict=True) if y is not None]
            label = f"{name.replace('_', ' ')}, {title}"
            curves.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=label) if points else None
    curves.set(xlabel="version", ylabel="%", title=f"{metrics.model}: accuracy and forgetting")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.grid(alpha=0.3)
    curves.legend(fontsize=8)
    rows = metrics.tag["matrix"]
    square = [
        [row[u] * 100 if u < len(row) and row[u] is not None else float("nan") for u in range(len(rows[-1]))]
        for row in rows
    ]
    matrix.imshow(square, vmin=0, vmax=100, cmap="Blues")
    for t, row in enumerate(square):
        for u, accuracy in enumerate(row):
            if not math.isnan(accuracy) and len(rows) <= _LEGIBLE_TASKS:
                shade = "white" if accuracy > 60 else "black"
                matrix.text(u, t, f"{accuracy:.0f}", ha="center", va="center", color=shade, fontsize=8)
    matrix.set(xlabel="images of task", ylabel="after version", title="accuracy by task, task-agnostic, %")
    matrix.set_yticks(range(len(rows)), [str(version) for version in metrics.versions])
    matrix.xaxis.set_major_locator(MaxNLocator(integer=True))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
