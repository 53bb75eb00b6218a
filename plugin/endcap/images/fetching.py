"""Where a picture comes from: a file in the shop's folder, or a URL on a host that the settings allow."""

from __future__ import annotations

import time
from pathlib import Path

import urllib3

from endcap.errors import InvalidInput
from endcap.images.errors import ImageUnavailable, InvalidImage

_TIMEOUT = urllib3.Timeout(connect=3.0, read=10.0)
#: Seconds for a whole picture: a host that sends a byte now and then holds nobody longer.
_PATIENCE_S = 20.0
_BLOCK = 1 << 16


class Fetcher:
    """Gets pictures. Thread-safe. Hosts are named one by one: a server that fetches whatever it is told reaches what
    only it can reach (request forgery). Redirects are not followed, for the same reason."""

    def __init__(self, hosts: list[str], folder: str = "", max_bytes: int = 10_000_000) -> None:
        """``hosts``: ``cdn.shop.example`` or ``cdn.shop.example:8443``. ``folder``: of pictures named by their path."""
        self._hosts = frozenset(host.lower() for host in hosts)
        self._folder = Path(folder).resolve() if folder else None
        self._max_bytes = max_bytes
        self._pool = urllib3.PoolManager(maxsize=8, block=True, retries=False, timeout=_TIMEOUT)

    def url(self, address: str) -> bytes:
        """The bytes behind a URL.

        Raises:
            InvalidInput: not http(s), or a host that is not allowed.
            ImageUnavailable: the host does not answer, or not with a picture.
            InvalidImage: it is too large.
        """
        try:
            parts = urllib3.util.parse_url(address)  # by the library that fetches: two readers may see two hosts
        except (ValueError, urllib3.exceptions.HTTPError):
            raise InvalidInput("the image's URL cannot be read") from None
        host = (parts.host or "").lower()
        named = f"{host}:{parts.port}" if parts.port else host
        if parts.scheme not in ("http", "https") or not host or parts.auth:
            raise InvalidInput("the image's URL must begin with http:// or https:// and a host")
        if named not in self._hosts:
            raise InvalidInput(f"images are not fetched from {named:.100}: the setting image_hosts names the hosts")
        until = time.monotonic() + _PATIENCE_S
        plain = {"Accept-Encoding": "identity"}  # a picture is compressed already, and may not unfold here
        try:
            answer = self._pool.request("GET", parts.url, headers=plain, redirect=False, preload_content=False)
        except urllib3.exceptions.HTTPError as error:
            raise ImageUnavailable(f"{named} does not give the image: {type(error).__name__}") from None
        try:
            if answer.status != 200:
                raise ImageUnavailable(f"{named} answered {answer.status} for the image")
            data = bytearray()
            # What has come so far, not a whole block: a block of a host that trickles could take for ever.
            while block := answer.read1(_BLOCK, decode_content=False):
                data += block
                if len(data) > self._max_bytes:
                    raise InvalidImage(f"the image has more than {self._max_bytes:,} bytes")
                if time.monotonic() > until:
                    raise ImageUnavailable(f"{named} takes too long for the image")
            return bytes(data)
        except urllib3.exceptions.HTTPError as error:
            raise ImageUnavailable(f"{named} broke off: {type(error).__name__}") from None
        finally:
            answer.close()  # what was not read must not be taken for the next answer
            answer.release_conn()

    def product(self, image: str) -> bytes:
        """The picture of a product: its URL, or its path below the shop's folder of pictures.

        Raises:
            InvalidInput: neither; or a path that leads out of the folder.
            ImageUnavailable, InvalidImage: see :meth:`url`.
        """
        if image.startswith(("http://", "https://")):
            return self.url(image)
        file = self.file(image)
        try:
            if file.stat().st_size > self._max_bytes:
                raise InvalidImage(f"the image has more than {self._max_bytes:,} bytes")
            return file.read_bytes()
        except OSError as error:
            raise ImageUnavailable(f"the image {image:.100} cannot be read: {error.strerror}") from None

    def file(self, image: str) -> Path:
        """Where a picture named by its path lies; it need not be there.

        Raises:
            InvalidInput: there is no folder of pictures, or the path leads out of it, by links too.
        """
        if self._folder is None:
            raise InvalidInput(f"the image {image:.100} is no URL, and the setting image_dir names no folder")
        try:
            file = (self._folder / image.lstrip("/")).resolve()
        except (ValueError, OSError, RuntimeError):
            raise InvalidInput(f"the image {image:.100} is no path") from None
        if not file.is_relative_to(self._folder):
            raise InvalidInput(f"the image {image:.100} lies outside image_dir")
        return file

    def version(self, image: str) -> str:
        """Changes when a picture in the folder does; empty for those on other hosts, which are not asked."""
        if image.startswith(("http://", "https://")):
            return ""
        try:
            status = self.file(image).stat()
        except (InvalidInput, OSError):
            return ""
        return f"{status.st_size}:{status.st_mtime_ns}"
