"""Farms are what they are said to be: an attack test is worth what its attacks are."""

from __future__ import annotations

import numpy as np
import pytest

from endcap_workers.evaluation.attack import GRID, Log
from endcap_workers.evaluation.farms import DAY_S, KINDS, Purchases, farm
from endcap_workers.fraud.judge import accomplices, beyond

NOW = 1_500_000_000.0
TARGETS = ["push-1", "push-2"]


@pytest.fixture(scope="module")
def genuine() -> Purchases:
    """120 shoppers who come about once a week for a year, each at most for eight products; one in five is new."""
    random = np.random.default_rng(0)
    shopper, product, basket, time = [], [], [], []
    for who in range(150):
        since = 350 if who % 5 else 45 * random.random()
        for visit in range(max(1, int(since / 7))):
            when = NOW - (since * random.random()) * DAY_S
            lines = int(random.integers(1, 9))
            product += [f"p{int(random.zipf(1.4)) % 200}" for _ in range(lines)]
            shopper += [f"ann{who}"] * lines
            basket += [who * 1_000 + visit] * lines
            time += [when] * lines
    order = np.argsort(time, kind="stable")
    return Purchases(
        np.array(shopper)[order], np.array(product)[order], np.array(basket, dtype=np.int64)[order],
        np.array(time)[order],
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_farm_is_as_large_as_asked_pushes_its_targets_and_ends_now(kind: str, genuine: Purchases) -> None:
    made = farm(kind, genuine, TARGETS, 2_000, NOW, 1)
    assert 1_700 <= len(made) <= 2_600
    assert set(TARGETS) <= set(made.product)
    assert (np.diff(made.time) >= 0).all()
    assert made.time[-1] <= NOW
    assert not set(made.shopper) & set(genuine.shopper)
    assert len(np.unique(made.basket)) > 1
    again = farm(kind, genuine, TARGETS, 2_000, NOW, 1)
    assert (again.product == made.product).all()
    with pytest.raises(ValueError, match="no farm"):
        farm("honest", genuine, TARGETS, 10, NOW, 1)


def test_aged_accounts_came_long_ago_bought_little_and_push_late(genuine: Purchases) -> None:
    made = farm("aged", genuine, TARGETS, 3_000, NOW, 2)
    names = np.unique(made.shopper)
    came = np.array([made.time[made.shopper == name].min() for name in names])
    assert ((NOW - came) / DAY_S >= 119).all()
    assert ((NOW - came) / DAY_S <= 181).all()
    pushed = np.isin(made.product, TARGETS)
    assert (NOW - made.time[pushed].min()) / DAY_S <= 61
    late = made.time > NOW - 60 * DAY_S
    assert 0.1 < 1 - late.mean() < 0.4
    visits = [len(np.unique(np.round(made.time[(made.shopper == name) & ~late] / DAY_S))) for name in names]
    assert min(visits) >= 3


def test_patient_accounts_do_as_much_before_as_after(genuine: Purchases) -> None:
    made = farm("patient", genuine, TARGETS, 3_000, NOW, 3)
    late = made.time > NOW - 60 * DAY_S
    own = ~np.isin(made.product, TARGETS)
    before, after = (own & ~late).sum() / 120, (own & late).sum() / 60
    assert 0.7 < after / before < 1.4
    assert late[~own].all()
    assert set(made.product[own]) <= set(genuine.product)


def test_the_aged_are_caught_by_what_woke_them_and_hardly_anybody_else(genuine: Purchases) -> None:
    log = Log(genuine, NOW)
    made = farm("aged", log.genuine, TARGETS, len(genuine) // 20, NOW, 4)
    behaviour = log.attacked_by(made)
    strictest = GRID[0]
    caught = np.array(behaviour.names)[beyond(behaviour, strictest)].tolist()
    accounts = set(made.shopper)
    assert len(set(caught) & accounts) >= 0.95 * len(accounts)
    # Some do not wake up, and are found by whom they go with.
    alone = behaviour.woken.shoppers < strictest.woken
    hidden = [name for name, one in zip(behaviour.names, alone) if one and name in accounts]
    assert set(hidden) <= set(caught)
    many = accomplices(behaviour, strictest.woken)
    assert all(many[behaviour.names.index(name)] >= 2 for name in hidden)
    assert log.dropped(caught) < 0.02
    assert log.dropped([]) == 0
    assert len(Log(genuine, NOW - 90 * DAY_S).genuine) < len(log.genuine)
