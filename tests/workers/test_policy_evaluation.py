"""The protocol that judges ranking policies, on a small world whose truth is known."""

import numpy as np
import pytest

from endcap.policy import DEFAULT_BLENDS, Context, Exploration, FixedPolicy, vectors
from endcap.policy.context import COLUMNS
from endcap.policy.linear import LinUCB, ThompsonPolicy
from endcap.results import Results
from endcap_workers.evaluation import policy as evaluation
from endcap_workers.evaluation.journey_environment import Environment
from endcap_workers.evaluation.policy import Played, context_bounds, interval, play, recovery
from endcap_workers.evaluation.policy_learners import (
    IncumbentLearner,
    Learner,
    LinearLearner,
    QLearner,
    SoftmaxLearner,
    Standing,
)

ARMS = DEFAULT_BLENDS[:4]
COUNT, AT, LOGGED = 9_000, 5_000, 1_000


@pytest.fixture(scope="module")
def world() -> Environment:
    """Arm 0 is best until ranking 5,000, arm 3 from then on."""
    random = np.random.default_rng(0)
    seen = [Context(known=("none", "few", "many")[number]) for number in random.integers(3, size=COUNT)]
    chance = np.full((COUNT, 4), 0.3)
    chance[:AT, 0], chance[AT:, 3] = 0.6, 0.6
    chance[AT:, 0] = 0.1
    return Environment(
        vectors(seen),
        (random.random((COUNT, 4)) < chance).astype(float),
        np.datetime64("2017-01-01") + np.arange(COUNT) * np.timedelta64(1, "m"),
        np.arange(COUNT) // 4,
        np.arange(COUNT) % 300,
        ARMS,
    )


def made(name: str) -> Learner:
    explores = Exploration(0.05)
    return {
        "incumbent": lambda: IncumbentLearner(ARMS, explores),
        "softmax": lambda: SoftmaxLearner(ARMS, explores, 400),
        "linucb": lambda: LinearLearner(LinUCB, ARMS, explores, 400),
        "thompson": lambda: LinearLearner(ThompsonPolicy, ARMS, explores, 400),
        "q": lambda: QLearner(ARMS, explores, 400, 0.5, 0),
    }[name]()


@pytest.mark.parametrize("name", ["incumbent", "softmax", "linucb", "thompson", "q"])
def test_a_learner_beats_every_fixed_profile_where_the_world_changes(world: Environment, name: str) -> None:
    earned = play(made(name), world, 0, LOGGED, 100)
    fixed = world.rewards[LOGGED:].mean(axis=0).max()
    assert earned.mean() > fixed + 0.05
    assert recovery(earned, world.rewards[LOGGED:], AT - LOGGED) <= 2_000


def test_a_policy_that_stands_still_never_recovers(world: Environment) -> None:
    earned = play(Standing(FixedPolicy(ARMS)), world, 0, LOGGED)
    assert np.array_equal(earned, world.rewards[LOGGED:, 0])
    assert np.isnan(recovery(earned, world.rewards[LOGGED:], AT - LOGGED))


def test_a_learner_sees_only_the_reward_of_the_arm_it_chose(world: Environment) -> None:
    """Changing what the others would have earned changes nothing."""

    class Watched(LinearLearner):
        seen: list[np.ndarray]

        def observe(self, contexts: np.ndarray, action: np.ndarray, reward: np.ndarray, session: np.ndarray) -> None:
            self.seen = [*getattr(self, "seen", []), np.stack([action, reward], axis=1)]
            super().observe(contexts, action, reward, session)

    small = world.take(slice(0, 2_000))
    learner = Watched(LinUCB, ARMS, Exploration(), 400)
    play(learner, small, 0, LOGGED)
    shown = np.concatenate(learner.seen)
    hidden = small.take(slice(None))
    hidden.rewards = np.full_like(small.rewards, 7.0)
    hidden.rewards[np.arange(len(shown)), shown[:, 0].astype(int)] = shown[:, 1]
    again = Watched(LinUCB, ARMS, Exploration(), 400)
    play(again, hidden, 0, LOGGED)
    assert np.array_equal(np.concatenate(again.seen), shown)


def test_bounds_say_what_a_context_is_worth_and_luck_is_not_counted(world: Environment) -> None:
    plain = world.take(slice(0, AT))
    nothing = context_bounds(plain, 0)
    assert list(nothing) == ["bound: the best profile of each step of “known”"], "fields that do not vary have none"
    [earned] = nothing.values()
    assert np.array_equal(earned, plain.rewards[:, 0])
    # A step of its own with another best profile.
    few = plain.contexts[:, COLUMNS.index("known=few")] > 0
    plain.rewards[few] = plain.rewards[few][:, ::-1]
    [earned] = context_bounds(plain, 0).values()
    assert earned.mean() > plain.rewards.mean(axis=0).max() + 0.05


def test_over_both_worlds(world: Environment) -> None:
    results = Results("x", "x", 0)
    one, other = world, world.take(slice(None))
    after = one.rewards[evaluation.LOGGED :]
    best = after[:, int(after.mean(axis=0).argmax())]
    played = {"a": Played(best[None] + 0.1)}, {"a": Played(best[None] - 0.02)}
    evaluation.both(results, (one, other), played, 0)
    assert results.rows["both: a"]["vs best fixed"] == pytest.approx(0.04)
    assert results.rows["both: a"]["from"] == pytest.approx(0.04, abs=1e-6)


def test_intervals_resample_shoppers() -> None:
    random = np.random.default_rng(0)
    one = random.normal(0.1, 1.0, 400)
    low, high = interval(one, np.arange(400))
    assert low < 0.1 < high
    wide = interval(np.repeat(one, 10), np.repeat(np.arange(400), 10))
    assert wide == pytest.approx((low, high)), "ten rankings alike of one shopper say no more than one"
