"""A learning curve in plain characters, for a terminal. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_BLOCKS, _BLOCKS_ASCII = "▁▂▃▄▅▆▇█", "_.,-=+*#"
_SPARKLINE_WIDTH = 16
_MARKS = "ox+"
_MAX_STRETCH = 6  # columns between two epochs


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """One character a value, low to high between the smallest and the largest of them; of many the last of each few."""
    if not values:
        return ""
    step = -(-len(values) // _SPARKLINE_WIDTH)
    shown = [values[min(start + step, len(values)) - 1] for start in range(0, len(values), step)]
    blocks = _BLOCKS_ASCII if ascii_only else _BLOCKS
    low, high = min(shown), max(shown)
    return "".join(blocks[round(_share(value, low, high) * (len(blocks) - 1))] for value in shown)


def plot(curves: Mapping[str, Mapping[int, float]], *, width: int = 60, height: int = 12) -> list[str]:
    """Lines of a drawing of up to three curves over common axes, with the mark of each below.

    ``curves``: finite values by epoch, by the curve's name. Where two meet, the first one is seen. None for no values.
    """
    epochs = [epoch for curve in curves.values() for epoch in curve]
    values = [value for curve in curves.values() for value in curve.values()]
    if not values:
        return []
    first, last, low, high = min(epochs), max(epochs), min(values), max(values)
    num_steps = min(width - 1, last - first)
    stretch = max(1, min(_MAX_STRETCH, (width - 1) // max(1, num_steps)))
    grid = [[" "] * (num_steps * stretch + 1) for _ in range(height)]
    for mark, curve in reversed(list(zip(_MARKS, curves.values(), strict=False))):
        for epoch, value in curve.items():
            column = round((epoch - first) / max(1, last - first) * num_steps) * stretch
            grid[_line(value, low, high, height)][column] = mark
    labels = {_line(value, low, high, height): f"{value:.4g}" for value in (low, high)}
    margin = max(map(len, labels.values()))
    lines = [f"{labels.get(number, ''):>{margin}} |{''.join(row)}".rstrip() for number, row in enumerate(grid)]
    between = max(1, len(grid[0]) - len(f"{first}{last}"))
    ends = f"{first}{'':{between}}{last}" if last > first else str(first)
    names = "   ".join(f"{mark} {name}" for mark, name in zip(_MARKS, curves, strict=False))
    return [*lines, f"{'':{margin}} +{'-' * len(grid[0])}", f"{'':{margin}}  {ends}  epoch", f"{'':{margin}}  {names}"]


def _line(value: float, low: float, high: float, height: int) -> int:
    return height - 1 - round(_share(value, low, high) * (height - 1))


def _share(value: float, low: float, high: float) -> float:
    """Where it lies between them, 0 to 1; by halves, whose differences do not overflow."""
    return 0.5 if low == high else (value / 2 - low / 2) / (high / 2 - low / 2)
