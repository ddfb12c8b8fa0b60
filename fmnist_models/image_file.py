"""Image files as a network sees them: any picture of one garment as 28x28 grey pixels, bright on black."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fmnist_models.declared_size import declared_sizes
from fmnist_models.errors import FileError, ImageError
from fmnist_models.files import read_bounded

FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
"""What is read; Pillow knows more, some of which start other programs."""
MAX_PIXELS: Final = 2**26
MIN_SIDE: Final = 8
MIN_CONTRAST: Final = 16
"""Grey levels of 255 between the darkest and the brightest pixel of a prepared picture; Fashion-MNIST's have 254."""
_VALID_SIZE = f"valid: at most {MAX_PIXELS:,} in all"
_MAX_BYTES = 2**28
_SIDE = 28
_SIXTEEN_BITS = "I;16"
_WIDER = ("I", "F")
_TILE_SIDES = (322, 323)  # TIFF tags
_WHITE, _NEARLY_WHITE, _MIDDLE = 255, 191, 127.5


@dataclass(frozen=True)
class GarmentImage:
    """``pixels`` ``(28, 28)`` uint8, 0 is background; ``width`` and ``height`` of the picture they were made of."""

    pixels: npt.NDArray[np.uint8]
    width: int
    height: int
    is_inverted: bool


def read_garment(path: Path) -> GarmentImage:
    """The picture in a file, made like the images of Fashion-MNIST; of several in one file the first.

    Raises:
        ImageError: there is no such file, it is no plain file or none of ``FORMATS``, is damaged, or has sides shorter
            than ``MIN_SIDE`` or more than ``MAX_PIXELS`` pixels, which are counted before any is decoded; or
            it is of a single tone, or nearly (``MIN_CONTRAST``).
    """
    try:
        content = read_bounded(path, max_bytes=_MAX_BYTES)
    except FileError as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name with a null character
        raise ImageError(f"{path} cannot be read: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes, for which there is a limit here
            for width, height in declared_sizes(content):
                _check_few(width, height)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(image.width, image.height)
                _check_tile(image)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                garment = make_garment(image)
                _check_contrast(garment.pixels)
                return garment
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not an image that can be read; valid: {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has too many pixels; {_VALID_SIZE}") from error
    except Exception as error:  # a crafted image makes Pillow raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"{path} is a damaged image: {reason}") from error


def make_garment(image: Image.Image) -> GarmentImage:
    """Grey (ITU-R 601), inverted if the background is bright, and resized to 28x28 without being distorted.

    The background is the median of the border, one 28th of the longer side wide. Where at least half of the border is
    transparent, it is white, as in the photographs that Fashion-MNIST was made of, or black for a garment that is
    nearly white itself. Transparent parts become background. The longer side is resized to 28 pixels by area
    (``Image.Resampling.BOX``), and the shorter one is filled up with background on both sides.

    Raises:
        ImageError: all of it is transparent, or its numbers have more than 16 bits, so that nobody knows which of
            them is white.
    """
    grey, alpha = _split(image)
    background = _background(np.asarray(grey), None if alpha is None else np.asarray(alpha))
    if alpha is not None:
        ground = Image.new("L", grey.size, background)
        ground.paste(grey, mask=alpha)
        grey = ground
    scale = _SIDE / max(grey.size)
    width, height = (max(1, round(scale * side)) for side in grey.size)
    canvas = Image.new("L", (_SIDE, _SIDE), background)
    small = grey.resize((width, height), Image.Resampling.BOX)
    canvas.paste(small, ((_SIDE - width) // 2, (_SIDE - height) // 2))
    pixels = np.array(canvas, dtype=np.uint8)
    is_inverted = background > _MIDDLE
    return GarmentImage(_WHITE - pixels if is_inverted else pixels, image.width, image.height, is_inverted)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Brightness of every pixel, and its opacity if some are not opaque."""
    if image.mode.startswith(_SIXTEEN_BITS):
        return Image.fromarray(np.rint(np.asarray(image) / 257.0).astype(np.uint8)), None
    if image.mode in _WIDER:
        raise ImageError("has more than 16 bits a pixel, of which nobody knows what is white; valid: 8 or 16")
    wanted = "RGBA" if image.has_transparency_data else "L" if image.mode == "L" else "RGB"
    coloured = image if image.mode == wanted else image.convert(wanted)
    return coloured.convert("L"), coloured.getchannel("A") if wanted == "RGBA" else None


def _background(grey: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8] | None) -> int:
    margin = max(1, max(grey.shape) // _SIDE)
    border = np.ones(grey.shape, dtype=bool)
    border[margin:-margin, margin:-margin] = False
    levels = grey[border]
    if alpha is not None:
        is_opaque = alpha[border] > _MIDDLE
        if is_opaque.mean() <= 0.5:
            visible = grey[alpha > _MIDDLE]
            if not visible.size:
                raise ImageError("is transparent all over")
            return 0 if visible.mean() > _NEARLY_WHITE else _WHITE
        levels = levels[is_opaque]
    return int(np.median(levels))


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"has {width}x{height} pixels, too few to show a garment; valid: at least {MIN_SIDE} a side")
    _check_few(width, height)


def _check_tile(image: Image.Image) -> None:
    """A tile of a TIFF file is decoded as a whole, however small the picture."""
    tags: Any = getattr(image, "tag_v2", {})
    _check_few(*(int(tags.get(tag, 0)) for tag in _TILE_SIDES))


def _check_few(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"has {width}x{height} pixels, which is too many; {_VALID_SIZE}")


def _check_contrast(pixels: npt.NDArray[np.uint8]) -> None:
    contrast = int(pixels.max()) - int(pixels.min())
    if contrast < MIN_CONTRAST:
        raise ImageError(
            f"shows no garment: its brightness varies by {contrast} of 255 grey levels once it is resized to "
            f"{_SIDE}x{_SIDE}; valid: at least {MIN_CONTRAST}"
        )
