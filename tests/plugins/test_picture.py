"""What is in an image file: what is read as it is seen, and what is refused."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddkit_datasets import picture
from ddkit_datasets.picture import Flaw, open_picture

NOISE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
RGB = Image.fromarray(NOISE)
INVERSE = Image.fromarray(255 - NOISE)


def png(path: Path, depth: int, colour: int, row: bytes, extra: bytes = b"", side: int = 4) -> Path:
    """Write a PNG of four rows of 4 pixels by hand: Pillow writes no such depths and sizes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    seen = chunk(b"tRNS", extra) if extra else b""
    body = chunk(b"IHDR", header) + seen + chunk(b"IDAT", zlib.compress((b"\0" + row) * 4))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))
    return path


def with_alpha(value: int) -> Image.Image:
    """Return the noise as RGBA, of which one pixel has the alpha `value`."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[2, 3] = value
    return Image.fromarray(np.dstack([NOISE, alpha]))


def refusal(path: Path) -> str:
    with pytest.raises(Flaw) as caught:
        open_picture(str(path), published=False)
    assert "\n" not in caught.value.text
    return caught.value.text


def read(path: Path) -> tuple[np.ndarray, bool]:
    image, grey = open_picture(str(path), published=False)
    return np.asarray(image), grey


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_an_opaque_alpha_channel_is_read_as_colour_and_a_transparent_pixel_refused(
    tmp_path: Path, ending: str
):
    path = tmp_path / f"a.{ending}"
    with_alpha(255).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(read(path)[0], NOISE)
    with_alpha(254).save(path)
    assert "has transparent pixels (1 of 64)" in refusal(path)


def test_grey_with_an_opaque_alpha_channel_is_grey(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("LA", (4, 4), (7, 255)).save(path)
    pixels, grey = read(path)
    assert grey and pixels.tolist() == [[7] * 4] * 4
    Image.new("LA", (4, 4), (7, 0)).save(path)
    assert "transparent pixels (16 of 16)" in refusal(path)


def test_a_transparent_entry_of_a_palette_counts_where_a_pixel_has_it(tmp_path: Path):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 255, 0] + [255, 0, 0] * 255)
    image.putpixel((4, 4), 1)
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=0)
        assert "transparent pixels (63 of 64)" in refusal(tmp_path / name)
    for transparency in (9, bytes([255] * 256)):
        image.save(tmp_path / "a.png", transparency=transparency)
        opaque, _ = open_picture(str(tmp_path / "a.png"), published=False)
        assert opaque.convert("RGB").getpixel((4, 4)) == (255, 0, 0)


def test_a_transparent_colour_of_grey_or_rgb_counts_where_a_pixel_has_it(tmp_path: Path):
    path = tmp_path / "a.png"
    for mode, colour, other in (("RGB", (0, 255, 0), (0, 254, 0)), ("L", 3, 4), ("1", 1, 0)):
        Image.new(mode, (8, 8), colour).save(path, transparency=colour)
        assert "transparent pixels (64 of 64)" in refusal(path)
        Image.new(mode, (8, 8), colour).save(path, transparency=other)
        read(path)


@pytest.mark.parametrize("depth, row", [(2, b"\x1b"), (4, b"\x10\x22")])
def test_the_transparent_level_of_grey_of_few_bits_is_found(tmp_path: Path, depth: int, row: bytes):
    assert "(4 of 16)" in refusal(png(tmp_path / "a.png", depth, 0, row, extra=b"\0\1"))
    assert read(png(tmp_path / "b.png", depth, 0, b"\0" * len(row), extra=b"\0\1"))[1]


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_a_file_of_several_pictures_is_refused_and_one_of_one_read(tmp_path: Path, ending: str):
    path = tmp_path / f"a.{ending}"
    RGB.save(path, save_all=True, append_images=[INVERSE])
    assert refusal(path).startswith("holds 2 pictures")
    RGB.save(path)
    with Image.open(path) as plain:
        expected = np.asarray(plain.convert("RGB"))
    image, _ = open_picture(str(path), published=False)
    assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_a_photograph_with_a_preview_behind_it_is_the_photograph(tmp_path: Path):
    first, second = (Image.new("RGB", (8, 8), (level,) * 3) for level in (200, 20))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])
    path = (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read(path)[0].tolist() == [[[200] * 3] * 8] * 8


@pytest.mark.parametrize("colour, row", [(0, 8), (2, 24), (4, 16), (6, 32)])
def test_sixteen_bits_per_channel_are_refused_in_every_kind_of_png(
    tmp_path: Path, colour: int, row: int
):
    assert "more than 8 bits per channel" in refusal(
        png(tmp_path / "a.png", 16, colour, bytes(row))
    )


def test_more_than_eight_bits_are_refused_in_other_formats(tmp_path: Path):
    (tmp_path / "a.ppm").write_bytes(b"P6 2 2 1000\n" + bytes(24))
    assert "more than 8 bits per channel" in refusal(tmp_path / "a.ppm")
    Image.new("I;16", (4, 4)).save(tmp_path / "a.tif")
    assert "more than 8 bits per channel" in refusal(tmp_path / "a.tif")


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def forbid(_: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", forbid)
    assert refusal(tmp_path / "a.png") == "cannot be read: Permission denied"


@pytest.mark.parametrize("published", [False, True])
def test_a_very_large_picture_is_not_called_damaged(tmp_path: Path, published: bool):
    png(tmp_path / "a.png", 8, 2, bytes(12), side=14000)
    with pytest.raises(Flaw, match=r"is too large: over 178,956,970 pixels"):
        open_picture(str(tmp_path / "a.png"), published)


def test_what_is_turned_upright_is_so_without_its_alpha_channel(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with_alpha(255).rotate(90).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png")[0], NOISE)


def test_published_data_are_taken_as_published_code_takes_them(tmp_path: Path):
    RGB.save(tmp_path / "a.gif", save_all=True, append_images=[INVERSE])
    with_alpha(0).save(tmp_path / "a.png")
    modes = [open_picture(str(tmp_path / n), True)[0].mode for n in ("a.gif", "a.png")]
    assert modes == ["P", "RGBA"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of TIFF cut short
def test_every_flaw_is_one_of_the_picture(tmp_path: Path):
    """Cut a file of each format at every length: it is read or refused, and nothing else comes."""
    for ending in ("png", "gif", "jpg", "bmp", "ppm", "webp", "tif"):
        RGB.save(tmp_path / f"a.{ending}")
        whole = (tmp_path / f"a.{ending}").read_bytes()
        for length in range(0, len(whole), 23):
            (tmp_path / "cut").write_bytes(whole[:length])
            try:
                picture.open_picture(str(tmp_path / "cut"), published=False)
            except Flaw as flaw:
                assert flaw.rank == 0, (ending, length, flaw.text)
