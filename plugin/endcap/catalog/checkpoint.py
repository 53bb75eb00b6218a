"""Remembers how far an indexing run came, so that the next one goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from endcap.files import write_atomically


class Checkpoint:
    """How many products of some files are durable in an index: a small file in the data folder.

    Valid for the same files (path, size and time of change), the same index and the same options alone.
    """

    def __init__(self, data_dir: Path, paths: Sequence[Path], options: Sequence[str]) -> None:
        parts = [*options]
        for path in paths:
            status = path.stat()
            parts.append(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}")
        key = hashlib.blake2b("\0\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
        self._file = data_dir / "indexing" / f"{key}.json"

    def products(self) -> int:
        """Products that an earlier run left durable; 0 if there was none, or it ended."""
        try:
            return max(0, int(orjson.loads(self._file.read_bytes())["products"]))
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def save(self, products: int) -> None:
        """Remember that so many are durable."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._file, orjson.dumps({"products": products}))

    def done(self) -> None:
        """The run ended: the next one starts from the beginning."""
        self._file.unlink(missing_ok=True)
