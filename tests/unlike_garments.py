"""Pictures that show no garment, as `fmnist predict` would read them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from fmnist_models.image_file import make_garment

SIDE = 280
Draw = Callable[[np.random.Generator], Image.Image]


def read(draw: Draw, *, count: int = 50, seed: int = 0) -> npt.NDArray[np.uint8]:
    """``count`` pictures, prepared: ``(count, 28, 28)``."""
    rng = np.random.default_rng(seed)
    return np.stack([make_garment(draw(rng)).pixels for _ in range(count)])


def noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8))


def gaussian_noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.clip(rng.normal(128, 50, (28, 28)), 0, 255).astype(np.uint8))


def handwritten_digit(rng: np.random.Generator) -> Image.Image:
    """Of scikit-learn's 8x8 digits, enlarged without corners."""
    digits = _digits()
    levels = (digits[rng.integers(len(digits))] * 255 / 16).astype(np.uint8)
    return Image.fromarray(levels).resize((28, 28), Image.Resampling.BICUBIC)


def printed_digit(rng: np.random.Generator) -> Image.Image:
    image, draw = _canvas(255)
    font = ImageFont.load_default(size=int(rng.integers(120, 260)))
    draw.text(tuple(rng.uniform(120, 160, 2)), str(rng.integers(10)), fill=_tone(rng, 0), font=font, anchor="mm")
    return image


def disc(rng: np.random.Generator) -> Image.Image:
    return _figure(rng, lambda draw, x, y, r, tone: draw.ellipse((x - r, y - r, x + r, y + r), fill=tone))


def square(rng: np.random.Generator) -> Image.Image:
    return _figure(rng, lambda draw, x, y, r, tone: draw.rectangle((x - r, y - r, x + r, y + r), fill=tone))


def triangle(rng: np.random.Generator) -> Image.Image:
    return _figure(rng, lambda draw, x, y, r, tone: draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], tone))


def lines(rng: np.random.Generator) -> Image.Image:
    image, draw = _canvas(0)
    for _ in range(rng.integers(1, 5)):
        ends = [tuple(rng.uniform(20, 260, 2)), tuple(rng.uniform(20, 260, 2))]
        draw.line(ends, fill=_tone(rng, 128), width=int(rng.integers(5, 25)))
    return image


def half_plane(rng: np.random.Generator) -> Image.Image:
    angle, (y, x) = rng.uniform(0, 2 * np.pi), np.mgrid[0:SIDE, 0:SIDE] - SIDE / 2
    is_bright = np.cos(angle) * x + np.sin(angle) * y > rng.uniform(-60, 60)
    return Image.fromarray(np.where(is_bright, _tone(rng, 128), 0).astype(np.uint8))


@functools.cache
def _digits() -> npt.NDArray[np.float64]:
    images: npt.NDArray[np.float64] = load_digits().images
    return images


def _figure(
    rng: np.random.Generator, fill: Callable[[ImageDraw.ImageDraw, float, float, float, int], None]
) -> Image.Image:
    is_bright = rng.random() < 0.5
    image, draw = _canvas(0 if is_bright else 255)
    fill(draw, *rng.uniform(120, 160, 2), rng.uniform(40, 115), _tone(rng, 128 if is_bright else 0))
    return image


def _canvas(tone: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (SIDE, SIDE), tone)
    return image, ImageDraw.Draw(image)


def _tone(rng: np.random.Generator, darkest: int) -> int:
    return int(rng.integers(darkest, darkest + 128))
