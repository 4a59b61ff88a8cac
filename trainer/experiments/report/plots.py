"""Accuracy, forgetting and imbalance over tasks as pictures: a panel for each family, a line for each strategy."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from losses import strategies
from trainer.experiments.results import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Read = Callable[[Record], float | None]


@dataclass(frozen=True)
class Row:
    """One quantity: a row of panels that share an axis."""

    title: str
    read: Read


def _form(form: str, name: str) -> Read:
    return lambda line: None if line[form][name] is None else 100 * line[form][name]


def _spread(name: str) -> Read:
    return lambda line: line["imbalance"] and line["imbalance"]["spread"][name]


PLOTS: Mapping[str, tuple[str, tuple[Row, ...]]] = {
    "accuracy.png": (
        "Average accuracy over the tasks seen, %",
        (
            Row("task-agnostic (TAg)", _form("tag", "average_accuracy")),
            Row("task-aware (TAw)", _form("taw", "average_accuracy")),
        ),
    ),
    "forgetting.png": (
        "Average forgetting of earlier tasks, percentage points",
        (
            Row("task-agnostic (TAg)", _form("tag", "forgetting")),
            Row("task-aware (TAw)", _form("taw", "forgetting")),
        ),
    ),
    "imbalance.png": (
        "Imbalance: standard deviation over tasks",
        (
            Row("mean logit on images\nof other tasks", _spread("mean_logit_on_others")),
            Row("mean norm of\nthe head's rows", _spread("weight_norm")),
            Row("mean bias of\nthe head's rows", _spread("bias")),
        ),
    ),
}

# Okabe and Ito, Color Universal Design (2008): colours that differ with every kind of colour blindness. The marks
# differ too, for print without colours.
_STYLES = {
    "": ("#000000", "o", "-"),
    "-s": ("#0072B2", "s", "-"),
    "-sr": ("#56B4E9", "^", "--"),
    "-br": ("#E69F00", "D", "-"),
    "-br2": ("#D55E00", "v", "--"),
    "-bsr": ("#009E73", "P", "-"),
}
_BASELINES = {"finetune": ("#999999", "x", ":"), "freeze": ("#999999", "+", "-."), "joint": ("#CC79A7", "*", ":")}
# Strategies that are neither: another form of a family, and one without a family.
_OTHER_FORM, _OTHER = ("#8B5E00", "h", "-."), ("#666666", "d", "--")


def draw(folder: Path, lines: Sequence[Record]) -> tuple[str, ...]:
    """Write every plot that has data; returns their names. Raises ImportError if matplotlib is missing."""
    drawn = []
    for name, (title, rows) in PLOTS.items():
        if any(row.read(line) is not None for row in rows for line in lines):
            partial = folder / f".{name}.{os.getpid()}"
            figure(title, rows, lines).savefig(partial, format="png", dpi=130)
            partial.replace(folder / name)
            drawn.append(name)
    return tuple(drawn)


def figure(title: str, rows: Sequence[Row], lines: Sequence[Record]) -> "Figure":
    """A row for each quantity and a column for each family; with only one family, a column for each quantity."""
    from matplotlib.figure import Figure

    families = _families({line["strategy"] for line in lines})
    alone = len(families) == 1
    high, wide = (1, len(rows)) if alone else (len(rows), len(families))
    drawing = Figure(figsize=(1.5 + 3.9 * wide, 1.3 + 2.7 * high), layout="constrained")
    grid = drawing.subplots(high, wide, sharex=True, sharey="none" if alone else "row", squeeze=False)
    panels = grid.T if alone else grid
    for row, across in zip(rows, panels, strict=True):
        for (family, members), panel in zip(families.items(), across, strict=True):
            for strategy in members:
                label = _variant(strategy) or "plain" if _has_forms(strategy) and not alone else strategy
                _curve(panel, _points(lines, strategy, row.read), _style(strategy), label)
            _dress(panel)
            panel.set_title(row.title if alone else family if row is rows[0] else "")
        across[0].set_ylabel("" if alone else row.title)
    for panel in grid[-1]:
        panel.set_xlabel("tasks learned")
    _add_legend(drawing)
    drawing.suptitle(title)
    return drawing


def _add_legend(figure: "Figure") -> None:
    """Add one legend for all panels, below them."""
    shown = {str(line.get_label()): line for panel in figure.axes for line in panel.get_lines()}
    order = ["plain", *_STYLES, *_BASELINES]
    labels = sorted(shown, key=lambda label: _place(label, order))
    handles = [shown[label] for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=min(max(len(labels), 1), 9), frameon=False)


def _place(label: str, order: Sequence[str]) -> int:
    """A label's place in the legend; a strategy that is none of the known forms comes last."""
    known = label if label in order or not _has_forms(label) else _variant(label)
    return order.index(known) if known in order else len(order)


def _families(present: set[str]) -> dict[str, list[str]]:
    """By family, its strategies that are present; each family has the baselines as well, which have no variants."""
    families: dict[str, list[str]] = {}
    for name in strategies.names():
        families.setdefault(name.partition("-")[0], []).append(name)
    baselines = [name for members in families.values() if len(members) == 1 for name in members if name in present]
    found = {
        family: [*(name for name in members if name in present), *baselines]
        for family, members in families.items()
        if len(members) > 1 and present.intersection(members)
    }
    return found or {"": baselines}


def _points(lines: Sequence[Record], strategy: str, read: Read) -> dict[int, list[float]]:
    """The values of all seeds, by the number of tasks learned."""
    points: dict[int, list[float]] = {}
    for line in lines:
        if line["strategy"] == strategy and (value := read(line)) is not None:
            points.setdefault(line["task"] + 1, []).append(value)
    return dict(sorted(points.items()))


def _curve(panel: "Axes", points: Mapping[int, Sequence[float]], style: tuple[str, str, str], label: str) -> None:
    """The mean over seeds, and one standard deviation to each side where there are several."""
    if not points:
        return
    colour, mark, dashes = style
    means = [fmean(values) for values in points.values()]
    panel.plot(list(points), means, dashes, color=colour, marker=mark, markersize=4.5, linewidth=1.6, label=label)
    spreads = [stdev(values) if len(values) > 1 else 0.0 for values in points.values()]
    if any(spreads):
        low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
        panel.fill_between(list(points), low, high, color=colour, alpha=0.12, linewidth=0)


def _style(strategy: str) -> tuple[str, str, str]:
    if strategy in _BASELINES:
        return _BASELINES[strategy]
    return _STYLES.get(_variant(strategy), _OTHER_FORM) if _has_forms(strategy) else _OTHER


def _has_forms(strategy: str) -> bool:
    """Whether there are other strategies of the same family."""
    family = strategy.partition("-")[0]
    return [name.partition("-")[0] for name in strategies.names()].count(family) > 1


def _variant(strategy: str) -> str:
    """The variant of a strategy, such as ``-s`` of lwf-s; empty for the plain method."""
    _family, dash, variant = strategy.partition("-")
    return dash + variant


def _dress(panel: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
