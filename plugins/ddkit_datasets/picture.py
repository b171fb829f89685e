"""One image file as Pillow reads it, refused where something in it would be lost in silence."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ddkit.paths import reason

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's other formats are rare, and one of them (EPS) starts a program.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_GREY = frozenset({"1", "L"})
_PLAIN = _GREY | {"P", "RGB"}
_WITH_ALPHA = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB"}
_BITS_PER_SAMPLE = 258  # TIFF's tag
_STEPS = {"L;2": 85, "L;4": 17}  # grey levels from one stored value to the next
_CONVERT = "convert it to 8-bit grey or RGB"


class Flaw(Exception):
    """Why a file cannot be used; flaws of the lowest rank are reported first."""

    def __init__(self, rank: int, text: str):
        super().__init__(text)
        self.rank, self.text = rank, text


def open_picture(path: str, published: bool) -> tuple[Image, bool]:
    """Return the picture in `path` and whether it is grey.

    With `published` it is as Pillow opens it: of any mode, the first of several frames. Else it is
    turned upright, of 8 bits, grey, with a palette or RGB, and without alpha: a picture that is
    opaque throughout gives its grey or RGB.

    Raises:
        Flaw: it cannot be read, is no image, damaged, or too large; or, unless `published`, holds
            several pictures, transparent pixels, more than 8 bits or other channels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Flaw(0, f"cannot be read: {reason(error)}") from None
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=_FORMATS)
        if published:
            image.load()
            return image, image.mode in _GREY
        _check_whole(image)
        upright = "exif" in image.info
        _stretch(image)
        image.load()
        image = _opaque(image)
        return (ImageOps.exif_transpose(image) if upright else image), image.mode in _GREY
    except UnidentifiedImageError:
        raise Flaw(
            0, "is not an image that is read here (JPEG, PNG, BMP, GIF, PPM, TIFF, WebP)"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Flaw(0, f"is too large: over {largest():,} pixels; make it smaller") from None
    except MemoryError:
        raise Flaw(0, "takes more memory than this machine gives; make it smaller") from None
    except Flaw:
        raise
    except Exception as error:  # parsers of damaged files raise nearly anything
        raise Flaw(0, f"is damaged: {reason(error)}") from None


def largest() -> int:
    """Return how many pixels Pillow opens at most: more is taken for an attack on memory."""
    from PIL import Image

    return 2 * (Image.MAX_IMAGE_PIXELS or 2**62)


def _check_whole(image: Image) -> None:
    """Refuse what 8-bit grey or RGB of one frame does not hold.

    Cameras put previews behind the photograph (MPO), which nobody means.
    """
    if getattr(image, "is_animated", False) and image.format != "MPO":
        count = getattr(image, "n_frames", 2)
        raise Flaw(1, f"holds {count} pictures; save the one that is meant by itself")
    if _deep(image):
        raise Flaw(1, f"has more than 8 bits per channel ({image.mode}); {_CONVERT}")
    if image.mode not in _PLAIN and image.mode not in _WITH_ALPHA:
        bands = len(image.getbands())
        if bands > 3:
            what = f"{bands} channels ({image.mode}); at most 3 are supported, convert it to RGB"
            raise Flaw(1, f"has {what}")
        raise Flaw(1, f"has pixels of type {image.mode}; {_CONVERT}")


def _deep(image: Image) -> bool:
    """Whether the file has more than 8 bits per channel, of which Pillow would drop the rest."""
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, 1)  # type: ignore[attr-defined]
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    arguments = _arguments(image)
    if image.format == "PPM":
        return any(isinstance(a, int) and a > 255 for a in arguments)
    return any(isinstance(a, str) and ";16" in a for a in arguments)


def _arguments(image: Image) -> tuple[object, ...]:
    """Return what Pillow's decoder is given, by which it knows how pixels are stored."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ()
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _stretch(image: Image) -> None:
    """Bring the transparent level of grey of 2 or 4 bits to 8, as Pillow does with pixels alone."""
    stored = str(next(iter(_arguments(image)), ""))
    if stored in _STEPS and "transparency" in image.info:
        image.info["transparency"] *= _STEPS[stored]


def _opaque(image: Image) -> Image:
    """Return `image` without its alpha channel or transparent colour.

    Raises:
        Flaw: pixels are transparent: what is stored below them is not what anybody sees.
    """
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return image
    alpha = image.convert("RGBA").getchannel("A")
    if alpha.getextrema() != (255, 255):
        clear = image.width * image.height - alpha.histogram()[255]
        raise Flaw(
            1,
            f"has transparent pixels ({clear:,} of {image.width * image.height:,}), whose colour "
            "nobody sees; paint it over a background and save it without transparency",
        )
    image.info.pop("transparency", None)
    return image.convert(_WITH_ALPHA.get(image.mode, image.mode))
