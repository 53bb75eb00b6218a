"""Visitors who logged in, as the server lived through it: strangers until then, from then on the shopper's own past."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from endcap.stores.aliases import Login
from endcap.stores.events import Columns


class Past(NamedTuple):
    """What counts for ``shopper`` from ``moment`` on: keys, times and actions (n,) of the id that was joined to him."""

    shopper: str
    moment: float
    keys: np.ndarray
    times: np.ndarray
    actions: np.ndarray


class Logins:
    """Takes chunks of the log in the order of time. Memory: what joined ids did before their log-in."""

    def __init__(self, logins: Mapping[str, Login]) -> None:
        self._logins = logins
        self._waiting = sorted(logins, key=lambda alias: (-logins[alias].time, alias))
        self._before: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def names(self, columns: Columns) -> list[str]:
        """Whom each event counts for when it happens: the shopper only once its id was joined to him."""
        if not self._logins:
            return columns.shoppers
        joined = [self._logins.get(one) for one in columns.shoppers]
        times = columns.times.tolist()
        return [
            login.shopper if login is not None and when >= login.time else name
            for name, login, when in zip(columns.shoppers, joined, times, strict=True)
        ]

    def name(self, shopper: str, moment: float) -> str:
        """The same of one id at a moment."""
        login = self._logins.get(shopper)
        return login.shopper if login is not None and moment >= login.time else shopper

    def past(self, columns: Columns) -> Iterator[Past]:
        """Of those who log in within this chunk: what they had done before, this chunk included."""
        if not self._waiting:
            return
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(columns.shoppers):
            login = self._logins.get(name)
            if login is not None and columns.times[row] < login.time and columns.keys[row]:
                rows.setdefault(name, []).append(row)
        for name, found in rows.items():
            parts = (columns.keys[found], columns.times[found], columns.actions[found])
            self._before.setdefault(name, []).append(parts)
        last = float(columns.times[-1])
        while self._waiting and self._logins[self._waiting[-1]].time <= last:
            alias = self._waiting.pop()
            kept = self._before.pop(alias, [])
            if kept:
                login = self._logins[alias]
                keys, times, actions = (np.concatenate(one) for one in zip(*kept, strict=True))
                yield Past(login.shopper, login.time, keys, times, actions)
