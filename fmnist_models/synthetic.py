"""A Fashion-MNIST look-alike drawn in code, for tests and demonstrations without a download.

Every garment is an implicit shape: a function gives each pixel its signed distance to the garment's edge, in
pixels, negative inside. The minimum of two distances unites two shapes, the maximum intersects them. A batch of
n images is drawn at once: a random parameter is an (n, 1, 1) array, a shape or an image (n, 28, 28).
The origin is the middle of the image, x grows to the right and y downwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

IMAGE_SIZE: Final = 28
# Small enough that the arrays of a batch stay in the processor's cache, large enough to hide NumPy's cost per call.
BATCH_SIZE: Final = 64


@dataclass(frozen=True)
class Canvas:
    """Coordinates `x` and `y` of every pixel of n images, (n, 28, 28) float32, and the source of all chance."""

    rng: np.random.Generator
    x: Floats
    y: Floats

    @property
    def side(self) -> Floats:
        """Distance from the upright axis: what is drawn along `side` appears on the left and on the right."""
        return np.abs(self.x)

    def uniform(self, low: float, high: float) -> Floats:
        """One number in [low, high) per image, (n, 1, 1)."""
        return self.rng.uniform(low, high, (len(self.x), 1, 1)).astype(np.float32)

    def maybe(self, probability: float, then: Floats | float, otherwise: Floats | float) -> Floats:
        """`then` with the given probability, else `otherwise`, decided per image, (n, 1, 1)."""
        chosen = self.rng.random((len(self.x), 1, 1)) < probability
        return np.where(chosen, then, otherwise).astype(np.float32)


def lay_canvas(rng: np.random.Generator, num_images: int) -> Canvas:
    """Pixel coordinates under a random rotation, shear, scale, shift and perhaps a mirror per image."""
    middle = (IMAGE_SIZE - 1) / 2
    rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32) - np.float32(middle)
    flat = Canvas(rng, np.tile(columns, (num_images, 1, 1)), np.tile(rows, (num_images, 1, 1)))
    angle, shear = flat.uniform(-0.12, 0.12), flat.uniform(-0.08, 0.08)
    x, y = flat.x - flat.uniform(-1.8, 1.8), flat.y - flat.uniform(-1.5, 1.5)
    height = flat.uniform(0.9, 1.12)
    width = height * flat.uniform(0.9, 1.1) * flat.maybe(0.35, -1.0, 1.0)
    turned_x, turned_y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return Canvas(rng, (turned_x + shear * turned_y) / width, turned_y / height)


def overlap(*distances: Floats) -> Floats:
    """What lies inside all the given shapes."""
    return reduce(np.maximum, distances)


def box(x: Floats, y: Floats, half_width: Floats | float, half_height: Floats | float) -> Floats:
    """A rectangle around the origin."""
    return overlap(np.abs(x) - half_width, np.abs(y) - half_height)


def ellipse(x: Floats, y: Floats, radius_x: Floats, radius_y: Floats) -> Floats:
    """An ellipse around the origin; the distance is right only near the edge, which is all `paint` looks at."""
    distance: Floats = (np.hypot(x / radius_x, y / radius_y) - 1.0) * np.minimum(radius_x, radius_y)
    return distance


def bar(x: Floats, y: Floats, to_x: Floats, to_y: Floats, radius: Floats) -> Floats:
    """A bar with round ends from the origin to (to_x, to_y)."""
    along = np.clip((x * to_x + y * to_y) / (np.square(to_x) + np.square(to_y) + 1e-6), 0.0, 1.0)
    distance: Floats = np.hypot(x - along * to_x, y - along * to_y) - radius
    return distance


def slope(x: Floats) -> Floats:
    """A smooth step from 0 at the far left to 1 at the far right."""
    step: Floats = 0.5 + 0.5 * np.tanh(x)
    return step


def paint(image: Floats | float, distance: Floats, tone: Floats | float) -> Floats:
    """The image with a shape laid over it in the given tone, 0 black to 1 white; its edge is one pixel soft."""
    painted: Floats = image + (tone - image) * np.clip(0.5 - distance, 0.0, 1.0)
    return painted


def weave(c: Canvas, *, patterned: float) -> Floats:
    """Tones of a cloth in [0.15, 1]: shaded, and with the given probability striped, checked or wavy."""
    shade = c.uniform(0.35, 1.05) + c.uniform(-0.012, 0.012) * c.x + c.uniform(-0.01, 0.01) * c.y
    slant, pace = c.uniform(0.0, np.pi), c.uniform(0.6, 1.8)
    across = pace * (np.cos(slant) * c.x + np.sin(slant) * c.y)
    along = pace * (np.cos(slant) * c.y - np.sin(slant) * c.x)
    pattern = np.sin(across + c.maybe(0.3, 1.5, 0.0) * np.sin(along)) + c.maybe(0.4, 1.0, 0.0) * np.sin(along)
    cloth: Floats = np.clip(shade + c.maybe(patterned, c.uniform(0.1, 0.35), 0.0) * pattern, 0.15, 1.0)
    return cloth


def contrasting(c: Canvas, cloth: Floats) -> Floats:
    """A tone that stands out from the cloth, darker on bright and brighter on dark, (n, 1, 1)."""
    mean = cloth.mean(axis=(1, 2), keepdims=True)
    tone: Floats = np.clip(mean + np.copysign(c.uniform(0.25, 0.6), 0.5 - mean), 0.05, 1.0)
    return tone


def torso(c: Canvas, top: Floats, length: Floats, half_width: Floats, sleeve: Floats) -> Floats:
    """A body with sloping shoulders and two sleeves of the given length; a sleeve shorter than 1 is left off."""
    down = c.y - top
    widening = half_width * c.uniform(-0.08, 0.12) / length
    shoulders = c.uniform(0.2, 0.4) * c.side - down
    body = overlap(c.side - half_width - widening * down, shoulders, down - length)
    spread, cuff = c.uniform(0.12, 0.5), np.where(sleeve < 1.0, -9.0, c.uniform(1.5, 2.3))
    arm = bar(c.side - half_width + 0.8, down - 4.0, sleeve * np.sin(spread), sleeve * np.cos(spread), cuff)
    joined: Floats = np.minimum(body, arm)
    return joined


def t_shirt(c: Canvas) -> Floats:
    cloth, top = weave(c, patterned=0.35), c.uniform(-12.0, -10.0)
    sleeve = c.maybe(0.93, c.uniform(0.0, 6.0), c.uniform(6.0, 13.0))
    shape = torso(c, top, c.uniform(19.0, 24.0), c.uniform(5.4, 7.4), sleeve)
    neck = ellipse(c.x, c.y - top, c.uniform(2.0, 4.0), c.uniform(1.2, 4.0))
    image = paint(0.0, overlap(shape, -neck), cloth)
    print_size = c.maybe(0.4, c.uniform(1.5, 3.5), -1.0)
    label = box(c.x - c.uniform(-1.5, 1.5), c.y - top - c.uniform(7.0, 10.0), print_size, print_size * 0.7)
    return paint(image, label, contrasting(c, cloth))


def trouser(c: Canvas) -> Floats:
    cloth, top, length = weave(c, patterned=0.3), c.uniform(-13.0, -11.0), c.uniform(22.0, 26.0)
    down, hip, rise = c.y - top, c.uniform(3.8, 6.0), c.uniform(4.0, 8.0)
    leg_middle = hip / 2 + hip * c.uniform(-0.05, 0.3) * np.maximum(down - rise, 0.0) / length
    leg_width = hip / 2 - c.uniform(-0.1, 0.9) * down / length
    shape = np.where(down < rise, c.side - hip, np.abs(c.side - leg_middle) - leg_width)
    return paint(0.0, overlap(shape, -down, down - length), cloth)


def pullover(c: Canvas) -> Floats:
    cloth, top, length = weave(c, patterned=0.4), c.uniform(-12.0, -10.0), c.uniform(19.0, 24.0)
    sleeve = c.maybe(0.95, c.uniform(11.0, 17.0), c.uniform(6.0, 11.0))
    shape = torso(c, top, length, c.uniform(5.6, 7.8), sleeve)
    neck = ellipse(c.x, c.y - top, c.uniform(2.0, 3.6), c.uniform(1.0, 3.5))
    shape = overlap(shape, -neck)
    ribbing: Floats = np.minimum(neck - c.uniform(0.8, 1.6), top + length - c.uniform(1.0, 3.0) - c.y)
    tone = np.clip(cloth + c.uniform(-0.35, 0.35), 0.1, 1.0)
    return paint(paint(0.0, shape, cloth), overlap(shape, ribbing), tone)


def dress(c: Canvas) -> Floats:
    cloth, top, length = weave(c, patterned=0.45), c.uniform(-13.0, -11.0), c.uniform(23.0, 27.0)
    down, chest, waist_y = c.y - top, c.uniform(2.8, 4.8), length * c.uniform(0.3, 0.5)
    waist = chest * c.uniform(0.75, 1.05)
    bodice = chest + (waist - chest) * down / waist_y
    skirt = waist + c.uniform(0.5, 4.5) * (down - waist_y) / (length - waist_y)
    shape = overlap(c.side - np.where(down < waist_y, bodice, skirt), -down, down - length)
    sleeved = torso(c, top, length * 0.5, chest, c.maybe(0.5, c.uniform(1.0, 14.0), 0.0))
    neck = ellipse(c.x, down, chest * c.uniform(0.4, 0.75), c.uniform(1.5, 5.0))
    return paint(0.0, overlap(np.minimum(shape, sleeved), -neck), cloth)


def coat(c: Canvas) -> Floats:
    cloth, top, length = weave(c, patterned=0.25), c.uniform(-13.0, -11.0), c.uniform(22.0, 26.0)
    shape = torso(c, top, length, c.uniform(5.8, 8.2), c.uniform(12.0, 18.0))
    lapels = c.side - c.uniform(1.0, 3.5) + (c.y - top) * c.uniform(0.25, 0.5)
    image = paint(paint(0.0, shape, cloth), overlap(shape, lapels), contrasting(c, cloth) * c.uniform(0.0, 0.9))
    opening = overlap(shape, c.side - c.uniform(0.1, 0.9))
    return paint(image, opening, image * c.maybe(0.9, c.uniform(0.0, 0.5), 1.0))


def sandal(c: Canvas) -> Floats:
    ground, heel = c.uniform(4.0, 8.0), c.maybe(0.4, c.uniform(3.0, 11.0), c.uniform(0.0, 2.0))
    foot_bed = box(c.x, c.y - ground + heel * slope(c.x / 5.0), c.uniform(10.0, 12.0), c.uniform(0.6, 1.5))
    post = bar(c.x - 9.5, c.y - ground + heel, c.uniform(-1.5, 1.0), heel, c.uniform(0.5, 1.3))
    shape: Floats = np.minimum(foot_bed, post)
    instep_x, instep_y = c.uniform(-4.0, 1.0), ground - heel * 0.4 - c.uniform(3.0, 6.0)
    back_y = ground - heel - c.uniform(2.0, 8.0)
    ends = ((-8.5, ground), (-3.0, ground), (4.0, ground - heel * 0.8), (9.5, back_y))
    for end_x, end_y in ends:
        thickness = c.maybe(0.75, c.uniform(0.4, 1.3), -1.0)
        shape = np.minimum(shape, bar(c.x - instep_x, c.y - instep_y, end_x - instep_x, end_y - instep_y, thickness))
    return paint(0.0, shape, weave(c, patterned=0.2))


def shirt(c: Canvas) -> Floats:
    cloth, top, length = weave(c, patterned=0.55), c.uniform(-12.5, -10.5), c.uniform(20.0, 25.0)
    sleeve = c.maybe(0.6, c.uniform(10.0, 17.0), c.uniform(2.5, 8.0))
    shape = torso(c, top, length, c.uniform(5.4, 7.6), sleeve)
    neck, down = ellipse(c.x, c.y - top, c.uniform(1.2, 2.6), c.uniform(1.2, 3.6)), c.y - top
    trim = cloth + c.maybe(0.96, c.uniform(0.7, 1.0), 0.1) * (contrasting(c, cloth) - cloth)
    image = paint(0.0, overlap(shape, -neck), cloth)
    image = paint(image, overlap(np.abs(neck - 0.7) - c.uniform(0.2, 1.0), shape), trim)
    image = paint(image, overlap(shape, c.side - c.uniform(-0.2, 0.4), -neck), trim)
    spacing = c.uniform(2.6, 4.0)
    buttons = np.hypot(c.x, down % spacing - spacing / 2) - c.uniform(0.5, 1.0)
    return paint(image, overlap(buttons, 2.0 - down, shape + 1.0), trim)


def shoe(c: Canvas, shaft: Floats, ankle: Floats, dip: Floats, heel: Floats) -> Floats:
    """A closed shoe, toe to the left: its upper rises to `shaft` pixels at x = `ankle` and sinks by `dip` behind."""
    leather, ground, half_length = weave(c, patterned=0.25), c.uniform(5.0, 9.0), c.uniform(10.0, 12.0)
    trim, toe, up = contrasting(c, leather), c.uniform(2.5, 4.5), ground - c.y
    rise = toe + (shaft - toe) * slope((c.x - ankle) / c.uniform(1.0, 3.5)) - dip * slope((c.x - ankle - 3.0) / 1.5)
    toe_cap = np.hypot(np.minimum(c.x + half_length - toe, 0.0), np.maximum(up, 0.0)) - toe
    upper = overlap(up - rise, -up, c.x - half_length, np.where(c.x < toe - half_length, toe_cap, -99.0))
    image = paint(0.0, upper, leather)
    laces = box((c.x * 0.5 + c.y) % 2.2 - 1.1, c.x - ankle + 2.0, 0.4, c.uniform(-1.0, 2.5))
    image = paint(image, overlap(laces, upper + 0.7), trim)
    sole = box(c.x, up, half_length, c.uniform(0.4, 1.4))
    block = box(c.x - half_length + 2.5, up + heel / 2, c.uniform(1.5, 2.5), heel / 2)
    return paint(image, np.minimum(sole, block), leather + c.maybe(0.6, 1.0, 0.0) * (trim - leather))


def sneaker(c: Canvas) -> Floats:
    return shoe(c, c.uniform(6.5, 11.0), c.uniform(-3.0, 3.0), c.uniform(1.0, 3.5), c.uniform(-1.0, 1.0))


def bag(c: Canvas) -> Floats:
    leather, y = weave(c, patterned=0.35), c.y - c.uniform(0.0, 4.0)
    half_width, half_height, trim = c.uniform(7.0, 11.5), c.uniform(4.5, 9.0), contrasting(c, leather)
    body = box(c.x * (1.0 + c.uniform(-0.02, 0.02) * y), y, half_width - 1.0, half_height - 1.0) - 1.0
    loop = ellipse(c.x, y + half_height, half_width * c.uniform(0.35, 0.9), c.uniform(2.0, 11.0))
    handle = overlap(np.abs(loop) - c.maybe(0.85, c.uniform(0.4, 1.0), -1.0), y + half_height)
    image = paint(paint(0.0, body, leather), handle, contrasting(c, leather))
    flap_y = y - half_height * c.uniform(-0.8, 0.6)
    image = paint(image, overlap(body, np.abs(flap_y) - c.maybe(0.6, c.uniform(0.1, 0.8), -1.0)), trim)
    return paint(image, box(c.x, flap_y, c.maybe(0.5, 1.2, -1.0), 1.2), trim)


def ankle_boot(c: Canvas) -> Floats:
    return shoe(c, c.uniform(11.0, 17.0), c.uniform(-1.0, 4.0), c.uniform(-1.0, 1.0), c.uniform(0.0, 4.0))


# A label is a position in this tuple, in Fashion-MNIST's order.
GARMENTS: Final[tuple[Callable[[Canvas], Floats], ...]] = (
    *(t_shirt, trouser, pullover, dress, coat),
    *(sandal, shirt, sneaker, bag, ankle_boot),
)


def photograph(c: Canvas, image: Floats) -> npt.NDArray[np.uint8]:
    """Light, noise on the garment, now and then a dark band across it; tones 0 to 1 become 0 to 255."""
    slant = c.uniform(0.0, np.pi)
    across = np.cos(slant) * c.x + np.sin(slant) * c.y - c.uniform(-9.0, 9.0)
    image = paint(image, np.abs(across) - c.maybe(0.1, c.uniform(0.5, 2.0), -1.0), 0.0)
    noise = c.rng.standard_normal(image.shape, dtype=np.float32)
    image = image * (c.uniform(0.8, 1.05) + c.uniform(0.0, 0.1) * noise)
    pixels: npt.NDArray[np.uint8] = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
    return pixels


def draw_garments(num_images: int, *, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw a data set of random garments; equal arguments always give equal arrays.

    Returns (num_images, 28, 28) uint8 images, a bright garment (up to 255) on a black (0) ground, and
    (num_images,) int64 labels 0 to 9 in Fashion-MNIST's order, shuffled, each num_images / 10 times rounded
    up or down. Raises ValueError if num_images < 1.
    """
    if num_images < 1:
        raise ValueError(f"num_images >= 1 must hold, but got num_images={num_images}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images, dtype=np.int64) % len(GARMENTS))
    images = np.empty((num_images, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    for label, draw in enumerate(GARMENTS):
        places = np.flatnonzero(labels == label)
        for start in range(0, len(places), BATCH_SIZE):
            batch = places[start : start + BATCH_SIZE]
            canvas = lay_canvas(rng, len(batch))
            images[batch] = photograph(canvas, draw(canvas))
    return images, labels
