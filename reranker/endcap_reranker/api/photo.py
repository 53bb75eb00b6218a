"""A search by photo: what an upload or a JSON body with ``image_url`` asks for."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from endcap.errors import InvalidInput, TooLarge
from endcap.images.errors import PhotosBusy
from endcap.images.fetching import Fetcher
from endcap.settings import Settings
from endcap_reranker.api.parameters import SearchParameters, checked, from_query

UPLOAD = "multipart/form-data"
#: What the form around a picture may add to it.
_FORM_BYTES = 100_000


class PhotoSlots:
    """How many searches by photo may be under way at once. An upload that trickles in, a host that is slow with a
    picture and the decoding each hold a thread of the server, and other searches need the rest of them."""

    def __init__(self, settings: Settings) -> None:
        self._count = max(1, min(settings.photo_searches, settings.server_threads // 2))
        self._free = threading.BoundedSemaphore(self._count)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one of them. Nobody waits for one: whoever waits holds a thread, too.

        Raises:
            PhotosBusy: none is free.
        """
        if not self._free.acquire(blocking=False):
            raise PhotosBusy(
                f"{self._count} searches by photo are under way, no more are taken at once (setting photo_searches): "
                "try again in a moment"
            )
        try:
            yield
        finally:
            self._free.release()


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


def named(body: bytes, settings: Settings) -> tuple[SearchParameters, str | bytes] | None:
    """The parameters of a JSON body with ``image_url`` or ``image`` (base64), and the picture's address or its bytes;
    None for a body without either, whatever it is. Nothing is fetched yet, see :func:`picture_of`.

    Raises:
        InvalidInput: it names no picture that can be had.
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
        return wanted, str(address)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("image is not base64") from None
    if len(data) > settings.max_image_bytes:
        raise TooLarge(f"image exceeds {settings.max_image_bytes} bytes (setting max_image_bytes)")
    return wanted, data


def picture_of(source: str | bytes, fetcher: Fetcher) -> bytes:
    """The bytes of a picture: fetched where ``source`` is an address.

    Raises:
        InvalidInput, ImageUnavailable, InvalidImage: see :meth:`Fetcher.url`.
    """
    return fetcher.url(source) if isinstance(source, str) else source


def refuse_other(mimetype: str) -> None:
    """Raises UnsupportedMediaType for a picture sent bare: its type says nothing about the parameters."""
    if mimetype.startswith("image/"):
        raise UnsupportedMediaType(f"{mimetype:.60}: send the picture as the part `image` of a form")
