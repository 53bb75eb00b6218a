"""Looks through the event log for fraud and flags what it finds: shoppers, devices, products, sellers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from endcap.catalog.product import product_key
from endcap.profiles import DAY_S
from endcap.settings import Settings
from endcap.stores.aliases import Aliases
from endcap.stores.database import Database
from endcap.stores.events import EventLog
from endcap.stores.flags import Flags, Suspicion
from endcap_workers.fraud.behaviour import Behaviour, BehaviourStream
from endcap_workers.fraud.judge import Judgement, Thresholds, judge
from endcap_workers.log_lines import read_log

SOURCE = "fraud"
#: What the hourly look takes in. It is too short to tell new shoppers from old: only single quantities are judged.
LIGHT_DAYS = 2.0
#: A product or a seller is flagged where so many suspects chose it, and so large a share of all who did.
_FEWEST_SUSPECTS, _SUSPECT_SHARE = 5, 0.25
_TOLD = 50

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, slots=True)
class Watched:
    """What one look found: numbers of flags by kind, and what they rest on."""

    judgement: Judgement
    suspicions: list[Suspicion]
    new: int
    lapsed: int

    @property
    def summary(self) -> dict[str, Any]:
        """Plain JSON."""
        kinds = [one.kind for one in self.suspicions]
        seen = self.judgement.behaviour.seen
        suspected = self.judgement.suspected
        return {
            "detector": self.judgement.detector,
            "shoppers": len(seen),
            "actions": int(seen.sum()),
            "suspected": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "actions of suspects": int(seen[suspected].sum()),
            "new flags": self.new,
            "lapsed": self.lapsed,
        }


def watch(
    database: Database,
    settings: Settings,
    progress: Progress,
    light: bool = False,
    sellers: Mapping[str, str] | None = None,
    now: float | None = None,
) -> Watched:
    """Stream the log, judge, flag; suspicions that no longer hold lapse, unless the look was ``light``.

    ``sellers``: product id -> seller. Memory is bounded, whatever the log holds.

    Raises:
        LogUnavailable: the log cannot be read, or the flags not be written: nothing was flagged.
    """
    now = time.time() if now is None else now
    flags = Flags(database)
    behaviour = _streamed(database, settings, progress, light, now)
    thresholds = Thresholds(
        settings.fraud_in_step, settings.fraud_strain, woken=settings.fraud_woken, together=settings.fraud_together
    )
    if light:
        thresholds = Thresholds(np.inf, settings.fraud_strain, strange=1.0, woken=np.inf, together=np.inf)
    progress(0.8, 1.0, "judging")
    judgement = judge(behaviour, None if light else flags.labels(), thresholds)
    found = _shoppers(judgement)
    if not light:
        found += _devices(behaviour, judgement)
        found += _products(behaviour, judgement, thresholds)
        found += _sellers(behaviour, judgement, sellers or {})
    progress(0.95, 1.0, "flagging")
    new, lapsed = flags.suspect(found, SOURCE, now), 0
    if not light:
        for kind in ("shopper", "device", "product", "seller"):
            lapsed += flags.lapse(kind, SOURCE, {one.subject for one in found if one.kind == kind}, now)
    return Watched(judgement, found, new, lapsed)


def _streamed(database: Database, settings: Settings, progress: Progress, light: bool, now: float) -> Behaviour:
    offset = datetime.fromtimestamp(now, ZoneInfo(settings.time_zone)).utcoffset()
    since = now - (LIGHT_DAYS if light else settings.fraud_window_days) * DAY_S
    stream = BehaviourStream(since, offset.total_seconds() if offset else 0.0)
    last, last_known = 0, _last(database)
    owners = Aliases(database, EventLog(database)).mapping()
    for lines in read_log(database, settings.fraud_device_attribute, since=since if light else 0.0, owners=owners):
        stream.add(lines)
        last = lines.sequence
        progress(0.8 * last / max(last_known, last, 1), 1.0, "reading events")
    return stream.features(now)


def _last(database: Database) -> int:
    return EventLog(database).last_sequence()


def _shoppers(judgement: Judgement) -> list[Suspicion]:
    behaviour, found = judgement.behaviour, []
    push, words = behaviour.push, behaviour.features.words
    for row in np.flatnonzero(judgement.suspected).tolist():
        values = behaviour.features.values[row]
        evidence: dict[str, Any] = {"actions": int(behaviour.seen[row])}
        for name, value in zip(behaviour.features.names, values.tolist()):
            if np.isfinite(value):
                logged = words[name].endswith("(log)")
                evidence[words[name].removesuffix(" (log)")] = round(float(np.expm1(value) if logged else value), 3)
        for pushed in (push, behaviour.woken):
            if pushed.culprit[row] >= 0:
                evidence["product"] = behaviour.products.get(int(pushed.products[pushed.culprit[row]]), "")
                break
        found.append(
            Suspicion(
                "shopper", behaviour.names[row], float(judgement.score[row]), judgement.reasons(row)[:5], evidence
            )
        )
    return found


def _devices(behaviour: Behaviour, judgement: Judgement) -> list[Suspicion]:
    """Devices that several suspects share, or that more shoppers share than is usual."""
    found = []
    devices = behaviour.devices
    for key, rows in _groups(devices.right, devices.left):
        suspects = rows[judgement.suspected[rows]]
        if len(suspects) < _FEWEST_SUSPECTS or len(suspects) < _SUSPECT_SHARE * len(rows):
            continue
        name = behaviour.device_names.get(key)
        if name:
            reason = f"{len(suspects)} of the {len(rows)} shoppers on this device are suspected"
            evidence = {"shoppers": [behaviour.names[row] for row in suspects[:_TOLD].tolist()]}
            found.append(Suspicion("device", name, len(suspects) / len(rows), [reason], evidence))
    return found


def _products(behaviour: Behaviour, judgement: Judgement, thresholds: Thresholds) -> list[Suspicion]:
    """Products that farms push: in step, or chosen mostly by suspects."""
    push, woken, pairs, found = behaviour.push, behaviour.woken, behaviour.pairs, []
    of_woken = dict(zip(woken.products.tolist(), range(len(woken.products))))
    for key, rows in _groups(pairs.right, pairs.left):
        name = behaviour.products.get(key)
        suspects = rows[judgement.suspected[rows]]
        if not name or len(suspects) < _FEWEST_SUSPECTS:
            continue
        at = int(np.searchsorted(push.products, np.uint32(key)))
        surprise, share = float(push.surprise[at]), len(suspects) / len(rows)
        late = of_woken.get(key, -1)
        sudden = float(woken.surprise[late]) if late >= 0 else 0.0
        if surprise < thresholds.in_step and sudden < thresholds.woken and share < _SUSPECT_SHARE:
            continue
        reasons = [f"{len(suspects)} of the {len(rows)} shoppers who chose it are suspected"]
        if surprise >= 3:
            reasons.append(
                f"{push.new[at]} of {push.choosers[at]} were new to the shop: by chance once in 10^{surprise:.0f}"
            )
        if sudden >= 3:
            reasons.append(
                f"{woken.new[late]} of {woken.choosers[late]} older shoppers do far more than they used to: by chance "
                f"once in 10^{sudden:.0f}"
            )
        evidence = {
            "shoppers": [behaviour.names[row] for row in suspects[:_TOLD].tolist()],
            "suspected shoppers": len(suspects),
            "all shoppers": len(rows),
        }
        found.append(Suspicion("product", name, share, reasons, evidence))
    return found


def _sellers(behaviour: Behaviour, judgement: Judgement, sellers: Mapping[str, str]) -> list[Suspicion]:
    """Sellers whose products are chosen by suspects far more than others': whoever lifts his own products."""
    if not sellers:
        return []
    named = {product_key(product) & 0xFFFFFFFF: seller for product, seller in sellers.items()}
    bad: dict[str, float] = {}
    total: dict[str, float] = {}
    products: dict[str, set[str]] = {}
    pairs = behaviour.pairs
    suspected = judgement.suspected[pairs.left]
    for key, count, guilty in zip(pairs.right.tolist(), pairs.counts.tolist(), suspected.tolist()):
        seller = named.get(key)
        if seller is None:
            continue
        total[seller] = total.get(seller, 0.0) + count
        if guilty:
            bad[seller] = bad.get(seller, 0.0) + count
            products.setdefault(seller, set()).add(behaviour.products.get(key, ""))
    overall = sum(bad.values()) / max(sum(total.values()), 1.0)
    found = []
    for seller, count in bad.items():
        share = count / total[seller]
        if count >= 20 and share >= max(_SUSPECT_SHARE, 3 * overall):
            reason = f"{share:.0%} of the actions on the seller's products are by suspects; {overall:.1%} in the shop"
            evidence = {"products": sorted(products[seller])[:_TOLD], "actions by suspects": count}
            found.append(Suspicion("seller", seller, share, [reason], evidence))
    return found


def _groups(keys: np.ndarray, rows: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """The distinct rows (int64) of each key that has several."""
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]]) if len(keys) else np.empty(0, int)
    parts = np.split(rows[order], starts[1:]) if len(starts) else []
    names = keys[order][starts] if len(starts) else []
    return [(int(key), np.unique(part)) for key, part in zip(names, parts) if len(part) >= _FEWEST_SUSPECTS]
