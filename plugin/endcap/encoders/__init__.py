"""Text (and later image) encoders behind one protocol."""

from endcap.encoders.base import Progress, TextEncoder
from endcap.encoders.opening import open_text_encoder, text_encoder_at_hand

__all__ = ["Progress", "TextEncoder", "open_text_encoder", "text_encoder_at_hand"]
