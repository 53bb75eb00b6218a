"""The incumbent policy: not left for luck, left for what is better, and an alarm where times change."""

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.policy import DEFAULT_BLENDS, Exploration
from endcap.policy.incumbent import UNIFORM, IncumbentMemory, IncumbentPolicy
from endcap.policy.saving import policy_from_json

ARMS = DEFAULT_BLENDS[:3]
BOUND = Exploration(0.05)
ROW = np.zeros((1, 1))


def learnt(chances: list[float], count: int, seed: int = 0, memory: IncumbentMemory | None = None) -> IncumbentMemory:
    """A memory of served rankings: the policy draws, sees what its arm earns, learns."""
    random = np.random.default_rng(seed)
    memory = memory or IncumbentMemory(len(ARMS))
    if memory.incumbent < 0:
        first = random.integers(3, size=600)
        memory.add(first, (random.random(600) < np.array(chances)[first]).astype(float))
    for _ in range(count // 50):
        odds = memory.policy(ARMS, BOUND).distribution(ROW)[0]
        action = random.choice(3, size=50, p=odds)
        memory.add(action, (random.random(50) < np.array(chances)[action]).astype(float))
    return memory


def test_where_arms_are_alike_the_incumbent_stays_and_less_and_less_is_tried() -> None:
    moves = 0
    for seed in range(5):
        memory = learnt([0.3, 0.3, 0.3], 0, seed)
        before, tried = memory.incumbent, 1 - memory.policy(ARMS, BOUND).distribution(ROW).max()
        memory = learnt([0.3, 0.3, 0.3], 8_000, seed, memory)
        moves += memory.incumbent != before
        assert memory.alarms == 0
        assert 1 - memory.policy(ARMS, BOUND).distribution(ROW).max() < 0.6 * tried
    assert moves <= 3


def test_a_challenger_that_is_better_takes_over() -> None:
    memory = IncumbentMemory(3)
    memory.add(np.arange(600) % 3, np.tile([1.0, 0.0, 0.0], 200))
    assert memory.incumbent == 0
    assert learnt([0.2, 0.5, 0.1], 6_000, memory=memory).incumbent == 1


def test_a_fall_of_the_incumbent_is_an_alarm_that_forgets_and_tries_anew() -> None:
    memory = learnt([0.6, 0.3, 0.2], 6_000)
    assert (memory.incumbent, memory.alarms) == (0, 0)
    quiet = memory.policy(ARMS, BOUND)
    assert 1 - quiet.distribution(ROW).max() < 0.03
    memory = learnt([0.1, 0.3, 0.5], 200, 1, memory)
    assert memory.alarms == 1
    memory = learnt([0.1, 0.3, 0.5], 1_800, 2, memory)
    assert memory.incumbent == 2


def test_a_rise_is_none() -> None:
    memory = learnt([0.3, 0.1, 0.1], 3_000)
    assert learnt([0.7, 0.1, 0.1], 2_000, 1, memory).alarms == 0


def test_what_is_ahead_by_chance_is_tried_and_not_taken() -> None:
    policy = IncumbentPolicy(
        ARMS, 0, np.array([0.30, 0.31, 0.1]), np.array([0.001, 0.05, 0.05]), Exploration(0.05, UNIFORM)
    )
    odds = policy.distribution(ROW)[0]
    assert policy.greedy(ROW).tolist() == [0]
    assert odds[0] >= 0.95
    assert odds[1] > 5 * odds[2] > 0
    again = policy_from_json(policy.as_json())
    assert np.array_equal(again.distribution(ROW), policy.distribution(ROW))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no arm"):
        IncumbentPolicy(ARMS, 3)
    with pytest.raises(InvalidInput, match="deviations above 0"):
        IncumbentPolicy(ARMS, 0, np.zeros(3), np.zeros(3))
    with pytest.raises(InvalidInput, match="finite"):
        IncumbentMemory(3).add(np.zeros(1, dtype=int), np.array([np.nan]))
    stored = IncumbentPolicy(ARMS, 1).as_json()
    with pytest.raises(InvalidInput, match="no arm"):
        policy_from_json({**stored, "incumbent": 9})
    with pytest.raises(InvalidInput, match="cannot be read"):
        policy_from_json({name: value for name, value in stored.items() if name != "means"})
