"""Ranking policies that learn while they serve, on real purchases, against fixed profiles and the engine order.

The environment is :mod:`endcap_workers.evaluation.journey_environment`. Its first 3,000 rankings are made by a uniform
policy; from that log every learner starts. Then each serves the rest in order of time, keeps the bound of 5 % on
exploration, sees only what the profile earned that it chose, and is replaced by what it has learnt every 50 rankings
(double Q: 200). Two worlds: the data as they are, and with the range of products changed in September, which is
constructed: purchases, shoppers and times are real, that each product had a successor is not.

*Best fixed profile* is chosen in hindsight, on the very rankings it is judged on: no shop could have known it.
Differences are means over ten runs; their intervals (95 %) resample households. *Regret* is towards the profile that is
best in each week. *Bound* rows are no policies: they say what knowing one field of the context could bring at most.
*Recovery* counts rankings since the change until the mean of the latest 500 reaches 95 % of the
profile that is best in these 500.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from endcap.ope import LoggedChoices, judge
from endcap.ope.verdict import Decision
from endcap.policy import Blend, Exploration, FixedPolicy
from endcap.policy.context import COLUMNS, STEPS
from endcap.policy.linear import LinearMemory, LinUCB
from endcap.results import Results
from endcap_workers.evaluation.journey_environment import Environment, build
from endcap_workers.evaluation.policy_learners import Learner, QLearner, Standing, learners

ARMS = (
    Blend("interest"),
    Blend("engine", {"engine": 1.0}),
    Blend("balanced", {"engine": 0.5, "interest": 0.5}),
    Blend("popular", {"interest": 0.5, "popularity": 0.5}),
    Blend("varied", {"interest": 0.85, "diversity": 0.15}),
    Blend("fresh", {"interest": 0.8, "freshness": 0.2}),
    Blend("new", {"interest": 0.6, "freshness": 0.4}),
    Blend("newest", {"interest": 0.4, "freshness": 0.6}),
)
CHANGE = np.datetime64("2017-09-04")
LOGGED = 3_000
RUNS = 10
HALF_LIFE = 500.0
EVERY, EVERY_Q = 50, 200
_WINDOW, _SHARE = 500, 0.95
_RESAMPLES = 2_000


@dataclass(slots=True)
class Played:
    """Rewards of a learner after the log, (runs, n)."""

    rewards: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Over runs, (n,)."""
        result: np.ndarray = self.rewards.mean(axis=0)
        return result


def play(learner: Learner, world: Environment, seed: int, logged: int = LOGGED, every: int = EVERY) -> np.ndarray:
    """Rewards of the rankings after the log, (n - logged,)."""
    random = np.random.default_rng(seed)
    first = random.integers(len(world.arms), size=logged)
    learner.observe(world.contexts[:logged], first, world.rewards[np.arange(logged), first], world.session[:logged])
    earned = np.empty(len(world) - logged)
    for start in range(logged, len(world), every):
        rows = np.arange(start, min(start + every, len(world)))
        odds = np.cumsum(learner.policy().distribution(world.contexts[rows]), axis=1)
        action = np.minimum((random.random((len(rows), 1)) >= odds).sum(axis=1), len(world.arms) - 1)
        reward = world.rewards[rows, action]
        earned[rows - logged] = reward
        learner.observe(world.contexts[rows], action, reward, world.session[rows])
    return earned


def play_all(
    world: Environment, runs: int = RUNS, seed: int = 0, half_life: float = HALF_LIFE, bound: float = 0.05
) -> dict[str, Played]:
    """Every learner and the uniform policy, by name."""
    makers: dict[str, Callable[[int], Learner]] = dict(learners(world.arms, half_life, bound=bound))
    uniform = FixedPolicy(world.arms, Exploration(1 - 1 / len(world.arms), 1.0))
    makers["uniform"] = lambda seed: Standing(uniform)
    found: dict[str, Played] = {}
    for name, make in makers.items():
        rows = []
        for run in range(runs):
            learner = make(seed + run)
            every = EVERY_Q if isinstance(learner, QLearner) else EVERY
            rows.append(play(learner, world, seed + run, every=every))
        found[name] = Played(np.array(rows))
    return found


def interval(difference: np.ndarray, shopper: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % of the mean of differences, (n,), resampling shoppers."""
    names, index = np.unique(shopper, return_inverse=True)
    sums, counts = np.bincount(index, difference), np.bincount(index).astype(float)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES).astype(float)
    means = (drawn @ sums) / (drawn @ counts)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def recovery(earned: np.ndarray, rewards: np.ndarray, at: int) -> float:
    """Rankings after ``at`` until the latest 500 earn 95 % of the profile best in them; NaN: never.

    ``earned``: (n,), mean over runs. ``rewards``: (n, arms).
    """
    own = np.cumsum(np.r_[0.0, earned[at:]])
    all_ = np.cumsum(np.vstack([np.zeros(rewards.shape[1]), rewards[at:]]), axis=0)
    for end in range(_WINDOW, len(own)):
        if own[end] - own[end - _WINDOW] >= _SHARE * (all_[end] - all_[end - _WINDOW]).max():
            return float(end)
    return float("nan")


def weekly_best(world: Environment) -> np.ndarray:
    """What the profile earns that is best in each week, by ranking; (n,)."""
    week = (world.time - world.time[0]).astype("timedelta64[D]").astype(int) // 7
    best = np.empty(len(world))
    for number in np.unique(week).tolist():
        mine = week == number
        best[mine] = world.rewards[mine, int(world.rewards[mine].mean(axis=0).argmax())]
    return best


def context_bounds(world: Environment, best: int) -> dict[str, np.ndarray]:
    """What a policy could earn at most that knows the best profile of each step of a context's field, (n,) by row name.

    The profile of a step is chosen on one half of the households and counted on the other: what is only luck does not
    count. ``best``: the profile that is best in all.
    """
    rows: dict[str, np.ndarray] = {}
    half = np.unique(world.shopper, return_inverse=True)[1] % 2
    for field, steps in STEPS.items():
        columns = [COLUMNS.index(f"{field}={step}") for step in steps]
        step = world.contexts[:, columns].argmax(axis=1)
        if len(np.unique(step)) < 2:
            continue
        earned = np.empty(len(world))
        for number in np.unique(step).tolist():
            for side in (0, 1):
                told, counted = (step == number) & (half == side), (step == number) & (half != side)
                arm = int(world.rewards[told].mean(axis=0).argmax()) if told.any() else best
                earned[counted] = world.rewards[counted, arm]
        rows[f"bound: the best profile of each step of “{field}”"] = earned
    return rows


def compare(
    results: Results, title: str, world: Environment, runs: int, seed: int, change: np.datetime64 | None = None
) -> dict[str, Played]:
    """Add a world's rows. ``change``: when its range of products changes."""
    after = world.take(slice(LOGGED, None))
    at = int(np.searchsorted(after.time, change)) if change is not None else len(after)
    fixed = after.rewards.mean(axis=0)
    best = int(fixed.argmax())
    moving = weekly_best(after)
    log_best = int(world.rewards[:LOGGED].mean(axis=0).argmax())
    rows = {
        f"best fixed ({after.arms[best].name})": after.rewards[:, best],
        f"best in the log ({after.arms[log_best].name})": after.rewards[:, log_best],
        "engine order": after.rewards[:, [arm.name for arm in after.arms].index("engine")],
    }
    rows |= context_bounds(after, best)
    played = play_all(world, runs, seed)
    rows |= {name: one.mean for name, one in played.items()}
    for name, earned in rows.items():
        low, high = interval(earned - after.rewards[:, best], after.shopper, seed)
        numbers = {
            "reward": earned.mean(),
            "vs best fixed": (earned - after.rewards[:, best]).mean(),
            "from": low,
            "to": high,
            "regret": (moving - earned).mean(),
        }
        if change is not None:
            numbers |= {
                "before": earned[:at].mean(),
                "after": earned[at:].mean(),
                "recovery": recovery(earned, after.rewards, at),
            }
        results.add(f"{title}: {name}", numbers)
    return played


def gate_check(world: Environment, seed: int, logs: int = 40) -> str:
    """What the gate says from uniform logs, and how often it is true: a third of each log teaches, the rest judges."""
    balanced = np.zeros(len(world.arms))
    balanced[[arm.name for arm in world.arms].index("balanced")] = 1.0
    promoted = too_high = 0
    for number in range(logs):
        random = np.random.default_rng(seed * logs + number)
        count = len(world) // 2
        taught = count // 3
        rows = np.arange(count)
        action = random.integers(len(world.arms), size=count)
        reward = world.rewards[rows, action]
        memory = LinearMemory(len(world.arms))
        memory.add(world.contexts[:taught], action[:taught], reward[:taught])
        policy = LinUCB.of(memory, world.arms, Exploration())
        later = rows[taught:]
        odds = policy.distribution(world.contexts[later])
        logged = np.full(len(later), 1 / len(world.arms))
        said = judge(
            LoggedChoices.from_distribution(reward[later], action[later], logged, odds),
            LoggedChoices.from_distribution(reward[later], action[later], logged, balanced),
            shoppers=world.shopper[later],
            seed=seed,
        )
        promoted += said.decision is Decision.PROMOTE
        truth = float((odds * world.rewards[later]).sum(axis=1).mean())
        too_high += bool(said.lower) and max(said.lower.values()) > truth
    return (
        f"The gate, {logs} uniform logs, LinUCB against the profile balanced, which is worse: promoted {promoted} "
        f"times; the lower bound (95 %) was above what the candidate really earns {too_high} times."
    )


def both(results: Results, worlds: tuple[Environment, ...], played: tuple[dict[str, Played], ...], seed: int) -> None:
    """Add what each learner earned more than the best fixed profile of each world, over all of them."""
    parts = [world.take(slice(LOGGED, None)) for world in worlds]
    best = [one.rewards[:, int(one.rewards.mean(axis=0).argmax())] for one in parts]
    shopper = np.concatenate([one.shopper for one in parts])
    for name in played[0]:
        found = [one[name].mean - fixed for one, fixed in zip(played, best, strict=True)]
        difference = np.concatenate(found)
        low, high = interval(difference, shopper, seed)
        results.add(f"both: {name}", {"vs best fixed": difference.mean(), "from": low, "to": high})


def validate(results: Results, seed: int) -> None:
    """The rows by which settings are chosen: other draws of the weeks before September, as they are, and with the range
    changed in July and in June."""
    for title, change in (
        ("as is", None),
        ("July", np.datetime64("2017-07-10")),
        ("June", np.datetime64("2017-06-05")),
    ):
        world = build(ARMS, seed=seed + 1, change=change, end=CHANGE)
        compare(results, f"validation, {title}", world, RUNS, seed, change)


def run(seed: int = 0, ablation: bool = False) -> Results:
    """Both worlds. ``ablation``: also the worlds by which settings are chosen."""
    results = Results("policy", "endcap evaluate policy", seed)
    changed = build(ARMS, seed=seed, change=CHANGE)
    played = compare(results, "changed", changed, RUNS, seed, CHANGE)
    after = changed.take(slice(LOGGED, None))
    moving = weekly_best(after)
    curve = {
        name: np.add.reduceat(moving - one.mean, np.arange(0, len(after), 2_000)).round(1).tolist()
        for name, one in played.items()
    }
    for name, sums in curve.items():
        results.notes.append(
            f"regret by 2,000 rankings, changed range, {name}: {' '.join(f'{one:,.0f}' for one in sums)}"
        )
    results.notes.append(gate_check(changed, seed))
    plain = build(ARMS, seed=seed)
    both(results, (changed, plain), (played, compare(results, "as is", plain, RUNS, seed)), seed)
    results.notes.append(
        f"{len(changed):,} rankings, {LOGGED:,} of them the log; {RUNS} runs; the change comes after "
        f"{int(np.searchsorted(after.time, CHANGE)):,} served rankings."
    )
    if ablation:
        validate(results, seed)
    return results
