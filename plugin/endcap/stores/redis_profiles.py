"""Profiles in Redis: shared by all server processes, so that each knows at once what any of them took in.

A shopper is one hash under one key (so that a cluster holds all of it in one place), read by one command a search:

* ``p``: the profile's bytes behind a header that says up to which event of the log it was read;
* ``s``: number of the shopper's latest event, raised by whoever stores one, never lowered;
* ``g``: drawn anew when the profile must be read from the beginning again (a login, an erasure).

A profile is current while it was read up to ``s`` under the same ``g``; else it catches up from the log and is written
back. Two processes may overwrite each other there: the loser's bytes say how far they reach, so nothing is lost.

The log stays the truth. Redis may be flushed, evict keys or be gone: profiles then come from the log, through the
in-process store. What Redis lost, or was never told since a process died, is found out within :data:`CHECK_S`, by
looking into the log again: for events, for the ids that are joined to the shopper, for his erasure.
"""

from __future__ import annotations

import logging
import secrets
import struct
import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from endcap.errors import ConfigurationError, EndcapError
from endcap.profile_bytes import VERSION
from endcap.profiles import DAY_S, Profile
from endcap.stores.database import LogUnavailable
from endcap.stores.erasures import digest
from endcap.stores.profiles import AtHand, LogProfiles, Restorer

log = logging.getLogger(__name__)

#: Seconds after which a profile is compared with the log though nothing says that it changed.
CHECK_S = 60.0
#: Seconds for which Redis is left alone after it failed.
COOL_DOWN_S = 1.0
#: Seconds to wait for Redis: more would be lost for the search anyway.
TIMEOUT_S = 0.1
#: A shopper who does not come back for so long is read from the log when he does.
KEPT_DAYS = 30.0
#: Marks that wait for Redis to come back; beyond that :data:`CHECK_S` has to do.
MOST_PENDING = 100_000
#: Marks sent in one round trip.
_CHUNK = 1_000

#: Differs where what a profile's bytes mean differs.
_FORMAT = zlib.crc32(repr(("endcap profile", 3, VERSION)).encode())
#: Format, most bytes, recent places, half-life (days), generation, log read up to, newest erasure by then, digest of
#: the ids joined to the shopper, when (seconds since 1970).
_HEADER = struct.Struct("<IIHf8sqqII")

_RAISE = """
if tonumber(ARGV[1]) > tonumber(redis.call('HGET', KEYS[1], 's') or '0') then
  redis.call('HSET', KEYS[1], 's', ARGV[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


class ProfilesUnavailable(EndcapError):
    """Redis does not answer; profiles come from the log meanwhile."""

    status = 503
    kind = "profiles_unavailable"


@dataclass(frozen=True, slots=True)
class _Kept:
    profile: Profile
    generation: bytes
    reach: int  # everything in the log up to this number is in it
    erased: int  # and every erasure up to this one has been taken note of
    joined: int
    checked: float


class RedisProfiles:
    """See the module and :class:`~endcap.stores.profiles.ProfileStore`."""

    def __init__(
        self, url: str, restorer: Restorer, fallback: LogProfiles, clock: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``; ``redis+cluster://`` for a cluster, by any of its nodes.
            fallback: what answers while Redis does not.

        Raises:
            ConfigurationError: the client is not installed, or the URL is none.
        """
        try:
            import redis
            from redis.cluster import RedisCluster
        except ImportError as error:
            raise ConfigurationError("redis_url needs redis: pip install 'endcap[redis]'") from error
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._cluster = url.startswith("redis+cluster://")
        options = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        self._open: Callable[[], Any]
        if self._cluster:
            # It looks for its nodes at once, so it is made when it is first needed.
            self._open = lambda: RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)
        else:
            try:
                plain = redis.Redis.from_url(url, **options)
            except ValueError as error:
                raise ConfigurationError(f"redis_url cannot be used: {error}") from None
            self._open = lambda: plain
        self._client: Any = None
        self._restorer = restorer
        self._fallback = fallback
        self._clock = clock
        self._lock = threading.Lock()
        self._at_hand = AtHand(fallback.share)
        self._pending: dict[str, int] = {}
        self._void: set[str] = set()
        self._problem = ""
        self._again = 0.0

    def get(self, shopper: str) -> Profile:
        """See :class:`~endcap.stores.profiles.ProfileStore`."""
        key = _key(shopper)
        if time.monotonic() < self._again or key in self._void:
            return self._fallback.get(shopper)
        try:
            raw, latest, generation = self._redis().hmget(key, "p", "s", "g")
        except self._errors as error:
            self._failed(error)
            return self._fallback.get(shopper)
        generation = generation or b""
        kept = self._kept(shopper, raw, generation)
        current = kept is not None and kept.reach >= int(latest or 0) and shopper not in self._pending
        # A clock that went back, or is another server's, must not put the check off.
        if kept is not None and current and abs(self._clock() - kept.checked) < CHECK_S:
            return kept.profile
        try:
            return self._caught_up(shopper, key, kept, generation)
        except LogUnavailable:
            if kept is not None and current:  # nothing says that it changed
                return kept.profile
            raise

    def touched(self, latest: Mapping[str, int]) -> None:
        """See :class:`~endcap.stores.profiles.ProfileStore`."""
        self._fallback.touched(latest)
        marks = dict(latest)
        try:
            for alias, owner in self._restorer.aliases.owners(latest.keys()).items():
                marks[owner] = max(marks.get(owner, 0), latest[alias])
        except EndcapError as error:
            log.warning("ids that were joined to shoppers: %s", error)
        self._mark(marks)

    def forgotten(self, shoppers: Collection[str]) -> None:
        """See :class:`~endcap.stores.profiles.ProfileStore`."""
        self._fallback.forgotten(shoppers)
        with self._lock:
            self._void.update(map(_key, shoppers))
        self._flush_void()

    def erased(self, digests: Collection[str]) -> None:
        """See :class:`~endcap.stores.profiles.ProfileStore`."""
        self._fallback.erased(digests)
        with self._lock:
            self._void.update(_PREFIX + one for one in digests)
        self._flush_void()

    def kept(self) -> list[str]:
        """See :class:`~endcap.stores.profiles.ProfileStore`. What is in Redis every process forgets at once."""
        return self._fallback.kept()

    def turn(self) -> float:
        """Say that Redis is away, and bring it up to date when it is back.

        Raises:
            ProfilesUnavailable: it is still away.
        """
        try:
            self._redis().ping()
        except self._errors as error:
            self._failed(error)
            raise ProfilesUnavailable(f"Redis: {self._problem}; profiles are read from the log meanwhile") from None
        self._again, self._problem = 0.0, ""
        with self._lock:
            waiting, self._pending = self._pending, {}
        self._mark(waiting)
        self._flush_void()
        return 0.0

    def close(self) -> None:
        """Give back the connections."""
        if self._client is not None:
            self._client.close()

    def _redis(self) -> Any:
        if self._client is None:
            self._client = self._open()
        return self._client

    def _failed(self, error: Exception) -> None:
        self._problem = f"{type(error).__name__}: {error}"
        self._again = time.monotonic() + COOL_DOWN_S

    def _caught_up(self, shopper: str, key: str, kept: _Kept | None, generation: bytes) -> Profile:
        now = self._clock()
        reach, erased = self._restorer.reach()  # first: what arrives from here on is not promised
        old = kept.profile if kept is not None and self._follows(shopper, kept, reach, erased) else None
        profile, joined = self._restorer.caught_up(shopper, old)
        if kept is not None and old is not None and kept.joined != _digest_of(joined):
            profile, joined = self._restorer.caught_up(shopper, None)
        header = _HEADER.pack(
            _FORMAT, *self._restorer.shape, generation, reach, erased, _digest_of(joined), int(now)
        )  # fmt: skip
        data = header + profile.to_bytes()
        try:
            pipeline = self._redis().pipeline(transaction=False)
            pipeline.hset(key, "p", data)
            pipeline.expire(key, int(KEPT_DAYS * DAY_S))
            pipeline.execute()
        except self._errors as error:
            self._failed(error)
        self._remember(shopper, data, profile)
        return profile

    def _follows(self, shopper: str, kept: _Kept, reach: int, erased: int) -> bool:
        """Whether the log still begins with what is kept: neither was he erased, nor an older log put in its place."""
        if kept.profile.sequence > reach or kept.erased > erased:
            return False
        return kept.erased == erased or not self._restorer.erased_since(shopper, kept.erased)

    def _kept(self, shopper: str, raw: bytes | None, generation: bytes) -> _Kept | None:
        """What Redis holds, None where it is nothing that can be used."""
        if raw is None or len(raw) < _HEADER.size:
            return None
        form, most_bytes, recent, half_life, drawn, reach, erased, joined, checked = _HEADER.unpack_from(raw)
        if form != _FORMAT or (most_bytes, recent, half_life) != self._shape or drawn != generation.ljust(8, b"\0"):
            return None
        with self._lock:
            profile = self._at_hand.get(shopper, raw)
        if profile is None:
            try:
                profile = Profile.from_bytes(raw[_HEADER.size :], *self._restorer.shape)
            except ValueError:
                return None
            self._remember(shopper, raw, profile)
        return _Kept(profile, generation, reach, erased, joined, checked)

    @property
    def _shape(self) -> tuple[float, ...]:
        most_bytes, recent, half_life = self._restorer.shape
        return most_bytes, recent, struct.unpack("<f", struct.pack("<f", half_life))[0]

    def _remember(self, shopper: str, data: bytes, profile: Profile) -> None:
        with self._lock:
            self._at_hand.put(shopper, data, profile)

    def _mark(self, marks: Mapping[str, int]) -> None:
        waiting = list(marks.items())
        try:
            if time.monotonic() < self._again:
                raise ConnectionError(self._problem)
            while waiting:
                pipeline = self._redis().pipeline(transaction=False)
                for shopper, number in waiting[:_CHUNK]:
                    # Not eval(): a cluster's pipeline refuses that, though this has one key.
                    pipeline.execute_command("EVAL", _RAISE, 1, _key(shopper), number, int(KEPT_DAYS * DAY_S))
                pipeline.execute()
                del waiting[:_CHUNK]
        except self._errors as error:
            if time.monotonic() >= self._again:
                self._failed(error)
            with self._lock:
                for shopper, number in waiting[: max(0, MOST_PENDING - len(self._pending))]:
                    self._pending[shopper] = max(number, self._pending.get(shopper, 0))

    def _flush_void(self) -> None:
        with self._lock:
            waiting = sorted(self._void)
        try:
            while waiting and time.monotonic() >= self._again:
                pipeline = self._redis().pipeline(transaction=False)
                for key in waiting[:_CHUNK]:
                    pipeline.hdel(key, "p")
                    pipeline.hset(key, "g", secrets.token_bytes(8))
                    pipeline.expire(key, int(KEPT_DAYS * DAY_S))
                pipeline.execute()
                with self._lock:
                    self._void.difference_update(waiting[:_CHUNK])
                del waiting[:_CHUNK]
        except self._errors as error:
            self._failed(error)


_PREFIX = "endcap:profile:"


def _key(shopper: str) -> str:
    # Ids may be long and personal; a digest is neither.
    return _PREFIX + digest(shopper)


def _digest_of(joined: Collection[str]) -> int:
    return zlib.crc32(repr(sorted(joined)).encode("utf-8", "replace"))
