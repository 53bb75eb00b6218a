"""Bytes from outside -> an image, with what a hostile or broken file can do kept in bounds."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from endcap.images.errors import InvalidImage

#: What shops and phones send. Everything else (SVG, PDF, TIFF, …) is refused: more parsers, more holes.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_BYTES = 10_000_000
MAX_PIXELS = 40_000_000
#: No encoder here looks at more; a large photo is made smaller while it is decoded.
_SIDE = 640


def read_image(data: bytes, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in RGB, upright as its camera meant it, shorter side at most about twice what encoders read.

    The size is known from the header before a pixel is decoded, so that a file of some kilobytes which unfolds to
    gigabytes (a decompression bomb) costs nothing.

    Raises:
        InvalidImage: not an image, of another format, too large, cut off or corrupt.
    """
    if not data:
        raise InvalidImage("the image is empty")
    if len(data) > max_bytes:
        raise InvalidImage(f"the image has {len(data):,} bytes; at most {max_bytes:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > max_pixels:
                    raise InvalidImage(
                        f"the image has {width:,} × {height:,} pixels; at most {max_pixels / 1e6:g} million are read"
                    )
                if min(width, height) < 8:
                    raise InvalidImage(f"the image has {width} × {height} pixels: too small to see anything")
                opened.draft("RGB", (_SIDE, _SIDE))  # JPEG only: decodes at a half, a quarter or an eighth
                picture = ImageOps.exif_transpose(opened)
                return _on_white(picture)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise InvalidImage(f"no image that can be read ({', '.join(FORMATS)}): {str(error)[:200]}") from None
    except Image.DecompressionBombWarning:
        raise InvalidImage(f"the image has too many pixels; at most {max_pixels / 1e6:g} million are read") from None


def _on_white(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, as product pictures are shown on it."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
