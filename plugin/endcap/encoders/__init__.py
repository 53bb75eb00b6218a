"""Text (and later image) encoders behind one protocol."""

from endcap.encoders.base import Progress, TextEncoder
from endcap.encoders.opening import open_text_encoder

__all__ = ["Progress", "TextEncoder", "open_text_encoder"]
