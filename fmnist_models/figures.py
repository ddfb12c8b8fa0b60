"""Pictures of what a classifier does."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fmnist_models.files import write_aside


def save_confusion_matrix(
    confusion: Sequence[Sequence[int]], *, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Writes what ``draw_confusion_matrix`` gives."""
    write_aside(path, draw_confusion_matrix(confusion, class_names=class_names, title=title))


def draw_confusion_matrix(confusion: Sequence[Sequence[int]], *, class_names: Sequence[str], title: str) -> bytes:
    """A PNG of ``confusion`` (rows: true class, columns: predicted) with each row coloured by its shares."""
    from matplotlib.figure import Figure  # importing it writes a font cache

    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(8.5, 8), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right")
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row in ticks:
        for column in ticks:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def save_mistakes(images: npt.NDArray[np.uint8], *, captions: Sequence[str], title: str, path: Path) -> None:
    """Draws ``images`` ``(N, 28, 28)``, N ≥ 1, five a row, each with its caption, as a PNG."""
    from matplotlib.figure import Figure

    columns = 5
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(9, 2.3 * rows + 0.6), layout="constrained")
    for position, (image, caption) in enumerate(zip(images, captions, strict=True), start=1):
        axes = figure.add_subplot(rows, columns, position)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(caption, fontsize=8)
    figure.suptitle(title, fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    write_aside(path, picture.getbuffer())
