"""The sizes that an image file declares, read from its header alone.

Pillow allocates the whole picture of a WebP or GIF file as it opens the file, before a caller can look at its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fmnist_models.errors import ImageError

_MAX_STEPS = 10_000
"""Parts of a file that are stepped over, of which a crafted one has millions."""
_GIF_FRAME_MARK, _GIF_EXTENSION_MARK = 0x2C, 0x21


def declared_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Width and height in pixels of what opening the file would allocate; nothing for other formats than WebP and GIF.

    Sources: RFC 9649 (WebP), RFC 6386 (VP8), the GIF89a specification.

    Raises:
        ImageError: the file has more than 10,000 parts.
    """
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        yield from _webp_sizes(content)
    elif content[:6] in (b"GIF87a", b"GIF89a"):
        yield from _gif_sizes(content)


def _webp_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """The canvas, and each bit stream: whichever of them a decoder goes by."""
    at, steps = 12, _count_steps()
    while at + 8 <= len(content):
        next(steps)
        kind, length = content[at : at + 4], _number(content, at + 4, 4)
        body = at + 8
        if kind == b"VP8X":
            yield 1 + _number(content, body + 4, 3), 1 + _number(content, body + 7, 3)
        elif kind == b"VP8L":
            bits = _number(content, body + 1, 4)
            yield 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"VP8 ":
            yield _number(content, body + 6, 2) & 0x3FFF, _number(content, body + 8, 2) & 0x3FFF
        elif kind == b"ANMF":  # a frame: its own header, and then chunks as above
            yield 1 + _number(content, body + 6, 3), 1 + _number(content, body + 9, 3)
            length = 16
        at = body + length + length % 2


def _gif_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """The screen, and the first frame, by which Pillow enlarges it."""
    yield _number(content, 6, 2), _number(content, 8, 2)
    flags = content[10] if len(content) > 10 else 0
    at = 13 + (3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0)
    steps = _count_steps()
    while at < len(content):
        next(steps)
        mark, at = content[at], at + 1
        if mark == _GIF_FRAME_MARK:
            left, top, width, height = (_number(content, at + offset, 2) for offset in (0, 2, 4, 6))
            yield left + width, top + height
            return
        if mark == _GIF_EXTENSION_MARK:
            at += 1
            while at < len(content) and content[at]:
                next(steps)
                at += 1 + content[at]
            at += 1


def _count_steps() -> Iterator[None]:
    """To be asked for the next step.

    Raises:
        ImageError: there have been too many.
    """
    yield from itertools.repeat(None, _MAX_STEPS)
    raise ImageError(f"has more than {_MAX_STEPS:,} parts; valid: a picture with fewer, or in another format")


def _number(content: bytes, at: int, length: int) -> int:
    return int.from_bytes(content[at : at + length], "little")
