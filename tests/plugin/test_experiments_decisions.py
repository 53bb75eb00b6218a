"""Simulated experiments: how often they err under peeking, how often they find, and what interleaving saves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.experiments import (
    Arm,
    Experiment,
    Outcome,
    Rules,
    Sample,
    adjust,
    credit,
    detectable_effect,
    judge,
    judge_interleaving,
    mean_sequence,
    preference,
    shoppers_needed,
    sign_test,
    team_draft,
)
from endcap.experiments.sequential import difference_radius, radius

EXPERIMENT = Experiment("order", "salt", (Arm("old", 0.5), Arm("new", 0.5)))
RUNS = 1_000


def stopped(
    control: np.ndarray,
    treated: np.ndarray,
    alpha: float = 0.05,
    per_look: tuple[int, int] = (1, 1),
    naive: bool = False,
    fewest_events: int = Rules().fewest_events,
) -> np.ndarray:
    """The look at which each run stops, from 1; 0 where it never does. Both (runs, n).

    Before each look ``per_look`` shoppers arrive in the two arms. Rules as :class:`Rules` has them by default.
    ``naive``: by a z-test at each look instead.
    """
    looks = np.arange(1.0, control.shape[1] // per_look[0] + 1)

    def moments(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        rows = values[:, : len(looks) * count].reshape(len(values), len(looks), count)
        total, squares = rows.sum(axis=2).cumsum(axis=1), (rows**2).sum(axis=2).cumsum(axis=1)
        counts = looks * count
        variance = (squares - total**2 / counts) / np.maximum(counts - 1, 1)
        events = total**2 / np.maximum(squares, 1e-12)
        return counts, total / counts, np.maximum(variance, 1e-12), events

    counts0, mean0, variance0, events0 = moments(control, per_look[0])
    counts1, mean1, variance1, events1 = moments(treated, per_look[1])
    if naive:
        width = 1.96 * np.sqrt(variance0 / counts0 + variance1 / counts1)
    else:
        width = difference_radius(counts0, variance0, counts1, variance1, alpha, counts0[-1] + counts1[-1])
    spoken = (np.minimum(counts0, counts1) >= Rules().fewest) & (np.minimum(events0, events1) >= fewest_events)
    out = spoken & (np.abs(mean1 - mean0) > width)
    return np.where(out.any(axis=1), out.argmax(axis=1) + 1, 0)


@pytest.mark.parametrize("metric", ["conversion of 10 %", "revenue"])
def test_a_a_errs_in_at_most_one_of_twenty_though_every_shopper_is_peeked_at(metric: str) -> None:
    random = np.random.default_rng(3)

    def draw(size: int) -> np.ndarray:
        bought = random.random((RUNS, size)) < 0.1
        return bought * (1.0 if metric != "revenue" else random.lognormal(3, 0.8, (RUNS, size)))

    control, treated = draw(4_000), draw(4_000)

    false_alarms = (stopped(control, treated) > 0).mean()
    naive = (stopped(control, treated, naive=True) > 0).mean()

    assert false_alarms <= 0.05
    assert naive > 0.15  # what the sequence protects from


@pytest.mark.parametrize(("spread", "split"), [(1.5, 9), (1.0, 19)])
def test_a_a_with_a_small_arm_and_rare_large_baskets(spread: float, split: int) -> None:
    """Verdicts wait for enough events, as intervals that rest on a few buyers would err too often."""
    random = np.random.default_rng(11)
    alarms, unprotected, events = 0, 0, []
    for _ in range(20):  # in parts, to hold less at once
        size = (RUNS // 20, 3_000)
        small = (random.random(size) < 0.2) * random.lognormal(3, spread, size)
        shape = (RUNS // 20, 3_000 * split)
        large = (random.random(shape, dtype=np.float32) < 0.2) * np.exp(
            3 + spread * random.standard_normal(shape, dtype=np.float32)
        ).astype(float)
        events += [Sample.of(run).events for run in small]
        alarms += int((stopped(large, small, per_look=(split, 1)) > 0).sum())
        unprotected += int((stopped(large, small, per_look=(split, 1), fewest_events=0) > 0).sum())

    assert np.median(events) > 0.8 * Rules().fewest_events  # they did get to speak
    assert alarms / RUNS <= 0.05
    assert unprotected > 1.5 * alarms


def test_the_verdict_errs_in_at_most_one_of_twenty_when_asked_all_the_time() -> None:
    random = np.random.default_rng(4)
    looks = np.arange(100, 10_001, 100)
    converted = random.binomial(100, 0.05, (RUNS, 2, len(looks))).cumsum(axis=2)
    wrong = 0
    for run in converted:
        for look, count in enumerate(looks.tolist()):
            samples = {
                arm: Sample.of_conversions(count, int(run[number, look])) for number, arm in enumerate(("old", "new"))
            }
            found = judge(EXPERIMENT, "conversion", samples).comparisons[0].outcome
            if found in (Outcome.BETTER, Outcome.WORSE):
                wrong += 1
                break

    assert wrong / RUNS <= 0.05


def test_several_arms_share_the_error() -> None:
    random = np.random.default_rng(5)
    values = (random.random((4, RUNS, 3_000)) < 0.2).astype(float)

    alarms = [stopped(values[0], values[arm], alpha=0.05 / 3) > 0 for arm in (1, 2, 3)]

    assert np.logical_or.reduce(alarms).mean() <= 0.05


def test_the_planned_size_finds_the_planned_effect() -> None:
    random = np.random.default_rng(6)
    pairs = shoppers_needed(0.05, 0.2 * 0.8, power=0.8) // 2
    control = (random.random((RUNS, pairs)) < 0.175).astype(float)
    treated = (random.random((RUNS, pairs)) < 0.225).astype(float)

    after = stopped(control, treated)

    assert (after > 0).mean() >= 0.8
    assert np.median(after[after > 0]) < 0.75 * pairs  # and peeking pays: most stop well before
    assert (treated.mean(axis=1) > control.mean(axis=1))[after > 0].all()


def test_a_mean_stays_in_its_sequence() -> None:
    random = np.random.default_rng(7)
    values = random.gamma(1.5, 2.0, (RUNS, 4_000))
    counts = np.arange(1.0, 4_001)
    means = values.cumsum(axis=1) / counts
    deviations = np.sqrt(np.maximum((values**2).cumsum(axis=1) / counts - means**2, 1e-12))

    out = np.abs(means - 3.0)[:, 99:] > radius(counts, deviations, 0.1, 4_000)[:, 99:]

    assert out.any(axis=1).mean() <= 0.1
    one = mean_sequence(Sample.of(values[0]))
    assert 3.0 in one
    assert one.high - one.low < 0.5


def test_words_for_every_outcome() -> None:
    def said(old: Sample, new: Sample, **rules: object) -> tuple[Outcome, str]:
        verdict = judge(EXPERIMENT, "conversion", {"old": old, "new": new}, Rules(**rules))  # type: ignore[arg-type]
        return verdict.comparisons[0].outcome, verdict.words

    conversions = Sample.of_conversions
    better = said(conversions(10_000, 500), conversions(10_000, 700))
    assert better[0] is Outcome.BETTER
    assert "new is better than old" in better[1]
    assert "+40.0% of old" in better[1]
    assert said(conversions(10_000, 700), conversions(10_000, 500))[0] is Outcome.WORSE
    assert said(Sample(10_000, 80.0, 900.0), Sample(10_000, 70.0, 900.0), more_is_better=False)[0] is Outcome.BETTER
    assert said(conversions(10_000, 500), conversions(10_000, 510))[0] is Outcome.UNDECIDED
    same = said(conversions(10_000, 500), conversions(10_000, 510), smallest_effect=0.02)
    assert same[0] is Outcome.NO_DIFFERENCE
    assert "differ by less than 0.02" in same[1]
    for early in ((50, 0, 50, 40), (1_000, 3, 1_000, 40), (1_000, 0, 1_000, 0), (1_000, 990, 1_000, 600)):
        assert said(conversions(*early[:2]), conversions(*early[2:]))[0] is Outcome.TOO_EARLY
    revenue = Sample.of(np.array([900.0] * 4 + [20.0] * 400 + [0.0] * 9_596))
    assert revenue.events == pytest.approx(11_600**2 / (4 * 900**2 + 400 * 20**2))
    thin = said(revenue, Sample(10_000, 3.0, 100.0))
    assert thin[0] is Outcome.TOO_EARLY
    assert "resting on 40 and" in thin[1]
    assert said(revenue, Sample(10_000, 3.0, 100.0), fewest_events=0)[0] is Outcome.BETTER
    lost = said(conversions(10_000, 500), conversions(9_000, 900))
    assert lost[0] is Outcome.INVALID
    assert "Do not believe order: the split is wrong" in lost[1]
    with pytest.raises(InvalidInput, match="has the arms"):
        judge(EXPERIMENT, "conversion", {"old": conversions(10, 1)})
    with pytest.raises(InvalidInput, match="alpha"):
        Rules(alpha=0)


def test_team_draft_is_fair_and_keeps_both_orders() -> None:
    a, b = list("abcdefgh"), list("hcabxyzw")

    lists = [team_draft(a, b, 6, seed) for seed in range(400)]

    assert team_draft(a, b, 6, 1) == lists[1]
    assert {each.products[0] for each in lists} == {"a", "h"}
    for each in lists:
        assert len(set(each.products)) == len(each.products) == 6
        assert abs(sum(each.teams)) <= 0  # three each
        for ranking, team in ((a, 1), (b, -1)):
            own = [ranking.index(product) for product, by in zip(each.products, each.teams) if by == team]
            assert own == sorted(own)
            # A team's product is the best of its ranking that was not yet shown.
            for place, by in enumerate(each.teams):
                if by == team:
                    rest = [product for product in ranking if product not in each.products[:place]]
                    assert each.products[place] == rest[0]
    assert sum(each.products[0] == "a" for each in lists) == pytest.approx(200, abs=50)


def test_places_where_both_agree_are_credited_to_neither() -> None:
    mixed = team_draft(list("abcd"), list("abdc"), 4, 0)

    assert mixed.products[:2] == ("a", "b")
    assert mixed.teams[:2] == (0, 0)
    assert sorted(mixed.teams[2:]) == [-1, 1]
    assert team_draft(list("ab"), list("ab"), 5, 0).teams == (0, 0)
    assert team_draft([], ["a", "b"], 5, 0).teams == (-1, -1)
    assert team_draft(["a"], ["b", "a", "c"], 5, 0).products in {("a", "b", "c"), ("b", "a", "c")}
    assert credit((0, 1, -1, 1), [0, 1, 3, 3]) == 2
    assert credit((0, 1, -1, 1), []) == 0
    with pytest.raises(InvalidInput, match="not shown"):
        credit((0, 1), [2])
    with pytest.raises(InvalidInput, match="twice"):
        team_draft(["a", "a"], ["b"], 2, 0)


def test_sign_test_is_the_binomial() -> None:
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(5_100, 4_900) == pytest.approx(math.erfc(99.5 / math.sqrt(5_000)), rel=0.01)
    assert sign_test(51_000, 49_000) < 1e-9
    with pytest.raises(InvalidInput, match="do not fit"):
        preference(6, 5, 10)


# The shopper of the simulation clicks on the products he likes, and looks at fewer and fewer of them.
_EXAMINED = 0.85 ** np.arange(10)
_RELEVANCE = np.random.default_rng(8).permutation(np.concatenate([np.full(5, 0.25), np.full(25, 0.04)]))


def _ranking(noise: float, seed: int) -> list[str]:
    """The products by relevance, seen through noise."""
    seen = _RELEVANCE + np.random.default_rng(seed).normal(0, noise, 30)
    return [str(product) for product in np.argsort(-seen)[:20]]


def _impressions(
    a: list[str], b: list[str], runs: int, size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interleaving's credit sign of each impression, and clicks on A and on B shown alone; all (runs, size)."""
    random = np.random.default_rng(seed)
    pool = [team_draft(a, b, 10, draft) for draft in range(300)]
    relevance = np.array([[_RELEVANCE[int(product)] for product in each.products] for each in pool])
    teams = np.array([each.teams for each in pool])
    sign = np.zeros((runs, size), dtype=np.int8)
    for run in range(runs):
        chosen = random.integers(0, len(pool), size)
        clicks = random.random((size, 10)) < relevance[chosen] * _EXAMINED
        sign[run] = np.sign((clicks * teams[chosen]).sum(axis=1))

    def alone(ranking: list[str]) -> np.ndarray:
        chance = _RELEVANCE[[int(product) for product in ranking[:10]]] * _EXAMINED
        missed = np.prod(1 - chance)
        return (random.random((runs, size)) > missed).astype(float)

    return sign, alone(a), alone(b)


@pytest.mark.parametrize(("noise", "seed", "saves"), [(0.15, 2, 1.3), (0.1, 3, 3.0), (0.1, 4, 3.0), (0.08, 2, 3.0)])
def test_interleaving_decides_with_fewer_impressions_than_a_b(noise: float, seed: int, saves: float) -> None:
    """The closer the rankings, the more it saves: the last pair differs by .667 to .643 clicked impressions."""
    size = 8_000
    good, poor = _ranking(0.05, 1), _ranking(noise, seed)
    sign, clicked_a, clicked_b = _impressions(good, poor, runs=100, size=size, seed=9)

    counts = np.arange(1.0, size + 1)
    mean = sign.cumsum(axis=1, dtype=np.int64) / counts
    deviation = np.sqrt(np.maximum((sign != 0).cumsum(axis=1) / counts - mean**2, 1e-12))
    out = np.abs(mean) > radius(counts, deviation, 0.05, 2.0 * size)
    out[:, :99] = False
    interleaved = np.where(out.any(axis=1), out.argmax(axis=1) + 1.0, np.inf)
    winners = np.take_along_axis(mean, out.argmax(axis=1)[:, None], axis=1)[:, 0]

    pairs = stopped(clicked_b, clicked_a)
    separate = np.where(pairs > 0, 2.0 * pairs, np.inf)  # each pair is two impressions

    assert np.isfinite(interleaved).mean() > 0.95
    assert (winners[np.isfinite(interleaved)] > 0).mean() > 0.99
    assert saves * np.median(interleaved) < np.median(separate)


def test_interleaving_equally_good_rankings_errs_in_at_most_one_of_twenty() -> None:
    a, b = _ranking(0.05, 1), _ranking(0.05, 1)
    # Swap products of the same relevance: the rankings differ, their worth does not.
    same = [place for place in range(10) if _RELEVANCE[int(a[place])] == 0.25]
    for one, two in zip(same[::2], same[1::2]):
        b[one], b[two] = b[two], b[one]
    assert a != b
    sign, _, _ = _impressions(a, b, runs=RUNS, size=1_500, seed=10)

    counts = np.arange(1.0, 1_501)
    mean = sign.cumsum(axis=1, dtype=np.int64) / counts
    deviation = np.sqrt(np.maximum((sign != 0).cumsum(axis=1) / counts - mean**2, 1e-12))
    out = np.abs(mean)[:, 99:] > radius(counts, deviation, 0.05, 2_000.0)[:, 99:]

    assert out.any(axis=1).mean() <= 0.05


def test_interleaving_says_who_won() -> None:
    clear, close = preference(700, 400, 5_000), preference(510, 490, 5_000)

    assert judge_interleaving(clear, "learned", "engine") == (
        "learned is preferred to engine: it won 64% of the 1,100 impressions that had a winner."
    )
    assert judge_interleaving(preference(400, 700, 5_000), "learned", "engine").startswith("engine is preferred")
    assert "Undecided" in judge_interleaving(close, "learned", "engine")
    assert "Too early" in judge_interleaving(preference(9, 1, 50), "learned", "engine")
    assert clear.probability < 1e-10 < 0.4 < close.probability


def test_what_a_shop_can_find_falls_with_its_traffic() -> None:
    effects = [detectable_effect(shoppers, 0.05 * 0.95) for shoppers in (1_000, 10_000, 100_000)]

    assert effects == pytest.approx([effects[0], effects[0] / math.sqrt(10), effects[0] / 10])


def test_cuped_does_not_make_an_a_a_test_err_more_often() -> None:
    """The slope is learned from the very shoppers that it is applied to, and one looks ten times."""
    random = np.random.default_rng(7)
    wrong, runs = 0, 300
    for _ in range(runs):
        before = {arm: random.gamma(2.0, 10.0, 2_000) for arm in ("old", "new")}
        metric = {arm: known + random.normal(0, 10, len(known)).clip(-known) for arm, known in before.items()}
        for count in range(200, 2_001, 200):
            samples = {arm: Sample.of(values[:count]) for arm, values in metric.items()}
            adjusted = adjust(
                {arm: values[:count] for arm, values in metric.items()},
                {arm: values[:count] for arm, values in before.items()},
            )
            said = judge(EXPERIMENT, "revenue", samples, Rules(planned=4_000.0), adjusted.samples).comparisons[0]
            if said.outcome in (Outcome.BETTER, Outcome.WORSE):
                wrong += 1
                break
    assert wrong / runs <= 0.05
