"""Text (and later image) encoders behind one protocol."""

from endcap.encoders.base import TextEncoder

__all__ = ["TextEncoder"]
