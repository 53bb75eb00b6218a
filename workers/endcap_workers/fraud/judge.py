"""Who is to be suspected, and why: the rules that turn features of behaviour into flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from endcap_workers.fraud.base import Features, Reason
from endcap_workers.fraud.behaviour import Behaviour
from endcap_workers.fraud.label_free import LabelFreeDetector
from endcap_workers.fraud.strain import QUANTITIES, quantities, strain
from endcap_workers.fraud.supervised import FEWEST, SupervisedDetector

#: Which way a value is suspicious: much, or little. What is not here tells nothing by itself.
SIDES: Mapping[str, int] = {
    "busiest hour": 1, "per day": 1, "irregularity": -1, "breadth": -1, "top share": 1, "top count": 1, "night": 1,
    "conversion": 1, "cart abuse": 1, "unbought": 1, "coupons": 1, "returns": 1, "quantity": 1, "searches": 1,
    "shared device": 1, "pushed": 1, "pushed share": 1,
}  # fmt: skip
#: Fewer actions than this do no harm and tell little.
FEWEST_ACTIONS = 3
#: Products pushed by woken shoppers that somebody chose by chance: fewer than this.
FEWEST_PUSHED = 2
#: Label-free scores above this are worth a word.
_TOLD = 0.995
#: Unlabelled shoppers that stand for genuine ones beside each label: most are.
_UNLABELLED = 20


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a shopper is suspected. Chosen by ``endcap evaluate attack`` on farms other than those it reports.

    ``in_step``: digits of surprise of a product that the shopper chose while new; ``woken``: the same, of one that he
    chose while doing far more than he used to; ``together``: of the less surprising one of two that he chose while new;
    ``strain``: digits of the tail of a
    single quantity; ``strange``: label-free score, the share of shoppers that are less strange. ``probability``: of
    the detector with labels; below ``cleared`` it overrules the others.
    """

    in_step: float = 3.5
    strain: float = 8.0
    strange: float = 0.9999
    woken: float = 7.0
    together: float = 3.0
    probability: float = 0.5
    cleared: float = 0.05


@dataclass(frozen=True, slots=True)
class Judgement:
    """Over the n rows of a :class:`Behaviour`. ``score``: float64 (n,) within 0..1; ``suspected``: bool (n,).

    ``strain``: float64 (n, k) digits of :data:`~endcap_workers.fraud.strain.QUANTITIES`; ``strange``: label-free
    score (n,). ``accomplices``: int64 (n,) of :func:`accomplices`. ``detector``: what judged, ``label-free`` or
    ``supervised``.
    """

    behaviour: Behaviour
    score: np.ndarray
    suspected: np.ndarray
    strain: np.ndarray
    strange: np.ndarray
    detector: str
    accomplices: np.ndarray
    _quantities: np.ndarray
    _middles: tuple[np.ndarray, np.ndarray]  # medians over all rows, of the quantities and of the features
    _judged: Features
    _label_free: LabelFreeDetector | None
    _supervised: SupervisedDetector | None

    def reasons(self, row: int) -> list[str]:
        """Why this shopper is suspected, in words, the weightiest first."""
        found: list[str] = [*self._in_step(row), *self._woken(row), *self._strained(row)]
        one = self.behaviour.features.rows([row])
        reasons: list[Reason] = []
        if self._supervised is not None:
            reasons = self._supervised.reasons(one)[0]
        elif self._label_free is not None and (self.strange[row] > _TOLD or not found):
            reasons = self._label_free.reasons(self._judged.rows([row]))[0]
        said = " ".join(found)
        for reason in reasons:
            text = self._told(reason)
            # The same quantity is told once.
            if not reason.feature.startswith(("pushed", "woken")) and text.split(":")[0] not in said:
                found.append(text)
        return found

    def _in_step(self, row: int) -> list[str]:
        push = self.behaviour.push
        if push.shoppers[row] <= 2:
            return []
        at = int(push.culprit[row])
        name = self.behaviour.products.get(int(push.products[at]), "?")
        return [
            f"chose product {name} while new to the shop, as {push.new[at]} of its {push.choosers[at]} shoppers did: "
            f"by chance that happens once in 10^{push.surprise[at]:.0f}"
        ]

    def _woken(self, row: int) -> list[str]:
        push = self.behaviour.woken
        if push.shoppers[row] <= 3:
            count = self.accomplices[row]
            said = f"chose {count} products that older shoppers push who do far more than they used to"
            return [said] if count >= FEWEST_PUSHED else []
        at = int(push.culprit[row])
        name = self.behaviour.products.get(int(push.products[at]), "?")
        rise = self.behaviour.rise[row]
        much = "far more than" if rise > 99 else f"{rise:.0f} times as much as"
        return [
            f"chose product {name} while doing {much} before, as {push.new[at]} of its {push.choosers[at]} older "
            f"shoppers did: by chance that happens once in 10^{push.surprise[at]:.0f}"
        ]

    def _strained(self, row: int) -> list[str]:
        order = np.argsort(-self.strain[row], kind="stable")
        words = list(QUANTITIES.values())
        middle = self._middles[0]
        return [
            f"{words[place]}: {self._quantities[row, place]:,.0f}, usually {middle[place]:.1f}; "
            f"once in 10^{self.strain[row, place]:.0f} by what is usual"
            for place in order.tolist()
            if self.strain[row, place] > 4
        ]

    def _told(self, reason: Reason) -> str:
        """The reason with its number as people count: not as a logarithm."""
        word = self.behaviour.features.word(reason.feature)
        if not word.endswith("(log)") or not np.isfinite(reason.value):
            return reason.text
        middle = np.expm1(self._middles[1][self.behaviour.features.names.index(reason.feature)])
        return f"{word.removesuffix(' (log)')}: {np.expm1(reason.value):,.3g}, usually {middle:,.3g}"


def judge(
    behaviour: Behaviour,
    labels: Mapping[str, bool] | None = None,
    thresholds: Thresholds | None = None,
    seed: int = 0,
    trees: int = 100,
) -> Judgement:
    """Judge everybody of a window.

    ``labels``: shopper -> True for fraud, False for genuine, as people decided. From ten of each on, a detector with
    labels judges too; shoppers whom nobody suspects stand for genuine ones there, since most are.
    """
    thresholds = thresholds or Thresholds()
    features = behaviour.features
    judged, amounts = suspicious_side(features), quantities(features)
    acts = behaviour.seen >= FEWEST_ACTIONS
    usual = _unpushed(behaviour, thresholds)
    tails = strain(amounts, usual)
    evidence = _evidence(behaviour, tails, thresholds)
    # What is usual is told by those whom nothing else speaks against: a large farm must not be the rule.
    usual = acts & (evidence < 1)
    label_free, strange = None, np.zeros(len(features))
    if usual.sum() >= 2:
        label_free = LabelFreeDetector(seed, trees).fit(judged.rows(usual))
        strange[acts] = label_free.score(judged.rows(acts))
    suspected = (evidence >= 1) | (strange > thresholds.strange)
    # In the place of a probability: ranks below, what is beyond all ranks above.
    score = np.where(evidence >= 1, 1 - 0.1 / np.maximum(evidence, 1), 0.9 * strange)
    supervised = _learn(behaviour, labels or {}, suspected, seed)
    if supervised is not None:
        score = supervised.score(features)
        suspected = (score >= thresholds.probability) | (suspected & (score >= thresholds.cleared))
    name = "label-free" if supervised is None else "supervised"
    also = accomplices(behaviour, thresholds.woken)
    middles = _medians(amounts), _medians(features.values)
    return Judgement(
        behaviour, score, suspected, tails, strange, name, also, amounts, middles, judged, label_free, supervised
    )


def _medians(values: np.ndarray) -> np.ndarray:
    """Of each column, of what is known: once for all suspects, of whom an attack makes many."""
    known = (column[~np.isnan(column)] for column in values.T)
    return np.array([float(np.median(column)) if len(column) else np.nan for column in known])


def beyond(behaviour: Behaviour, thresholds: Thresholds) -> np.ndarray:
    """Whom single pieces of evidence make suspected, bool (n,): all of :func:`judge` but how strange somebody is."""
    usual = _unpushed(behaviour, thresholds)
    return _evidence(behaviour, strain(quantities(behaviour.features), usual), thresholds) >= 1


def _unpushed(behaviour: Behaviour, thresholds: Thresholds) -> np.ndarray:
    return (behaviour.push.shoppers < thresholds.in_step) & (behaviour.woken.shoppers < thresholds.woken)


def _evidence(behaviour: Behaviour, tails: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """The largest of a shopper's digits, as a share of its threshold; float64 (n,)."""
    crowd = np.maximum(behaviour.push.shoppers / thresholds.in_step, behaviour.woken.shoppers / thresholds.woken)
    crowd = np.maximum(crowd, behaviour.push.second / thresholds.together)
    crowd = np.maximum(crowd, accomplices(behaviour, thresholds.woken) >= FEWEST_PUSHED)
    return np.maximum(crowd, tails.max(axis=1, initial=0.0) / thresholds.strain)


def accomplices(behaviour: Behaviour, woken: float) -> np.ndarray:
    """How many of the products that woken shoppers push each shopper chose, int64 (n,): who chose several of them takes
    part, however steadily he shops, since what a farm pushes has nothing else in common."""
    pushed = behaviour.woken.products[behaviour.woken.surprise >= woken]
    chosen = np.isin(behaviour.pairs.right, pushed)
    return np.bincount(behaviour.pairs.left[chosen], minlength=len(behaviour.names))


def suspicious_side(features: Features) -> Features:
    """The features of ``SIDES``, with what lies on their harmless side moved to the middle: a shopper who buys less
    evenly than others is no suspect for it."""
    columns = []
    for name, side in SIDES.items():
        column = features.values[:, features.names.index(name)]
        known = column[~np.isnan(column)]
        middle = float(np.median(known)) if len(known) else 0.0
        columns.append(np.fmax(column, middle) if side > 0 else np.fmin(column, middle))
    values = np.stack(columns, axis=1) if len(features) else np.empty((0, len(SIDES)))
    return Features(values, tuple(SIDES), features.words)


def _learn(
    behaviour: Behaviour, labels: Mapping[str, bool], suspected: np.ndarray, seed: int
) -> SupervisedDetector | None:
    known = np.array([int(labels[name]) if name in labels else -1 for name in behaviour.names], dtype=np.int64)
    fraud, genuine = int((known == 1).sum()), int((known == 0).sum())
    if min(fraud, genuine) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    others = np.flatnonzero((known < 0) & ~suspected)
    chosen = random.permutation(others)[: _UNLABELLED * (fraud + genuine)]
    known[chosen] = 0
    return SupervisedDetector(seed=seed).fit(behaviour.features, known)
