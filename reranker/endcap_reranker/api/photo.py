"""A search by photo: what an upload or a JSON body with ``image_url`` asks for."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from endcap.errors import InvalidInput, TooLarge
from endcap.images.fetching import Fetcher
from endcap.settings import Settings
from endcap_reranker.api.parameters import SearchParameters, checked, from_query

UPLOAD = "multipart/form-data"
#: What the form around a picture may add to it.
_FORM_BYTES = 100_000


def uploaded(request: Request, settings: Settings) -> tuple[SearchParameters, bytes]:
    """The parameters and the picture (part ``image``) of an upload; the other parts are named as in a query string.

    Raises:
        InvalidInput: no picture, or a parameter is wrong.
        TooLarge: longer than ``max_image_bytes``.
    """
    limit = settings.max_image_bytes + _FORM_BYTES
    request.max_content_length = limit
    request.max_form_memory_size = _FORM_BYTES
    message = f"the upload exceeds {settings.max_image_bytes} bytes (setting max_image_bytes)"
    if (request.content_length or 0) > limit:
        raise TooLarge(message)
    try:
        file = request.files.get("image")
        form = request.form
    except RequestEntityTooLarge:
        raise TooLarge(message) from None
    if file is None:
        raise InvalidInput("send the picture as the part `image` of the form")
    data = file.read(settings.max_image_bytes + 1)
    if len(data) > settings.max_image_bytes:
        raise TooLarge(message)
    return from_query(form), data


def named(body: bytes, fetcher: Fetcher, settings: Settings) -> tuple[SearchParameters, bytes] | None:
    """The parameters and the picture of a JSON body with ``image_url`` or ``image`` (base64); None for a body without
    either, whatever it is.

    Raises:
        InvalidInput, ImageUnavailable, InvalidImage: the picture cannot be had.
        TooLarge: longer than ``max_image_bytes``.
    """
    if b'"image' not in body:  # most searches are about words
        return None
    try:
        raw = orjson.loads(body) if body.strip() else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(raw, dict) or not {"image", "image_url"} & raw.keys():
        return None
    values: dict[str, Any] = dict(raw)
    address, encoded = values.pop("image_url", None), values.pop("image", None)
    if (address is None) == (encoded is None):
        raise InvalidInput("send image_url or image, not both")
    if not isinstance(address if encoded is None else encoded, str):
        raise InvalidInput("image_url and image are texts")
    wanted = checked(SearchParameters, values)
    if encoded is None:
        return wanted, fetcher.url(address)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("image is not base64") from None
    if len(data) > settings.max_image_bytes:
        raise TooLarge(f"image exceeds {settings.max_image_bytes} bytes (setting max_image_bytes)")
    return wanted, data


def refuse_other(mimetype: str) -> None:
    """Raises UnsupportedMediaType for a picture sent bare: its type says nothing about the parameters."""
    if mimetype.startswith("image/"):
        raise UnsupportedMediaType(f"{mimetype:.60}: send the picture as the part `image` of a form")
