"""What a page is made of: charts, pictures, tables, and notices about what is not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A small table of text, for those who want numbers or do not see a chart; the first cell of a row names it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "numbers"
    folded: bool = True


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A Plotly figure that people hover over.

    ``description``: what it shows, in words. ``traces`` and ``layout``: Plotly's, with colours that are names of the
    page's, such as ``--complete``. A trace's ``customdata`` may hold numbers of trials, whose rows of the table are
    then shown. ``wide``: too wide for a phone, where it is scrolled. ``note``: what a reader should know.
    """

    key: str
    title: str
    description: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    height_px: int = 380
    numbers: Numbers | None = None
    note: str = ""
    wide: bool = False
    kind: str = "chart"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG picture as data addresses, for light and for dark pages; ``alt``: what it shows, in words."""

    title: str
    alt: str
    light: str
    dark: str
    width_px: int
    height_px: int
    numbers: Numbers | None = None
    note: str = ""
    kind: str = "picture"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Says what would be here, why it is not, and which command would change that."""

    title: str
    reason: str
    command: str = ""
    kind: str = "missing"


Item = Chart | Picture | Numbers | Missing


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under one heading."""

    key: str
    title: str
    items: Sequence[Item | Sequence[Item]]
    lead: str = ""


def thin(values: Sequence[T], *, limit: int) -> list[T]:
    """At most ``limit`` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= limit:
        return list(values)
    return [values[round(index * (len(values) - 1) / (limit - 1))] for index in range(limit)]


def joined(notes: Iterable[str]) -> str:
    """Sentences that there are, as one text."""
    return " ".join(note for note in notes if note)
