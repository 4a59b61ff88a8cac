"""Plots of a model's metrics, for a page, a paper or a notebook: PNG or SVG, legible at the width of one column.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) and matplotlib's cividis, which people of every
kind of colour vision tell apart; lines differ in style and marker as well.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWING = 2  # counts changes of how plots look: with the same number, the same material looks the same
Format = Literal["png", "svg"]
COLUMN = 3.5  # inches: a column of most journals
BLUE, ORANGE, VERMILION = "#0072B2", "#E69F00", "#D55E00"
FORMS = {"tag": "task-agnostic", "taw": "task-aware"}
MOST_BARS = 60  # classes of a bar chart; of more, those that changed most are shown
MOST_NUMBERS = 12  # rows or columns whose numbers fit into their squares
MOST_NAMES = 30  # rows or columns whose names fit beside them
DOTS_PER_INCH = 200
_SMALL, _TINY = 7, 5.5  # points


class Plot(StrEnum):
    """What a plot shows."""

    OVERVIEW = "overview"  # curves beside the matrix, as wide as two columns
    CURVES = "curves"
    MATRIX = "matrix"
    CLASSES = "classes"
    CONFUSION = "confusion"


@dataclass(frozen=True, slots=True)
class Material:
    """What a plot is drawn from."""

    model: str
    versions: Sequence[int]  # the line of ancestors, oldest first; the last is the version shown
    curves: Mapping[str, Mapping[str, Any]]  # by form, as in `ModelMetricsOut`
    labels: Sequence[str]
    document: Mapping[str, Any]  # metrics of the version
    before: Mapping[str, Any] | None  # metrics of its parent; None for a first version

    @property
    def title(self) -> str:
        """Name and number of what is shown."""
        return f"{_plain(self.model)}, version {self.versions[-1]}"


def drawn(plot: Plot, material: Material, form: Format) -> bytes:
    """The plot as a file; equal for equal material."""
    # Imported here: a sixth of what the API imports, and rarely used. No pyplot, whose state is not for threads.
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "accrete"  # or identifiers in the file would be random
    figure = Figure(layout="constrained")
    _DRAW[plot](figure, material)
    for axes in figure.axes:
        axes.tick_params(labelsize=_SMALL)
        axes.xaxis.label.set_fontsize(_SMALL)
        axes.yaxis.label.set_fontsize(_SMALL)
        axes.title.set_fontsize(_SMALL + 1)
    buffer = io.BytesIO()
    # Without a date, or two drawings would differ.
    figure.savefig(buffer, format=form, dpi=DOTS_PER_INCH, metadata={"Date": None} if form == "svg" else None)
    return buffer.getvalue()


def _overview(figure: "Figure", material: Material) -> None:
    figure.set_size_inches(2 * COLUMN + 0.3, 2.8)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_curves(left, material)
    _draw_matrix(right, material)


def _curves(figure: "Figure", material: Material) -> None:
    figure.set_size_inches(COLUMN, 2.8)
    _draw_curves(figure.subplots(), material)


def _matrix(figure: "Figure", material: Material) -> None:
    figure.set_size_inches(COLUMN, 3.0)
    _draw_matrix(figure.subplots(), material)


def _draw_curves(axes: "Axes", material: Material) -> None:
    from matplotlib.ticker import MaxNLocator

    kinds = (("average_accuracy", BLUE, "o"), ("forgetting", VERMILION, "s"))
    for (form, name), style in zip(FORMS.items(), ("-", "--"), strict=True):
        for kind, colour, marker in kinds:
            values = material.curves[form][kind]
            points = [(v, 100 * y) for v, y in zip(material.versions, values, strict=True) if y is not None]
            if points:
                label = f"{kind.replace('_', ' ')}, {name}"
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, marker=marker, markersize=3, lw=1.2, label=label
                )
    axes.set(xlabel="version", ylabel="%", title=f"{material.title}: accuracy and forgetting")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), 102)
    axes.set_xlim(material.versions[0] - 0.5, material.versions[-1] + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, lw=0.5)
    if axes.lines:
        axes.legend(fontsize=_TINY + 0.5)
    else:
        _say(axes, "no version was measured")


def _draw_matrix(axes: "Axes", material: Material) -> None:
    from matplotlib.ticker import MaxNLocator

    rows = material.curves["tag"]["matrix"]
    width = len(rows[-1])
    square = [[100 * row[u] if u < len(row) and row[u] is not None else math.nan for u in range(width)] for row in rows]
    _heat(axes, square, numbers="{:.0f}")
    axes.set(xlabel="images of task", ylabel="after version", title="accuracy by task, task-agnostic, %")
    if len(rows) <= MOST_NAMES:
        axes.set_yticks(range(len(rows)), [str(version) for version in material.versions])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _classes(figure: "Figure", material: Material) -> None:
    """Recall of each class, and its change since the parent; what changed most for the worse comes first."""
    after = material.document["tag"]["per_class"]
    before = (material.before or {"tag": {"per_class": {}}})["tag"]["per_class"]
    measured = [(label, 100 * found["recall"]) for label, found in after.items() if found["recall"] is not None]
    old = {label: 100 * found["recall"] for label, found in before.items() if found["recall"] is not None}
    ordered = sorted(measured, key=lambda one: (one[1] - old.get(one[0], one[1]), one[1], one[0]))
    shown = ordered[:MOST_BARS][::-1]  # bars are drawn from below
    figure.set_size_inches(COLUMN, 1.0 + 0.15 * max(len(shown), 3))
    axes = figure.subplots()
    places = range(len(shown))
    axes.barh(places, [recall for _, recall in shown], height=0.7, color=BLUE, label="recall")
    marked = [(old[label], place) for place, (label, _) in enumerate(shown) if label in old]
    if marked:
        parent = material.versions[-2] if len(material.versions) > 1 else ""
        axes.plot(
            *zip(*marked, strict=True), "D", color=ORANGE, markeredgecolor="black", markeredgewidth=0.4, markersize=3.5,
            label=f"version {parent}",
        )  # fmt: skip
    if not shown:
        _say(axes, "no class was measured")
    axes.set_yticks(places, [_short(label) for label, _ in shown])
    axes.set_ylim(-0.6, max(len(shown), 3) - 0.4)
    axes.set_xlim(0, 100)
    left_out = f", {len(shown)} of {len(measured)} classes" if len(measured) > len(shown) else ""
    axes.set(xlabel="recall, task-agnostic, %", title=f"{material.title}{left_out}")
    axes.grid(axis="x", alpha=0.3, lw=0.5)
    figure.legend(loc="outside lower center", ncols=2, fontsize=_TINY + 0.5)


def _confusion(figure: "Figure", material: Material) -> None:
    """Share of each true class's images by predicted class."""
    count = len(material.labels)
    found = [[0] * count for _ in range(count)]
    for true, predicted, images in material.document["tag"]["confusion"]:
        found[true][predicted] = images
    square = [[100 * images / sum(row) if sum(row) else math.nan for images in row] for row in found]
    figure.set_size_inches(COLUMN, COLUMN)
    axes = figure.subplots()
    _heat(axes, square, numbers="{:.0f}")
    axes.set(xlabel="predicted class", ylabel="true class", title=f"{material.title}: confusion, %")
    if count <= MOST_NAMES:
        names = [_short(label) for label in material.labels]
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)


_DRAW: Mapping[Plot, Callable[["Figure", Material], None]] = {
    Plot.OVERVIEW: _overview,
    Plot.CURVES: _curves,
    Plot.MATRIX: _matrix,
    Plot.CLASSES: _classes,
    Plot.CONFUSION: _confusion,
}


def _heat(axes: "Axes", square: Sequence[Sequence[float]], *, numbers: str) -> None:
    """A heat map of 0 … 100, with its numbers where they fit; nan stays white."""
    axes.imshow(square, vmin=0, vmax=100, cmap="cividis", aspect="auto")
    if max(len(square), len(square[0])) > MOST_NUMBERS:
        return
    for row, values in enumerate(square):
        for column, value in enumerate(values):
            if not math.isnan(value):
                colour = "black" if value > 55 else "white"
                axes.text(column, row, numbers.format(value), ha="center", va="center", color=colour, fontsize=_TINY)


def _say(axes: "Axes", words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=_SMALL, transform=axes.transAxes)


def _plain(text: str) -> str:
    """Text that matplotlib shows as it is: between two dollar signs it would read mathematics."""
    return text.replace("$", r"\$")


def _short(label: str, most: int = 22) -> str:
    return _plain(label if len(label) <= most else f"{label[: most - 1]}…")
