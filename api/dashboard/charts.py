"""Charts: options of ECharts, in colours that colour-blind people tell apart (Okabe and Ito)."""

from collections.abc import Sequence
from typing import Any

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
GREY = "#8a8f99"  # legible on light and on dark paper
HEAT = ["#f1eef6", "#74a9cf", "#045a8d"]

Series = Sequence[float | None]


def curves(versions: Sequence[int], series: Sequence[tuple[str, str, Series]]) -> dict[str, Any]:
    """Lines over versions: name, colour and shares in 0 … 1 of each; a share that is None is a gap."""
    return {
        "animation": False,
        "grid": {"left": 44, "right": 14, "top": 40, "bottom": 28},
        "legend": {"top": 0, "left": 0, "textStyle": {"color": GREY}, "itemWidth": 16},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "category", "data": [f"v{number}" for number in versions], **_axis()},
        "yAxis": {"type": "value", "axisLabel": {"formatter": "{value} %", "color": GREY}, **_split()},
        "series": [
            {
                "name": name,
                "type": "line",
                "symbolSize": 6,
                "color": colour,
                "data": [None if share is None else round(100 * share, 2) for share in shares],
            }
            for name, colour, shares in series
        ],
    }


def matrix(versions: Sequence[int], rows: Sequence[Series]) -> dict[str, Any]:
    """The accuracy matrix as a heat map: a row for each version, a column for each task."""
    tasks = max(map(len, rows), default=0)
    cells = [
        [task, row, round(100 * share, 1)]
        for row, shares in enumerate(rows)
        for task, share in enumerate(shares)
        if share is not None
    ]
    return {
        "animation": False,
        "grid": {"left": 44, "right": 14, "top": 10, "bottom": 44},
        "tooltip": {},
        "xAxis": {"type": "category", "data": [f"task {task + 1}" for task in range(tasks)], **_axis()},
        "yAxis": {"type": "category", "inverse": True, "data": [f"v{number}" for number in versions], **_axis()},
        "visualMap": {"min": 0, "max": 100, "show": False, "inRange": {"color": HEAT}},
        "series": [{"type": "heatmap", "data": cells, "label": {"show": tasks <= 12, "fontSize": 11}}],
    }


def _axis() -> dict[str, Any]:
    return {"axisLabel": {"color": GREY}, "axisLine": {"lineStyle": {"color": GREY}}, "axisTick": {"show": False}}


def _split() -> dict[str, Any]:
    return {"splitLine": {"lineStyle": {"color": GREY, "opacity": 0.2}}}
