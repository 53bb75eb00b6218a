"""Writing what may be lost rather than slow a search down: a bounded queue in front of a store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from endcap.errors import EndcapError

T = TypeVar("T")


class Background(Generic[T]):
    """Takes items in at once and writes them when :meth:`turn` is called, by a thread of the upkeep. Thread-safe.

    While the store fails, items wait and the queue fills; when it is full, further ones are dropped and counted. An
    item given in just before the process is killed is lost, too: only what nobody waits for belongs here.
    """

    def __init__(self, write: Callable[[Sequence[T]], object], capacity: int = 10_000, batch: int = 500) -> None:
        """``write`` stores a batch whole or not at all, and takes one twice without harm."""
        self._write = write
        self._capacity = capacity
        self._batch = batch
        self._waiting: deque[T] = deque()
        self._lock = threading.Lock()
        self.written = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, item: T) -> bool:
        """Take the item in; False where there is no room for it."""
        if len(self._waiting) >= self._capacity:  # a few more than that, where threads race, do no harm
            self.dropped += 1
            return False
        self._waiting.append(item)
        return True

    def turn(self) -> float:
        """Write all that waits. Gives 0: no rest is wanted beyond the usual.

        Raises:
            EndcapError: the store's; what was not written goes on waiting.
        """
        with self._lock:
            while self._waiting:
                batch = [self._waiting[place] for place in range(min(self._batch, len(self._waiting)))]
                try:
                    self._write(batch)
                except EndcapError:
                    raise
                except Exception:
                    # It would fail again and again, and everything behind it would wait for ever.
                    self._done(batch)
                    self.dropped += len(batch)
                    raise
                self._done(batch)
                self.written += len(batch)
        return 0.0

    def _done(self, batch: Sequence[T]) -> None:
        for _ in batch:
            self._waiting.popleft()

    def close(self) -> None:
        """Write what still waits, as far as the store lets it."""
        try:
            self.turn()
        except EndcapError:
            self.dropped += len(self._waiting)
