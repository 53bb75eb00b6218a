"""Keeps what a process ranks by in step with the database: the live policy, the rules, how often who saw what."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from endcap.errors import EndcapError
from endcap.policy.arrange import Arranger
from endcap.policy.base import BasePolicy
from endcap.policy.rules import RuleBook
from endcap.policy.saving import load_policy
from endcap.policy.sponsored import Auction
from endcap.stores.rules import Rules

log = logging.getLogger(__name__)

#: (shopper, since) -> the products that he was shown since a moment, one entry each time.
Impressions = Callable[[str, float], Sequence[str]]


class LivePolicy:
    """Switches the arranger's policy and rules; :meth:`look` is to be called about once a second."""

    def __init__(
        self,
        arranger: Arranger,
        rules: Rules,
        live_folder: Callable[[], tuple[str, Path] | None],
        auction: Auction | None = None,
        exposure: Exposure | None = None,
        experiments: Callable[[], None] | None = None,
    ) -> None:
        """``live_folder``: version and folder of the live policy, as the registry says; None: none was promoted.
        ``experiments``: looks for other experiments."""
        self._arranger, self._rules, self._live = arranger, rules, live_folder
        self._auction, self._exposure = auction or Auction(), exposure
        self._version: object = ()
        self._policy = ""
        self._standard = arranger.policy
        self._experiments = experiments

    def turn(self) -> float:
        """:meth:`look`, as a thread of the upkeep calls it."""
        self.look()
        return 0.0

    def look(self) -> None:
        """Take up what has changed.

        Raises:
            EndcapError: the database cannot be read, or the live policy cannot be used; what was in force stays.
        """
        version = self._rules.version()
        if version != self._version:
            found = {one.id: one.rule for one in self._rules.all()}
            shown = self._exposure.shown if self._exposure is not None else None
            self._arranger.put_rules(RuleBook(found, self._auction, shown))
            self._version = version
            log.info("business rules in force: %d", len(self._arranger.rules.rules))
        if self._experiments is not None:
            self._experiments()
        live = self._live()
        name = live[0] if live else ""
        if name != self._policy:
            policy: BasePolicy | None = load_policy(live[1]) if live else None
            self._arranger.policy = policy or self._standard
            self._policy = name
            log.info("ranking policy in force: %s", name or "standard")


class Exposure:
    """How often shoppers were shown products, from the rankings log; each shopper's count is kept for half a minute."""

    def __init__(self, impressions: Impressions, keep_s: float = 30.0, most: int = 10_000) -> None:
        self._impressions, self._keep_s, self._most = impressions, keep_s, most
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, float], tuple[float, dict[str, int]]] = OrderedDict()

    def shown(self, shopper: str, ids: Sequence[str], hours: float) -> np.ndarray:
        """Times that each product was shown to him within ``hours``; int64 (n,)."""
        now = time.time()
        key = (shopper, hours)
        with self._lock:
            known = self._known.get(key)
        if known is None or now - known[0] > self._keep_s:
            counts: dict[str, int] = {}
            try:
                for product in self._impressions(shopper, now - hours * 3_600.0):
                    counts[product] = counts.get(product, 0) + 1
            except EndcapError as error:
                log.warning("frequency caps do without the rankings log: %s", error)
            known = (now, counts)
            with self._lock:
                self._known[key] = known
                while len(self._known) > self._most:
                    self._known.popitem(last=False)
        return np.array([known[1].get(one, 0) for one in ids], dtype=np.int64)
