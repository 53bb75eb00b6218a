"""Rate limits of the admin API: a moving window of one minute, shared through Redis where there is one."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import MovingWindowRateLimiter

from endcap.errors import EndcapError

log = logging.getLogger(__name__)


class TooManyRequests(EndcapError):
    """More calls than allowed; ``Retry-After`` says when the next may come."""

    status = 429
    kind = "too_many_requests"

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}


class RateLimit:
    """At most ``per_minute`` hits per key. Without Redis every server process counts for itself; where Redis does not
    answer, too: a limit that cannot be kept exactly is no reason to lock anyone out."""

    def __init__(self, name: str, per_minute: int, redis_url: str = "") -> None:
        self._item = RateLimitItemPerMinute(per_minute, namespace=f"endcap:{name}")
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared: Any = None
        if redis_url:
            self._shared = MovingWindowRateLimiter(storage_from_string(redis_url, wrap_exceptions=True))

    def hit(self, key: str) -> None:
        """Count one.

        Raises:
            TooManyRequests: it is one too many.
        """
        if not self._ask("hit", key):
            raise self._too_many(key)

    def check(self, key: str) -> None:
        """The same without counting."""
        if not self._ask("test", key):
            raise self._too_many(key)

    def _ask(self, question: str, key: str) -> Any:
        if self._shared is not None:
            try:
                return getattr(self._shared, question)(self._item, key)
            except StorageError as error:
                log.warning("rate limits: Redis does not answer, this process counts for itself: %s", error)
        return getattr(self._own, question)(self._item, key)

    def _too_many(self, key: str) -> TooManyRequests:
        wait = self._ask("get_window_stats", key).reset_time - time.time()
        return TooManyRequests(f"more than {self._item.amount} in a minute", wait)
