"""One number a shopper for every metric of an experiment, from the rankings log joined with what followed.

Every shopper of whom the log has a ranking under the experiment counts, in the arm that his first such ranking names.
Sums are kept, so that rankings may come in batches of any size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from endcap.errors import InvalidInput
from endcap.events import Action
from endcap.experiments.before import DAYS, Before
from endcap.experiments.cuped import Adjusted, adjust
from endcap.experiments.definition import LOWER_IS_BETTER, METRICS, Definition
from endcap.experiments.interleaving import credit, preference
from endcap.experiments.power import detectable_effect
from endcap.experiments.sample import Sample
from endcap.experiments.sequential import mean_sequence
from endcap.experiments.verdict import Rules, Verdict, judge, judge_interleaving
from endcap.stores.outcomes import Outcome
from endcap.stores.rankings import Served

INTERLEAVED = "interleaved"
#: Metrics that what was bought before the start says something about.
ADJUSTED = frozenset({"conversion", "revenue"})


@dataclass(slots=True)
class _Shopper:
    arm: str
    rankings: int = 0
    clicked: int = 0
    bought: bool = False
    revenue: float = 0.0
    gain: float = 0.0
    empty: int = 0
    latency: float = 0.0
    timed: int = 0


@dataclass(slots=True)
class Measured:
    """What is known of an experiment's shoppers so far. ``moved``: shoppers that were seen in more than one arm: their
    later rankings count for nothing."""

    definition: Definition
    shoppers: dict[str, _Shopper] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    #: Of interleaved rankings, by shopper: those that the first arm won less those that the second did. What a shopper
    #: likes he likes at every search, so he counts once: else the interval would promise more than it knows.
    balances: dict[str, int] = field(default_factory=dict)
    #: Rankings of each arm (or of all, where they are interleaved), and those without its own model, by the reason.
    ranked: Counter[str] = field(default_factory=Counter)
    without_model: dict[str, Counter[str]] = field(default_factory=dict)
    #: What shoppers bought before the start; empty: nothing is known, and nothing is adjusted.
    before: Mapping[str, Before] = field(default_factory=dict)

    def add(self, outcomes: Iterable[Outcome], excluded: frozenset[str] = frozenset()) -> None:
        """Take in rankings with what followed. ``excluded``: shoppers whose behaviour counts for nothing."""
        name, interleaved = self.definition.name, self.definition.design == "interleaving"
        arms = {one.name for one in self.definition.arms}
        for outcome in outcomes:
            ranking = outcome.ranking
            noted = ranking.context.get("experiments")
            arm = noted.get(name) if isinstance(noted, Mapping) else None
            if not ranking.shopper or ranking.shopper in excluded or ranking.context.get("internal"):
                continue
            if arm is None:
                # A search without results was not ranked, and names no arm: its shopper does.
                if not ranking.products and not ranking.start and ranking.shopper in self.shoppers:
                    _count(self.shoppers[ranking.shopper], outcome)
                continue
            if interleaved:
                if arm == INTERLEAVED:
                    self._note_model(arm, ranking)
                    self._interleaved(outcome)
                continue
            if arm not in arms:
                continue  # of an arm that was taken out by hand: its shoppers are no one's
            self._note_model(arm, ranking)
            one = self.shoppers.setdefault(ranking.shopper, _Shopper(arm))
            if one.arm != arm:
                self.moved.add(ranking.shopper)
            elif ranking.start == 0:
                _count(one, outcome)

    def _note_model(self, arm: str, ranking: Served) -> None:
        self.ranked[arm] += 1
        why = ranking.context.get("model_missing")
        if why:
            self.without_model.setdefault(arm, Counter())[str(why)] += 1

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Of each arm with a model of its own: ``version``, ``rankings``, and ``missing``, reason -> rankings that the
        live model had to make instead."""
        interleaved = self.definition.design == "interleaving"
        found = {}
        for one in self.definition.arms:
            if one.model:
                key = INTERLEAVED if interleaved else one.name
                missing = dict(self.without_model.get(key, {}))
                found[one.name] = {"version": one.model, "rankings": self.ranked[key], "missing": missing}
        return found

    def _interleaved(self, outcome: Outcome) -> None:
        teams = outcome.ranking.context.get("teams")
        if not isinstance(teams, list) or outcome.ranking.start:
            return
        clicked = [
            one.position - 1
            for one in outcome.reactions
            if one.action in (Action.CLICK, Action.CART, Action.PURCHASE) and 0 < one.position <= len(teams)
        ]
        said = credit(teams, clicked)
        who = outcome.ranking.shopper
        self.balances[who] = self.balances.get(who, 0) + (said > 0) - (said < 0)

    @property
    def wins(self) -> list[int]:
        """Shoppers with whom the first arm won more rankings, the second did, neither did."""
        sides = Counter((one > 0) - (one < 0) for one in self.balances.values())
        return [sides[1], sides[-1], sides[0]]

    def sample(self, metric: str, arm: str) -> Sample:
        """One number for each shopper of an arm.

        Raises:
            InvalidInput: there is no such metric.
        """
        if metric not in METRICS:
            raise InvalidInput(f"there is no metric {metric}; there are {', '.join(METRICS)}")
        return Sample.of(self._values(metric, arm))

    def adjusted(self, metric: str) -> Adjusted | None:
        """A metric about buying without what was known before the start (CUPED); None: that has nothing to say."""
        if metric not in ADJUSTED or not self.before:
            return None
        arms = [one.name for one in self.definition.arms]
        nothing = Before()
        known: dict[str, list[float]] = {arm: [] for arm in arms}
        for name, one in self.shoppers.items():
            known[one.arm].append(_known(self.before.get(name, nothing), metric))
        found = adjust(
            {arm: self._values(metric, arm) for arm in arms}, {arm: np.array(one) for arm, one in known.items()}
        )
        usable = found.slope and all(one.variance > 0 for one in found.samples.values())
        return found if usable else None

    def _values(self, metric: str, arm: str) -> np.ndarray:
        mine = [one for one in self.shoppers.values() if one.arm == arm]
        return np.array([_value(one, metric) for one in mine], dtype=np.float64)


def _count(one: _Shopper, outcome: Outcome) -> None:
    one.rankings += 1
    actions = {reaction.action for reaction in outcome.reactions}
    clicks = [r.position for r in outcome.reactions if r.action in (Action.CLICK, Action.CART, Action.PURCHASE)]
    one.clicked += bool(clicks)
    one.bought = one.bought or Action.PURCHASE in actions
    for reaction in outcome.reactions:
        # The money of the whole line, however many pieces; of a refund some storefronts send it below 0.
        one.revenue += max(reaction.value, 0.0) if reaction.action is Action.PURCHASE else 0.0
        one.revenue -= abs(reaction.value) if reaction.action is Action.RETURN else 0.0
    places = sorted({position for position in clicks if position > 0})
    if places:
        ideal = float((1 / np.log2(1 + np.arange(1, len(places) + 1))).sum())
        one.gain += float((1 / np.log2(1 + np.array(places))).sum()) / ideal
    one.empty += not outcome.ranking.products
    took = outcome.ranking.context.get("took_ms")
    if isinstance(took, (int, float)):
        one.latency += float(took)
        one.timed += 1


def _value(one: _Shopper, metric: str) -> float:
    searches = max(one.rankings, 1)
    return {
        "conversion": float(one.bought),
        "ctr": one.clicked / searches,
        "revenue": one.revenue / searches,
        "ndcg": one.gain / searches,
        "zero_results": one.empty / searches,
        "latency_ms": one.latency / max(one.timed, 1),
    }[metric]


def _known(before: Before, metric: str) -> float:
    # Of the tenth purchase more is less news than of the first.
    return math.log1p(before.purchases) if metric == "conversion" else before.spent


def report_of(measured: Measured, now: float, rankings: int) -> dict[str, Any]:
    """What the console shows, as plain JSON: the verdict in words, every metric of every arm with its interval."""
    definition = measured.definition
    if definition.design == "interleaving":
        a, b = definition.arms
        first, second, ties = measured.wins
        found = preference(first, second, first + second + ties)
        return {
            "time": now,
            "rankings": rankings,
            "words": judge_interleaving(found, a.name, b.name, unit="shoppers") + _model_words(measured),
            "models": measured.models,
            "advantage": [found.advantage.estimate, found.advantage.low, found.advantage.high],
            "wins": {a.name: first, b.name: second, "ties": ties},
        }
    experiment = definition.experiment()
    verdicts: dict[str, Verdict] = {}
    metrics: dict[str, Any] = {}
    for metric in METRICS:
        samples = {arm.name: measured.sample(metric, arm.name) for arm in definition.arms}
        rules = Rules(
            smallest_effect=definition.smallest_effect if metric == definition.metric else 0.0,
            planned=float(definition.planned),
            more_is_better=metric not in LOWER_IS_BETTER,
        )
        adjusted = measured.adjusted(metric)
        verdicts[metric] = verdict = judge(experiment, metric, samples, rules, adjusted.samples if adjusted else None)
        metrics[metric] = {
            "arms": {name: _shown(sample, definition.planned) for name, sample in samples.items()},
            "comparisons": [
                {
                    "arm": one.arm,
                    "outcome": one.outcome.value,
                    "difference": [
                        _finite(v) for v in (one.difference.estimate, one.difference.low, one.difference.high)
                    ],
                    "words": one.words,
                }
                for one in verdict.comparisons
            ],
            "cuped": None if adjusted is None else {"days": DAYS, "variance_cut": adjusted.reduction},
        }
    ratio = verdicts[definition.metric].ratio
    words = verdicts[definition.metric].words
    if (cuped := metrics[definition.metric]["cuped"]) is not None and not ratio.mismatch:
        words += (
            f" Differences allow for what shoppers bought in the {DAYS:.0f} days before the start (CUPED), which "
            f"explains {cuped['variance_cut']:.0%} of the variance."
        )
    if measured.moved:
        words += f" {len(measured.moved):,} shoppers were seen in more than one arm; look for ids that change."
    words += _model_words(measured)
    return {
        "time": now,
        "rankings": rankings,
        "words": words,
        "models": measured.models,
        "metric": definition.metric,
        "metrics": metrics,
        "shoppers": ratio.observed,
        "expected": ratio.expected,
        "split_probability": ratio.probability,
        "split_wrong": ratio.mismatch,
        "moved": len(measured.moved),
        "detectable": _detectable(measured),
    }


def _model_words(measured: Measured) -> str:
    """What is to be known about arms whose own model did not make all of their rankings."""
    said = ""
    for arm, one in measured.models.items():
        missing = sum(one["missing"].values())
        if missing:
            reasons = ", ".join(f"{count:,} {why}" for why, count in sorted(one["missing"].items()))
            said += (
                f" {missing / one['rankings']:.0%} of the rankings of {arm} were made by the live model instead of "
                f"{one['version']} ({reasons}): differences look smaller than they are."
            )
    return said


def _shown(sample: Sample, planned: int) -> dict[str, Any]:
    interval = mean_sequence(sample, tightest=float(planned))
    return {
        "count": sample.count,
        "mean": sample.mean,
        "low": _finite(interval.low),
        "high": _finite(interval.high),
        "deviation": float(np.sqrt(sample.variance)),
    }


def _detectable(measured: Measured) -> float | None:
    """The least difference of the deciding metric that the planned number of shoppers can show, between the first arm
    and the smallest of the others."""
    definition = measured.definition
    first, *others = definition.arms
    sample = measured.sample(definition.metric, first.name)
    if sample.variance <= 0:
        return None
    smallest = min(one.weight for one in others)
    alpha = Rules().alpha / len(others)
    return detectable_effect(float(definition.planned), sample.variance, smallest / (first.weight + smallest), alpha)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
