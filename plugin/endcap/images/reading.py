"""Bytes from outside -> an image, with what a hostile or broken file can do kept in bounds."""

from __future__ import annotations

import io
import threading

from PIL import Image, ImageOps

from endcap.images.errors import InvalidImage

#: What shops and phones send. Everything else (SVG, PDF, TIFF, …) is refused: more parsers, more holes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 40_000_000
MIN_SIDE = 8
#: Longer side : shorter side. Encoders scale the shorter one to theirs, which would make a line of pixels enormous.
MAX_RATIO = 20
#: No encoder here looks at more of the shorter side; a larger photo is made smaller at once.
SIDE = 640
#: Pictures decoded at a time: a large PNG takes some 160 MB until it is made smaller.
_DECODING = threading.BoundedSemaphore(2)


def read_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in RGB, upright as its camera meant it, shorter side at most :data:`SIDE`.

    The size is known from the header before a pixel is decoded, so that a file of some kilobytes which unfolds to
    gigabytes (a decompression bomb) costs nothing. Bytes are bounded by whoever fetched them.

    Raises:
        InvalidImage: not an image, of another format, too large, too narrow, cut off or corrupt.
    """
    if not data:
        raise InvalidImage("the image is empty")
    try:
        with _DECODING, Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(*opened.size, max_pixels)
            opened.draft("RGB", (SIDE, SIDE))  # JPEG only: decodes at a half, a quarter or an eighth
            opened.load()
            return _upright(_on_white(_smaller(opened)))
    except InvalidImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidImage(f"the image has too many pixels; at most {max_pixels / 1e6:g} million are read") from None
    except Exception as error:  # parsers of hostile bytes fail in every way there is: struct.error, zlib.error, …
        reason = "of another format or broken" if isinstance(error, Image.UnidentifiedImageError) else str(error)[:200]
        raise InvalidImage(f"no image that can be read ({', '.join(FORMATS)}): {reason}") from None


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise InvalidImage(
            f"the image has {width:,} × {height:,} pixels; at most {max_pixels / 1e6:g} million are read"
        )
    if min(width, height) < MIN_SIDE:
        raise InvalidImage(f"the image has {width} × {height} pixels: too small to see anything")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidImage(f"the image has {width:,} × {height:,} pixels: too narrow to see anything")


def _smaller(picture: Image.Image) -> Image.Image:
    factor = min(picture.size) // SIDE
    if picture.mode == "P":  # colours of a palette cannot be averaged
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif picture.mode.startswith("I"):  # 16 bits of grey
        picture = picture.point(lambda value: value / 256).convert("L")
    if factor > 1:
        made = picture.reduce(factor)
        made.info = picture.info
        picture = made
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a broken note of the camera does not make a broken picture
        return picture


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, as product pictures are shown on it."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
