"""Two trainings that write cases and checkpoints into one folder would spoil both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from endcap.errors import ConfigurationError


@contextmanager
def alone(lock: Path, taken: str) -> Iterator[None]:
    """Hold a lock file, which goes with its process.

    Raises:
        ConfigurationError: another process holds it; ``taken`` is the message.
        OSError: the file cannot be written.
    """
    held = FileLock(lock, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise ConfigurationError(taken) from None
    try:
        yield
    finally:
        held.release()
