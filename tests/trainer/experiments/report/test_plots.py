"""Plots: every strategy has its line, nothing lies over anything, and there is none of nothing."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from losses import strategies
from trainer.experiments.report.plots import PLOTS, draw, figure


def lines_of(*names: str, tasks: int = 4, seeds: int = 2) -> list[dict[str, Any]]:
    def form(level: float, task: int) -> dict[str, float | None]:
        return {"average_accuracy": level / (task + 1), "forgetting": level * task / 10 if task else None}

    return [
        {
            "strategy": name,
            "seed": seed,
            "task": task,
            "tag": form(0.3 + seed / 10, task),
            "taw": form(0.6 + seed / 10, task),
            "imbalance": {"spread": {"mean_logit_on_others": 0.1 * task, "weight_norm": 0.2, "bias": None}}
            if task
            else None,
        }
        for name, seed, task in product(names, range(seeds), range(tasks))
    ]


def test_every_plot_is_written_and_can_be_opened(tmp_path):
    assert draw(tmp_path, lines_of("lwf", "lwf-s", "joint")) == tuple(PLOTS)
    for name in PLOTS:
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(PLOTS)


def test_of_nothing_there_is_no_plot(tmp_path):
    assert draw(tmp_path, []) == ()
    assert draw(tmp_path, lines_of("lwf", tasks=1)) == ("accuracy.png",)


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    "names", [strategies.names(), ("lwf", "lwf-s", "lwf-bsr"), ("finetune",)], ids=["all", "three", "one"]
)
def test_the_legend_lies_beside_the_panels_and_the_panels_beside_each_other(plot, names):
    drawn = figure(*PLOTS[plot], lines_of(*names))
    drawn.draw_without_rendering()
    (legend,) = drawn.legends
    panels = [box for panel in drawn.axes if (box := panel.get_tightbbox()) is not None]
    boxes = [legend.get_window_extent(), *panels]
    assert len(boxes) == 1 + len(drawn.axes)
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[at + 1 :])
        assert box.x0 >= 0
        assert box.x1 <= drawn.bbox.x1


def test_within_a_panel_no_two_strategies_look_alike():
    for panel in figure(*PLOTS["accuracy.png"], lines_of(*strategies.names())).axes:
        looks = [(to_hex(line.get_color()), line.get_marker()) for line in panel.get_lines()]
        assert len(looks) == len(set(looks)) == 9  # six forms of a family and three baselines


def test_a_strategy_of_ones_own_has_a_look_and_a_place_in_the_legend(monkeypatch):
    known = strategies.names()
    monkeypatch.setattr(strategies, "names", lambda: (*known, "lwf-d", "own"))
    drawn = figure(*PLOTS["accuracy.png"], lines_of(*known, "lwf-d", "own"))
    labels = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert labels[-2:] == ["-d", "own"]
    looks = {(to_hex(line.get_color()), line.get_marker()) for line in drawn.axes[0].get_lines()}
    assert len(looks) == 11


def test_the_curve_is_the_mean_over_seeds():
    panel, _ = figure(*PLOTS["accuracy.png"], lines_of("lwf-bsr")).axes
    (curve,) = panel.get_lines()
    assert curve.get_label() == "lwf-bsr"
    assert np.asarray(curve.get_xdata()).tolist() == [1, 2, 3, 4]
    assert np.asarray(curve.get_ydata()).tolist() == pytest.approx([35, 35 / 2, 35 / 3, 35 / 4])
