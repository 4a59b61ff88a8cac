"""`accrete metrics` and `compare`: accuracy matrices and their curves, and two versions side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, Model, Url
from api.commands.tables import labels, share, table

if TYPE_CHECKING:
    from api.client.documents import ModelMetrics


def metrics(
    model: Model,
    version: Annotated[
        int | None, typer.Option(help="The version whose ancestors to follow (default: the head).")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw them into this file instead, PNG or SVG.", dir_okay=False)
    ] = None,
    shows: Annotated[
        str, typer.Option(help="What --plot draws: overview, curves, matrix, classes or confusion.")
    ] = "overview",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the accuracy matrix and the curves, task-agnostic (TAg) and task-aware (TAw)."""
    if plot is not None and plot.suffix.lower() not in {".png", ".svg"}:
        raise typer.BadParameter(
            f"{plot.name}: plots are PNG or SVG, so name the file .png or .svg", param_hint="--plot"
        )
    with service(url) as client:
        if plot is not None:
            client.plot(model, plot, plot=shows, version=version)
            emit({"file": str(plot), "shows": shows} if as_json else None, f"wrote {plot}")
            return
        document = client.metrics(model, version=version)
    emit(document if as_json else None, metrics_text(document))


def compare(
    model: Model,
    version: Annotated[int, typer.Argument(help="Number of a version.")],
    other: Annotated[int, typer.Argument(help="Number of the version to compare it with.")],
    form: Annotated[str, typer.Option(help="tag: best of all classes; taw: best of the true task's.")] = "tag",
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions image by image: what got better, what got worse, and whether chance explains it."""
    with service(url) as client:
        found = client.compare(model, version, other, form=form)
    rows = [
        [
            one["label"],
            one["images"],
            share(one["other"]["share"]),
            share(one["version"]["share"]),
            one["better"],
            one["worse"],
            f"{one['p_value']:.2g}",
        ]
        for one in sorted(found["classes"], key=lambda one: one["better"] - one["worse"])
    ]
    headings = ["class", "images", f"version {other}", f"version {version}", "better", "worse", "p"]
    parts = [found["sentence"], *([table(headings, rows)] if rows else [])]
    if (new := found["new_classes"]) is not None:
        low, high = share(new["low"]), share(new["high"])
        parts.append(f"Classes that version {other} does not know: {share(new['share'])} right ({low} to {high}).")
    emit(found if as_json else None, "\n\n".join(parts))


def metrics_text(document: "ModelMetrics") -> str:
    """Both accuracy matrices with their curves; a row per version, a column per task."""
    parts = []
    for title, curves in (("Task-agnostic (TAg)", document["tag"]), ("Task-aware (TAw)", document["taw"])):
        tasks = [f"task {number}" for number in range(1, len(document["tasks"]) + 1)]
        headings = ["version", *tasks, "average", "forgetting", "backward transfer"]
        rows = [
            [number, *_matrix_row(curves, row, len(tasks)), *(share(curve[row]) for curve in _curves(curves))]
            for row, number in enumerate(document["versions"])
        ]
        parts.append(f"{title}\n{table(headings, rows)}")
    tasks = [f"task {number}: {labels(names)}" for number, names in enumerate(document["tasks"], start=1)]
    return "\n\n".join([*parts, "\n".join(tasks)])


def _matrix_row(curves: dict[str, Any], row: int, width: int) -> list[str]:
    cells = [share(value) for value in curves["matrix"][row]]
    return cells + [""] * (width - len(cells))


def _curves(curves: dict[str, Any]) -> list[list[float | None]]:
    return [curves["average_accuracy"], curves["forgetting"], curves["backward_transfer"]]
