"""Pictures as people have them, in every format and state, become what the network was trained on."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fmnist_models.data import load_images
from fmnist_models.errors import ImageError
from fmnist_models.image_file import MAX_PIXELS, make_garment, read_garment

Pixels = npt.NDArray[np.uint8]
ROTATED_RIGHT = 6  # EXIF: to be turned by 90 degrees clockwise to be upright


@pytest.fixture(scope="module")
def garments(fashion_mnist_root: Path) -> Pixels:
    return load_images("fashion-mnist", "test", root=fashion_mnist_root, size=200).images


def grey(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels)


def inverted(pixels: Pixels) -> Image.Image:
    return grey(255 - pixels)


def enlarged(image: Image.Image, side: int = 280) -> Image.Image:
    return image.resize((side, side), Image.Resampling.NEAREST)


def cut_out(pixels: Pixels, hidden: int = 0) -> Image.Image:
    """A photograph of the garment without what was around it, of which only ``hidden`` is left."""
    levels = grey(np.where(pixels > 0, 255 - pixels, hidden).astype(np.uint8))
    return Image.merge("RGBA", [levels, levels, levels, grey(np.where(pixels > 0, 255, 0).astype(np.uint8))])


def sixteen_bits(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint16) * 257)


def turned(pixels: Pixels) -> tuple[Image.Image, Image.Exif]:
    exif = Image.Exif()
    exif[0x0112] = ROTATED_RIGHT
    return grey(pixels).transpose(Image.Transpose.ROTATE_90), exif


# What loses nothing must give the very pixels of the data set.
LOSSLESS: dict[str, Callable[[Pixels, Path], None]] = {
    "png": lambda p, path: grey(p).save(path, "PNG"),
    "inverted": lambda p, path: inverted(p).save(path, "PNG"),
    "larger": lambda p, path: enlarged(inverted(p)).save(path, "PNG"),
    "rgb": lambda p, path: inverted(p).convert("RGB").save(path, "PNG"),
    "opaque rgba": lambda p, path: grey(p).convert("RGBA").save(path, "PNG"),
    "grey with alpha": lambda p, path: inverted(p).convert("LA").save(path, "PNG"),
    "palette": lambda p, path: inverted(p).convert("P").save(path, "PNG"),
    "16 bit": lambda p, path: sixteen_bits(255 - p).save(path, "PNG"),
    "16 bit tiff": lambda p, path: sixteen_bits(p).save(path, "TIFF"),
    "gif": lambda p, path: enlarged(inverted(p)).save(path, "GIF"),
    "bmp": lambda p, path: inverted(p).convert("RGB").save(path, "BMP"),
    "tiff": lambda p, path: grey(p).save(path, "TIFF", compression="tiff_lzw"),
    "webp": lambda p, path: inverted(p).convert("RGB").save(path, "WEBP", lossless=True),
    "turned": lambda p, path: turned(p)[0].save(path, "PNG", exif=turned(p)[1]),
    "two pictures": lambda p, path: grey(p).save(path, "TIFF", save_all=True, append_images=[inverted(p.T)]),
}
# What loses something must give nearly the same.
LOSSY: dict[str, Callable[[Pixels, Path], None]] = {
    "jpeg": lambda p, path: enlarged(inverted(p)).convert("RGB").save(path, "JPEG", quality=90),
    "cmyk": lambda p, path: enlarged(inverted(p)).convert("CMYK").save(path, "JPEG", quality=90),
    "transparent grey": lambda p, path: inverted(p).save(path, "PNG", transparency=255),
    "small palette": lambda p, path: inverted(p).quantize(32).save(path, "PNG"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_lossless_kind_of_file_gives_the_pixels_of_the_data_set(
    kind: str, garments: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "garment"
    for pixels in garments[:40]:
        LOSSLESS[kind](pixels, path)
        np.testing.assert_array_equal(read_garment(path).pixels, pixels)


@pytest.mark.parametrize("kind", LOSSY)
def test_every_lossy_kind_of_file_gives_nearly_the_pixels_of_the_data_set(
    kind: str, garments: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / "garment"
    for pixels in garments[:40]:
        LOSSY[kind](pixels, path)
        difference = read_garment(path).pixels.astype(int) - pixels
        assert np.abs(difference).mean() < 8


@pytest.mark.parametrize("hidden", [0, 128, 255])
def test_a_cut_out_garment_stands_before_white_whatever_its_transparent_pixels_hide(
    hidden: int, garments: Pixels
) -> None:
    is_same = [np.array_equal(make_garment(cut_out(pixels, hidden)).pixels, pixels) for pixels in garments]
    assert np.mean(is_same) > 0.95  # but for those that are nearly white, which stand before black


def test_a_white_garment_without_a_background_stands_out_from_it() -> None:
    shirt = np.zeros((28, 28), np.uint8)
    shirt[4:24, 8:20] = 250
    image = Image.merge("LA", [grey(shirt), grey(np.where(shirt > 0, 255, 0).astype(np.uint8))])
    np.testing.assert_array_equal(make_garment(image).pixels, shirt)


def test_the_background_of_every_test_image_is_seen(fashion_mnist_root: Path) -> None:
    images = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=2000).images
    assert not any(make_garment(grey(pixels)).is_inverted for pixels in images)
    assert all(make_garment(inverted(pixels)).is_inverted for pixels in images)


def test_the_aspect_ratio_stays_and_the_rest_is_background() -> None:
    trouser = np.full((300, 100), 230, np.uint8)
    trouser[50:250, 30:70] = 20
    found = make_garment(grey(trouser))
    assert (found.width, found.height, found.is_inverted) == (100, 300, True)
    assert (found.pixels[:, :9] == 25).all()
    assert (found.pixels[:, -10:] == 25).all()
    assert found.pixels[14, 14] == 235


@settings(deadline=None)
@given(
    pixels=st.tuples(st.integers(8, 90), st.integers(8, 90)).flatmap(lambda shape: arrays(np.uint8, shape)),
    mode=st.sampled_from(["L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "YCbCr", "HSV"]),
)
def test_any_picture_becomes_28_by_28_dark_at_its_border(pixels: Pixels, mode: str) -> None:
    found = make_garment(grey(pixels).convert(mode))
    assert (found.pixels.shape, found.pixels.dtype) == ((28, 28), np.uint8)
    height, width = pixels.shape
    assert (found.width, found.height) == (width, height)
    if height >= 2 * width:
        assert (found.pixels[:, 0] <= 128).all()


@settings(deadline=None)
@given(pixels=arrays(np.uint8, (28, 28)), times=st.integers(1, 12))
def test_enlarging_by_a_whole_number_changes_nothing(pixels: Pixels, times: int) -> None:
    image = grey(pixels)
    once, larger = make_garment(image), make_garment(enlarged(image, 28 * times))
    if times == 1 or once.is_inverted == larger.is_inverted:  # a border of noise has a median at its mercy
        np.testing.assert_array_equal(once.pixels, larger.pixels)


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is so large, and its end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SMALL = encoded(Image.new("L", (28, 28)), "PNG")
NO_PICTURES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not an image"),
    "text": (b"a shirt\n", "is not an image"),
    "cut short": (encoded(Image.effect_noise((99, 99), 50), "PNG")[:2000], "damaged"),
    "cut jpeg": (encoded(Image.effect_noise((99, 99), 50), "JPEG")[:2000], "damaged"),
    "altered": (SMALL.replace(b"IDAT", b"IDAT", 1)[:-20] + b"\0" * 20, "damaged"),
    "one pixel": (encoded(Image.new("RGB", (1, 1)), "PNG"), r"has 1x1 pixels.*at least 8"),
    "a line": (encoded(Image.new("RGB", (5000, 2)), "PNG"), "has 5000x2 pixels"),
    "no pixel": (png(0, 0), "not an image|damaged"),
    "bomb": (png(10_000, 10_000), r"has 10000x10000 pixels, which is too many; valid: at most 67,108,864"),
    "large bomb": (png(100_000, 100_000), "has too many pixels"),
    "decoded bomb": (encoded(Image.new("1", (10_000, 10_000)), "PNG"), "has 10000x10000 pixels"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", "is not an image"),
    "transparent": (encoded(Image.new("RGBA", (28, 28)), "PNG"), "is transparent all over"),
    "floats": (encoded(Image.new("F", (28, 28)), "TIFF"), "more than 16 bits"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_what_is_no_picture_of_a_garment_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    content, message = NO_PICTURES[kind]
    path = tmp_path / "mine.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_garment(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused_by_its_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    Path(tmp_path, "large").touch()
    os.truncate(tmp_path / "large", 2**33)
    for name, message in (("pipe", "plain file"), (".", "plain file"), ("none", "No such file"), ("large", "bytes")):
        with pytest.raises(ImageError, match=message):
            read_garment(tmp_path / name)
    with pytest.raises(ImageError, match="cannot be read"):
        read_garment(Path("a\0b"))


@settings(deadline=None)
@given(position=st.integers(0, len(SMALL) - 1), value=st.integers(0, 255), kind=st.sampled_from(["PNG", "TIFF", "GIF"]))
def test_any_altered_byte_is_a_picture_or_an_error(position: int, value: int, kind: str) -> None:
    content = bytearray(encoded(Image.linear_gradient("L").resize((28, 28)), kind))
    content[position % len(content)] = value
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ImageError):
        path = Path(folder, "altered")
        path.write_bytes(content)
        assert read_garment(path).pixels.shape == (28, 28)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a RIFF file."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WEBP" + b"".join(chunks))


def three_bytes(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def gif(screen: int, frame: int, *, before: bytes = b"") -> bytes:
    control = b"\x21\xf9\x04\x09\0\0\0\0"  # what is left of a frame is to be cleared
    head = b"GIF89a" + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + before + control + b"\x2c" + struct.pack("<HHHHB", 0, 0, frame, frame, 0) + b"\x02\x02\x44\x01\0\x3b"


def tiff(side: int, *, tile: int | None = None, compression: int = 5) -> bytes:
    places = {273: 8, 278: side, 279: 8} if tile is None else {322: tile, 323: tile, 324: 8, 325: 8}
    tags = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 277: 1, **places}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + struct.pack("<H", len(tags)) + entries + b"\0" * 4


BIG = 13_000  # a side; Pillow itself refuses no fewer than 13,378
VP8L = chunk(b"VP8L", b"\x2f" + struct.pack("<I", BIG - 1 | BIG - 1 << 14) + b"\0")
CANVAS = three_bytes(BIG - 1) + three_bytes(BIG - 1)
DECLARING_MUCH: dict[str, bytes] = {
    "png": png(BIG, BIG),
    "jpeg": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, BIG, BIG, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    b"\xff\xda" + struct.pack(">H", 12) + b"\3\1\0\2\0\3\0\0\x3f\0\0\0\0\0\xff\xd9",
    "gif": gif(BIG, BIG),
    "gif, a small frame": gif(BIG, 30),
    "gif, a small screen": gif(30, BIG, before=b"\x21\xfe\x02hi\0"),
    "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, BIG, BIG, 1, 24, *[0] * 6),
    "tiff": tiff(BIG),
    "tiff, a tile": tiff(64, tile=32_768),
    "tiff, a deflated tile": tiff(64, tile=32_768, compression=8),
    "webp, lossy": riff(chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", BIG, BIG))),
    "webp, lossless": riff(VP8L),
    "webp, animated": riff(
        chunk(b"VP8X", b"\x02\0\0\0" + CANVAS),
        chunk(b"ANIM", b"\0" * 6),
        chunk(b"ANMF", b"\0" * 6 + CANVAS + b"\0" * 4 + VP8L),
    ),
}


OF_MANY_PARTS = {
    "gif, trailers": gif(30, 30)[:19] + b"\x3b" * 2**20,
    "gif, an extension": gif(30, 30, before=b"\x21\xfe" + b"\x01." * 2**20 + b"\0"),
    "webp": riff(b"JUNK\0\0\0\0" * 2**20),
}


@pytest.mark.parametrize("name", OF_MANY_PARTS)
def test_a_file_of_a_million_parts_is_refused_after_some_of_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(OF_MANY_PARTS[name])
    with pytest.raises(ImageError, match=f"{name} has more than 10,000 parts"):
        read_garment(tmp_path / name)


def test_a_file_that_declares_too_many_pixels_is_refused_before_they_take_memory(tmp_path: Path) -> None:
    for name, content in DECLARING_MUCH.items():
        Path(tmp_path, name).write_bytes(content)
    script = """
import resource, sys
from pathlib import Path
from PIL import Image
from fmnist_models.errors import ImageError
from fmnist_models.image_file import read_garment
Image.init()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 48 * 2**20,) * 2)
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_garment(path)
    except ImageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(DECLARING_MUCH)
    for line in lines:
        assert re.search(r"has \d+x\d+ pixels, which is too many; valid: at most", line), line


@pytest.mark.slow
def test_the_largest_picture_there_may_be_takes_a_gibibyte_and_a_half_at_most(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5)
    path = tmp_path / "large.png"
    Image.new("RGBA", (side, side), (200, 10, 10, 255)).save(path, compress_level=1)
    script = (
        "import resource, sys; from pathlib import Path; from fmnist_models.image_file import read_garment\n"
        "read_garment(Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * 2**20
