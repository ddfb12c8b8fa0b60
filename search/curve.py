"""A learning curve in plain characters, for a terminal. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_BLOCKS, _BLOCKS_ASCII = "▁▂▃▄▅▆▇█", "_.,-=+*#"
_MARKS = "ox+"
_WIDTH = 16  # of a sparkline


def sparkline(values: Sequence[float], *, ascii_only: bool = False) -> str:
    """One character a value, low to high between the smallest and the largest of them; of many the last of each few."""
    if not values:
        return ""
    step = -(-len(values) // _WIDTH)
    shown = [values[min(start + step, len(values)) - 1] for start in range(0, len(values), step)]
    blocks = _BLOCKS_ASCII if ascii_only else _BLOCKS
    return "".join(blocks[round(_share(value, shown) * (len(blocks) - 1))] for value in shown)


def plot(curves: Mapping[str, Mapping[int, float]], *, width: int = 60, height: int = 12) -> list[str]:
    """Lines of a drawing of up to three curves over common axes, with what each is called below.

    ``curves``: values by epoch, by the curve's name. Where two meet, the first one is seen.
    """
    points = [(epoch, value) for curve in curves.values() for epoch, value in curve.items()]
    if not points:
        return []
    epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
    num_columns = min(width, max(epochs) - min(epochs) + 1) if max(epochs) > min(epochs) else 1
    stretch = max(1, min(6, width // num_columns))
    grid = [[" "] * ((num_columns - 1) * stretch + 1) for _ in range(height)]
    marked = list(zip(_MARKS, curves.values(), strict=False))
    for mark, curve in reversed(marked):
        for epoch, value in curve.items():
            column = round(_share(epoch, epochs) * (num_columns - 1)) * stretch
            grid[height - 1 - round(_share(value, values) * (height - 1))][column] = mark
    labels = {0: f"{max(values):.4g}", height - 1: f"{min(values):.4g}"} if max(values) > min(values) else {}
    labels = labels or {height - 1 - round(_share(values[0], values) * (height - 1)): f"{values[0]:.4g}"}
    margin = max(map(len, labels.values()))
    lines = [f"{labels.get(number, ''):>{margin}} |{''.join(row)}".rstrip() for number, row in enumerate(grid)]
    first, last = str(min(epochs)), str(max(epochs))
    length = max(len(grid[0]), len(first) + len(last) + 1)
    axis = f"{first}{last:>{length - len(first)}}" if first != last else first
    names = "   ".join(f"{mark} {name}" for mark, name in zip(_MARKS, curves, strict=False))
    return [*lines, f"{'':>{margin}} +{'-' * len(grid[0])}", f"{'':>{margin}}  {axis}  epoch", names]


def _share(value: float, among: Sequence[float]) -> float:
    """Where it lies between the smallest (0) and the largest (1), in halves so that no difference overflows."""
    low, high = min(among) / 2, max(among) / 2
    return 0.5 if low == high else (value / 2 - low) / (high - low)
