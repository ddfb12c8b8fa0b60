"""Pictures of the images themselves: examples of each class, how labels are spread, and those taken for others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from search.records.predictions import Predictions
from search.report.drawing import draw, plain, stack, tile
from search.report.images import Images
from search.report.items import Chart, Numbers, Picture
from search.report.wording import count, text

_ROWS, _COLUMNS = 3, 15  # of each class, as in the paper's Figure 1
_NUM_LOOKALIKES = 8
_NUM_WRONG = 25
_WRONG_COLUMNS = 5  # wide enough for "taken for Ankle boot"
_FAMILIES = (
    ("Figure 12", ("Shirt", "T-shirt/top", "Pullover", "Dress", "Coat")),
    ("Figure 13", ("Sandal", "Sneaker", "Ankle boot")),
)


def picture_examples(images: Images) -> Picture:
    """Three rows of each class, as Figure 1 of the paper has them."""

    mosaics = [
        _mosaic(_examples(images, label, _ROWS * _COLUMNS), _COLUMNS) for label in range(len(images.class_names))
    ]
    shown = [plain(name) for name in images.class_names]
    size = (7.2, 1.12 * len(images.class_names))
    names = ", ".join(images.class_names)
    return draw(
        size,
        lambda figure: stack(figure, mosaics, shown),
        title="Examples of each class",
        alt=f"Grey images of 28 by 28 pixels, three rows of {_COLUMNS} for each of the classes {names}.",
        note="The first training images of each class (Figure 1 of the paper).",
    )


def picture_families(images: Images) -> list[Picture]:
    """Classes that look alike, side by side, as in Figures 12 and 13 of the paper."""
    pictures = []
    for figure_name, names in _FAMILIES:
        labels = [images.class_names.index(name) for name in names if name in images.class_names]

        mosaics = [_mosaic(_examples(images, label, _NUM_LOOKALIKES), _NUM_LOOKALIKES) for label in labels]
        shown = [plain(images.class_names[label]) for label in labels]
        paint = partial(stack, images=mosaics, titles=shown)
        pictures.append(
            draw(
                (5.6, 0.62 * len(labels)),
                paint,
                title=f"Classes that look alike: {', '.join(names)}",
                alt=f"{_NUM_LOOKALIKES} grey images of each of the classes {', '.join(names)}, one row a class.",
                note=f"Training images ({figure_name} of the paper).",
            )
        )
    return pictures


def chart_labels(images: Images) -> list[Chart]:
    """How many images of each class the training and the test subset have, as Figures 2 and 3 of the paper."""
    return [
        _chart_labels(
            images.train_labels, "training", "Validation images are among them (Figure 2).", images.class_names
        ),
        _chart_labels(images.test_labels, "test", "Figure 3 of the paper.", images.class_names),
    ]


def picture_wrong(images: Images, predictions: Predictions, names: Sequence[str]) -> Picture | None:
    """The test images that were taken for something else with the highest confidence; ``None`` if there are none."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:_NUM_WRONG]
    if not len(worst):
        return None
    rows = -(-len(worst) // _WRONG_COLUMNS)

    is_, taken = (
        [plain(names[labels[i]], limit=14) for i in worst] for labels in (predictions.labels, predictions.predicted)
    )
    sure = [f"{100 * predictions.confidence[i]:.0f} %" for i in worst]
    titles = ["\n".join(lines) for lines in zip(is_, (f"taken for {name}" for name in taken), sure, strict=True)]
    shown = [images.test[i] for i in worst]
    listed = [
        (
            str(i),
            text(names[predictions.labels[i]]),
            text(names[predictions.predicted[i]]),
            f"{predictions.confidence[i]:.1%}",
        )
        for i in worst
    ]
    return draw(
        (8.0, 2.2 * rows),
        lambda figure: tile(figure, shown, titles, columns=_WRONG_COLUMNS, title_lines=3),
        title="Wrong with the highest confidence",
        alt=f"{count(len(worst), 'test image')}, each with its true class, the class it was taken for and the "
        "confidence; the table below lists them.",
        numbers=Numbers(
            caption="Wrong with the highest confidence",
            header=("test image", "true class", "predicted class", "confidence"),
            rows=listed,
        ),
        note=f"{len(worst):,} of the {count(len(wrong), 'image')} that it got wrong.",
    )


def _examples(images: Images, label: int, number: int) -> Any:
    """The first images of a class ``(number, 28, 28)`` uint8; black ones where there are fewer."""
    found = images.train[images.train_labels == label][:number]
    return np.concatenate([found, np.zeros((number - len(found), *found.shape[1:]), np.uint8)])


def _mosaic(images: Any, columns: int) -> Any:
    """Images ``(R * columns, H, W)`` side by side as one of ``(R * H, columns * W)``."""
    num, height, width = images.shape
    tiles = images.reshape(num // columns, columns, height, width).swapaxes(1, 2)
    return tiles.reshape(num // columns * height, columns * width)


def _chart_labels(labels: Any, part: str, note: str, names: Sequence[str]) -> Chart:
    counts = np.bincount(labels, minlength=len(names)).tolist()
    return Chart(
        key=f"labels-{part}",
        title=f"Labels of the {part} images",
        description=f"{len(labels):,} {part} images; of each class between {min(counts):,} and {max(counts):,}.",
        traces=[
            {"type": "bar", "x": list(range(len(names))), "y": counts, "marker": {"color": "--complete"}}
            | {"text": [f"{value:,}" for value in counts], "textposition": "outside", "cliponaxis": False}
            | {"hovertext": [f"{name}: {value:,} images" for name, value in zip(names, counts, strict=True)]}
            | {"hovertemplate": "%{hovertext}<extra></extra>"}
        ],
        layout={
            "xaxis": {"tickvals": list(range(len(names))), "ticktext": list(names), "tickangle": -40},
            "yaxis": {"title": {"text": "images"}, "rangemode": "tozero"},
        },
        height_px=320,
        numbers=Numbers(
            caption=f"Labels of the {part} images",
            header=("class", "images"),
            rows=[(name, f"{value:,}") for name, value in zip(names, counts, strict=True)],
        ),
        note=note,
    )
