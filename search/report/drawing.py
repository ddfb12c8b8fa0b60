"""Drawing with matplotlib: one picture for light pages and one for dark ones, as data addresses."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.report.items import Numbers, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_SCHEMES = {"light": ("#ffffff", "#1b1f24"), "dark": ("#1b1f24", "#e8eaed")}  # those of report.css: card and ink


def draw(
    size: tuple[float, float],
    paint: Callable[[Figure], None],
    *,
    title: str,
    alt: str,
    numbers: Numbers | None = None,
    note: str = "",
) -> Picture:
    """What ``paint`` paints on a figure of ``size`` inches, on light and on dark ground."""
    light, dark = (_render(size, paint, *colours) for colours in _SCHEMES.values())
    width, height = (round(_DPI * inches) for inches in size)
    return Picture(
        title=title, alt=alt, light=light, dark=dark, width_px=width, height_px=height, numbers=numbers, note=note
    )


def tile(
    figure: Figure, images: Sequence[npt.NDArray[Any]], titles: Sequence[str], *, columns: int, title_lines: int = 1
) -> None:
    """Square images in greys, each from its least to its greatest value, under their titles, in so many columns.

    All in one axes: matplotlib takes long for many.
    """
    axes, pitch = figure.add_subplot(), 1.12 + 0.14 * title_lines
    for place, (image, title) in enumerate(zip(images, titles, strict=True)):
        left, top = place % columns * 1.12, place // columns * pitch
        axes.imshow(image, cmap="gray", interpolation="nearest", extent=(left, left + 1, top + 1, top))
        axes.text(left + 0.5, top - 0.03, title, ha="center", va="bottom", fontsize=8.5)
    axes.set(xlim=(0, columns * 1.12 - 0.12), ylim=(-(-len(images) // columns) * pitch - 0.12, -0.16 * title_lines))
    axes.axis("off")


def stack(figure: Figure, images: Sequence[npt.NDArray[Any]], titles: Sequence[str]) -> None:
    """Wide images of one shape below each other, each with its title at its left."""
    axes = figure.add_subplot()
    height, width = images[0].shape
    for row, image in enumerate(images):
        top = row * 1.08 * height
        axes.imshow(image, cmap="gray", interpolation="nearest", extent=(0, width, top + height, top))
    axes.set(xlim=(0, width), ylim=((len(images) * 1.08 - 0.08) * height, 0), frame_on=False)
    axes.set_yticks([(row * 1.08 + 0.5) * height for row in range(len(images))], titles)
    axes.set_xticks([])
    axes.tick_params(length=0)


def plain(text: str, *, limit: int = 24) -> str:
    """Text that any font has and that matplotlib reads no formula in."""
    shown = text[:limit].encode("ascii", "backslashreplace").decode()
    return "".join(c for c in shown if c.isprintable()).replace("$", r"\$")


def counts_and_shares(figure: Figure, confusion: npt.NDArray[np.int64], names: Sequence[str]) -> None:
    """A confusion matrix, each cell with its count and below it its share of the true class, by which it is shaded."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks, shown = range(len(names)), [plain(name) for name in names]
    axes.set_xticks(ticks, shown, rotation=40, ha="right")
    axes.set_yticks(ticks, shown)
    axes.set(xlabel="predicted class", ylabel="true class")
    for row in ticks:
        for column in ticks:
            colour = "white" if shares[row, column] > 0.55 else "#1b1f24"
            written = f"{confusion[row, column]}"
            if confusion[row, column]:
                written += f"\n{shares[row, column]:.0%}"
            axes.text(column, row, written, ha="center", va="center", color=colour, fontsize=9)


def _render(size: tuple[float, float], paint: Callable[[Figure], None], ground: str, ink: str) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked: Any = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    with rc_context(dict.fromkeys(inked, ink)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about space for long names
        figure = Figure(figsize=size, layout="constrained", facecolor=ground)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor=ground)
    return "data:image/png;base64," + base64.b64encode(_with_few_colours(buffer)).decode()


def _with_few_colours(picture: io.BytesIO) -> bytes:
    """A PNG again with 256 colours, which are enough for greys and take a third of the bytes."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(256).save(smaller, format="png", optimize=True)
    return smaller.getvalue()
