"""Whether this server is about to stop: one flag that the first process sets and its workers read."""

from __future__ import annotations

import mmap

#: A page that forked processes share.
_page = mmap.mmap(-1, 1)


def drain() -> None:
    """From now on ``/readyz`` says that this server is stopping; everything else goes on."""
    _page[0] = 1


def draining() -> bool:
    """Whether :func:`drain` was called, in this process or the one that it was forked from."""
    return bool(_page[0])
