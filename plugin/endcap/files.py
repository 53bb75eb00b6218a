"""Files that are whole or not there: written beside their place, then put there in one step."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to, which takes its place where the block ends without an error.

    A kill or a full disk leaves the old file; other processes and threads may do the same at the same time.

    Args:
        durable: wait until it is on the disk. Without that a power cut may leave an empty file: right for what is made
            anew where it is missing or damaged.

    Raises:
        OSError: what the block or the disk said; nothing was left behind.
    """
    # Numbers of processes and threads come again: what kills leave behind stays bounded.
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file, whole or not at all; see :func:`replacing`."""
    with replacing(path, durable) as partial:
        partial.write_bytes(content)


def write_through(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk; for a folder that becomes visible as a whole."""
    path.write_bytes(content)
    sync(path)


def sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's new names are on the disk, where the system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
