"""Tables of thousands of rows as lines of text, which rich's own tables take seconds for. Neither Ray nor torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fmnist_models.errors import printable

_GAP = "  "
_MIN_LAST = 24  # columns of the terminal that the last column has, however wide the others are


def text_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int], styles: Sequence[str], width: int
) -> Text:
    """Aligned columns, those of ``left`` and the last one to the left; the last one is wrapped to ``width``.

    ``styles``: of each row. What strangers wrote is shown as it is, on one line, and does nothing.
    """
    plain = [[_on_one_line(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(_width, column)) for column in zip(*plain, strict=True)]
    start = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    room = max(_MIN_LAST, width - start)
    text = Text()
    for row, style in zip(plain, ["dim", *styles], strict=True):
        cells = [_pad(cell, widths[n], to_left=n in left) for n, cell in enumerate(row[:-1])]
        first, *others = _wrap(row[-1], room)
        text.append(_GAP.join([*cells, first]).rstrip() + "\n", style)
        for other in others:
            text.append(f"{'':{start}}{other}\n", style)
    text.right_crop()
    return text


def _on_one_line(cell: str) -> str:
    return cell if cell.isascii() and cell.isprintable() else printable(cell).replace("\n", " ")


def _width(cell: str) -> int:
    return len(cell) if cell.isascii() else cell_len(cell)


def _pad(cell: str, width: int, *, to_left: bool) -> str:
    space = " " * (width - _width(cell))
    return f"{cell}{space}" if to_left else f"{space}{cell}"


def _wrap(cell: str, width: int) -> list[str]:
    if _width(cell) <= width:
        return [cell]
    if cell.isascii():
        return textwrap.wrap(cell, width, break_on_hyphens=False)
    return [line.plain.rstrip() for line in Text(cell).wrap(Console(width=width), width, overflow="fold")]
