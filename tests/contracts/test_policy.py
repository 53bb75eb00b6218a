"""What every ranking policy must do: exact propensities, the bound on exploration, files that come back the same."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from endcap.errors import InvalidInput
from endcap.policy import DEFAULT_BLENDS, Context, Exploration, FixedPolicy, Policy, SoftmaxPolicy, draw_of, vectors
from endcap.policy.base import BasePolicy
from endcap.policy.context import STEPS
from endcap.policy.incumbent import IncumbentMemory
from endcap.policy.linear import LinearMemory, LinUCB, ThompsonPolicy
from endcap.policy.qlearning import QPolicy, Steps
from endcap.policy.saving import load_policy, policy_from_json, save_policy

ARMS = DEFAULT_BLENDS[:4]
BOUND = 0.05


def contexts(count: int, seed: int = 0) -> list[Context]:
    random = np.random.default_rng(seed)
    return [
        Context(**{name: steps[random.integers(len(steps))] for name, steps in STEPS.items()}) for _ in range(count)
    ]


def log(count: int = 3_000) -> tuple[list[Context], np.ndarray, np.ndarray]:
    """Arm 1 is good for shoppers without a history, arm 2 for the others."""
    random = np.random.default_rng(1)
    seen = contexts(count, 1)
    action = random.integers(len(ARMS), size=count)
    good = np.array([1 if one.history == "none" else 2 for one in seen])
    return seen, action, (random.random(count) < 0.1 + 0.4 * (action == good)).astype(float)


def _linear(kind: type[LinUCB] | type[ThompsonPolicy]) -> Callable[[], BasePolicy]:
    def make() -> BasePolicy:
        seen, action, reward = log()
        memory = LinearMemory(len(ARMS))
        memory.add(vectors(seen), action, reward)
        return kind.of(memory, ARMS, Exploration(BOUND), "v1")

    return make


def _q() -> BasePolicy:
    seen, action, reward = log()
    steps = Steps.of(vectors(seen), action, reward, np.arange(len(reward)) // 3)
    return QPolicy.learn(ARMS, steps, exploration=Exploration(BOUND), version="v1")


def _softmax() -> BasePolicy:
    _, action, reward = log()
    return SoftmaxPolicy.learn(ARMS, action, reward, 0.05, Exploration(BOUND), "v1")


def _incumbent() -> BasePolicy:
    _, action, reward = log()
    memory = IncumbentMemory(len(ARMS))
    memory.add(action, reward)
    return memory.policy(ARMS, Exploration(BOUND), "v1")


POLICIES: dict[str, Callable[[], BasePolicy]] = {
    "fixed": lambda: FixedPolicy(ARMS, Exploration(BOUND), "v1"),
    "incumbent": _incumbent,
    "softmax": _softmax,
    "linucb": _linear(LinUCB),
    "thompson": _linear(ThompsonPolicy),
    "q": _q,
}


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> BasePolicy:
    return POLICIES[request.param]()


def test_it_is_a_policy(policy: BasePolicy) -> None:
    assert isinstance(policy, Policy)
    assert policy.version == "v1"


def test_distributions_sum_to_one_and_keep_the_bound(policy: BasePolicy) -> None:
    rows = vectors(contexts(500))
    odds = policy.distribution(rows)
    assert odds.shape == (500, len(ARMS))
    assert np.allclose(odds.sum(axis=1), 1)
    best = odds[np.arange(500), policy.greedy(rows)]
    assert (1 - best <= BOUND + 1e-12).all(), "explores more than the bound"
    assert (odds > 0).all(), "an arm that is never tried cannot be judged"


def test_what_is_drawn_is_what_is_logged(policy: BasePolicy) -> None:
    """The share of draws that take an arm is the propensity that was logged with it."""
    one = contexts(1)[0]
    draws = (np.arange(4_000) + 0.5) / 4_000
    choices = [policy.choose(one, float(draw)) for draw in draws]
    for arm in ARMS:
        mine = [choice for choice in choices if choice.arm == arm]
        assert mine, "every arm is tried"
        assert len({choice.propensity for choice in mine}) == 1
        assert len(mine) / len(choices) == pytest.approx(mine[0].propensity, abs=1e-3)


def test_who_is_left_out_gets_the_best_arm_for_sure(policy: BasePolicy) -> None:
    for number, one in enumerate(contexts(50)):
        best = policy.arms[int(policy.greedy(vectors([one]))[0])]
        choice = policy.choose(one, number / 50, explore=False)
        assert (choice.arm, choice.propensity) == (best, 1.0)


def test_the_ends_of_the_line_are_drawn_too(policy: BasePolicy) -> None:
    for one in contexts(20):
        for draw in (0.0, np.nextafter(1.0, 0.0)):
            assert policy.choose(one, float(draw)).propensity > 0


def test_saved_and_read_back_it_is_the_same(policy: BasePolicy, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("policy")
    save_policy(policy, folder)
    twin = load_policy(folder)
    rows = vectors(contexts(100, 3))
    assert np.allclose(twin.distribution(rows), policy.distribution(rows), atol=1e-12)
    assert (twin.arms, twin.version, twin.kind) == (policy.arms, policy.version, policy.kind)


def test_damaged_files_are_refused(policy: BasePolicy) -> None:
    stored = policy.as_json()
    for change in ({"kind": "deep"}, {"arms": None}, {"arms": []}, {"exploration": {"bound": 2}}):
        with pytest.raises(InvalidInput):
            policy_from_json({**stored, **change})
    for key in ("mean", "coefficients", "means"):
        if key in stored:
            with pytest.raises(InvalidInput):
                policy_from_json({**stored, key: [[1.0]]})


def test_choosing_costs_no_more_than_a_small_matrix_product(policy: BasePolicy) -> None:
    """A ratio, as machines differ: less than the blend of a hundred candidates, which every search pays anyway."""
    seen = contexts(200, 5)
    matrix = np.random.default_rng(0).random((1_000, 100))

    def cost(work: Callable[[], object]) -> float:
        best = np.inf
        for _ in range(5):
            started = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - started)
        return best / len(seen)

    own = cost(lambda: [policy.choose(one, 0.3) for one in seen])
    yardstick = cost(lambda: [np.argsort(matrix, axis=0) for _ in seen])
    assert own < yardstick


def test_the_draw_is_sticky_and_uniform() -> None:
    assert draw_of("ann", "honey", 7_200.0, "v1") == draw_of("ann", "honey", 7_201.0, "v1")
    assert draw_of("ann", "honey", 7_200.0, "v1") != draw_of("ann", "honey", 7_200.0, "v2")
    draws = np.sort([draw_of(f"s{number}", "honey", 0.0, "v1") for number in range(4_000)])
    assert np.abs(draws - (np.arange(4_000) + 0.5) / 4_000).max() < 1.63 / np.sqrt(4_000), "Kolmogorov, 1 %"


@pytest.mark.parametrize("name", ["linucb", "thompson", "q"])
def test_contextual_ones_learn_what_is_best_where(name: str) -> None:
    policy = POLICIES[name]()
    seen = contexts(300, 7)
    good = np.array([1 if one.history == "none" else 2 for one in seen])
    assert (policy.greedy(vectors(seen)) == good).mean() > 0.95
