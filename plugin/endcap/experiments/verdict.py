"""What an experiment says so far, in words that a shop owner can act on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from endcap.errors import InvalidInput
from endcap.experiments.assignment import Experiment
from endcap.experiments.checks import SampleRatio, sample_ratio
from endcap.experiments.interleaving import Preference
from endcap.experiments.sample import Sample
from endcap.experiments.sequential import Interval, difference_sequence


class Outcome(str, Enum):
    """Of one arm against the first."""

    INVALID = "invalid"
    TOO_EARLY = "too_early"
    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no_difference"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Rules:
    """How to decide.

    ``alpha``: error rate of the whole experiment, shared by its comparisons (Bonferroni). ``fewest``: shoppers in each
    arm before anything is said; ``fewest_events``: and :attr:`Sample.events`, for a yes or no also of the rarer answer;
    with fewer the intervals err too often where one arm is small or few buy for very different sums; 0 for a metric
    that may be negative.
    ``smallest_effect``: a difference below which the arms count as equal; 0: never equal. ``planned``: shoppers of
    two arms at which the interval shall be tightest. ``more_is_better``: False for latency and zero-result rate.
    """

    alpha: float = 0.05
    fewest: int = 100
    fewest_events: int = 100
    smallest_effect: float = 0.0
    planned: float = 10_000.0
    more_is_better: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha must be in (0, 1), not {self.alpha}")
        if self.fewest < 2 or self.fewest_events < 0 or self.smallest_effect < 0 or self.planned < 1:
            raise InvalidInput("fewest must be at least 2, fewest_events and smallest_effect at least 0, planned 1")


@dataclass(frozen=True, slots=True)
class Comparison:
    """An arm against the first one: ``difference`` holds whenever one looks."""

    arm: str
    outcome: Outcome
    difference: Interval
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison for each arm but the first, and whether the traffic was split as planned."""

    metric: str
    ratio: SampleRatio
    comparisons: tuple[Comparison, ...]
    words: str


def judge(
    experiment: Experiment,
    metric: str,
    samples: Mapping[str, Sample],
    rules: Rules | None = None,
    adjusted: Mapping[str, Sample] | None = None,
) -> Verdict:
    """Compare every arm with the first. May be asked at any time and as often as one likes.

    ``samples``: arm -> what is known of its shoppers; every shopper who was assigned counts, active or not.
    ``adjusted``: the same by :func:`endcap.experiments.cuped.adjust`: differences and their intervals are of these;
    whether there is enough to judge by is asked of ``samples``.

    Raises:
        InvalidInput: samples of other arms than the experiment's.
    """
    rules = rules or Rules()
    ratio = sample_ratio(experiment, {name: sample.count for name, sample in samples.items()})
    baseline = experiment.arms[0].name
    alpha = rules.alpha / (len(experiment.arms) - 1)
    comparisons = []
    for arm in experiment.arms[1:]:
        first, other = samples[baseline], samples[arm.name]
        pair = (first, other) if adjusted is None else (adjusted[baseline], adjusted[arm.name])
        difference = difference_sequence(*pair, alpha, rules.planned)
        outcome = Outcome.INVALID if ratio.mismatch else _outcome(first, other, difference, rules)
        words = _words(arm.name, baseline, metric, outcome, difference, (first, other), rules)
        comparisons.append(Comparison(arm.name, outcome, difference, words))
    return Verdict(metric, ratio, tuple(comparisons), _summary(experiment, ratio, comparisons))


def judge_interleaving(found: Preference, a: str, b: str, fewest: int = 100, unit: str = "impressions") -> str:
    """The verdict on two interleaved rankings, in words. ``fewest``: impressions with a winner before it speaks;
    ``unit``: what counts as one of them, in the plural."""
    decided = found.wins_a + found.wins_b
    if decided < fewest:
        return f"Too early: {decided:,} of {found.impressions:,} {unit} had a winner, {fewest:,} are wanted."
    if 0 in found.advantage:
        return f"Undecided after {found.impressions:,} {unit}: {a} won {found.wins_a:,}, {b} {found.wins_b:,}."
    winner, loser = (a, b) if found.advantage.estimate > 0 else (b, a)
    share = max(found.wins_a, found.wins_b) / decided
    return f"{winner} is preferred to {loser}: it won {share:.0%} of the {decided:,} {unit} that had a winner."


def _outcome(first: Sample, other: Sample, difference: Interval, rules: Rules) -> Outcome:
    for sample in (first, other):
        if sample.count < rules.fewest or sample.variance == 0:
            return Outcome.TOO_EARLY
        if _events(sample) < rules.fewest_events:
            return Outcome.TOO_EARLY
    if 0 not in difference:
        return Outcome.BETTER if (difference.low > 0) == rules.more_is_better else Outcome.WORSE
    if max(-difference.low, difference.high) < rules.smallest_effect:
        return Outcome.NO_DIFFERENCE
    return Outcome.UNDECIDED


def _events(sample: Sample) -> float:
    """What the metric rests on; of zeros and ones, whose variance follows from their mean, the rarer."""
    own = sample.mean * (1 - sample.mean) * sample.count / max(sample.count - 1, 1)
    if 0 <= sample.mean <= 1 and abs(own - sample.variance) <= 1e-9 + 1e-6 * own:
        return sample.count * min(sample.mean, 1 - sample.mean)
    return sample.events


def _words(
    arm: str,
    baseline: str,
    metric: str,
    outcome: Outcome,
    difference: Interval,
    samples: tuple[Sample, Sample],
    rules: Rules,
) -> str:
    if outcome is Outcome.INVALID:
        return f"{arm}: not to be judged, as the traffic is not split as planned."
    if outcome is Outcome.TOO_EARLY:
        counts = " and ".join(f"{sample.count:,}" for sample in samples)
        events = " and ".join(f"{_events(sample):,.0f}" for sample in samples)
        return (
            f"{arm}: too early to say. Wanted are {rules.fewest:,} shoppers in each arm, whose {metric} rests on "
            f"{rules.fewest_events:,} events; {baseline} and {arm} have {counts}, resting on {events}."
        )
    base = samples[0].mean
    span = f"{difference.estimate:+.4g} (between {difference.low:+.4g} and {difference.high:+.4g}"
    span += f", {difference.estimate / base:+.1%} of {baseline})" if base else ")"
    least = f"{rules.smallest_effect:.4g}"
    return {
        Outcome.BETTER: f"{arm} is better than {baseline}: {metric} {span}. It may be rolled out.",
        Outcome.WORSE: f"{arm} is worse than {baseline}: {metric} {span}. Stop it.",
        Outcome.NO_DIFFERENCE: f"{arm} and {baseline} differ by less than {least}: {metric} {span}.",
        Outcome.UNDECIDED: f"{arm}: no difference from {baseline} is proven yet: {metric} {span}. Let it run.",
    }[outcome]


def _summary(experiment: Experiment, ratio: SampleRatio, comparisons: list[Comparison]) -> str:
    if ratio.mismatch:
        split = ", ".join(
            f"{name} {ratio.observed[name]:,} of {expected:,.0f} expected" for name, expected in ratio.expected.items()
        )
        return (
            f"Do not believe {experiment.name}: the split is wrong (chance {ratio.probability:.1g}): {split}. "
            "Look for shoppers that are lost, redirected or filtered in one arm only, then start anew."
        )
    return " ".join(comparison.words for comparison in comparisons)
