"""Tables of plain text: the same on a terminal, in a file and under grep."""

from collections.abc import Sequence

from storage import safetext

MISSING = "–"  # for a value that is missing


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under their headings, as wide as necessary; columns of numbers and percentages are right-aligned."""
    cells = [[safetext.line(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    to_the_right = [all(_is_figure(row[index]) for row in cells) for index in range(len(headings))]
    lines = []
    for row in [list(headings), ["─" * width for width in widths], *cells]:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, to_the_right, strict=True)
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def share(value: float | None) -> str:
    """A value of 0 … 1 in per cent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """A duration."""
    return f"{value:.1f} s"


def size(count: int) -> str:
    """A number of bytes."""
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:,.1f} MB"


def labels(names: Sequence[str], *, most: int = 6) -> str:
    """Class labels, separated by commas; beyond ``most`` only how many more there are."""
    rest = len(names) - most
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:most])} and {rest} more"


def _is_figure(cell: str) -> bool:
    return cell == MISSING or cell.removesuffix("%").removesuffix("s").strip().lstrip("-").replace(".", "", 1).isdigit()
