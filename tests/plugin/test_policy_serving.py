"""The policy on the way of a search: what is explored, what is logged, and what a fault of it must not do."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import Product, ProductTable
from endcap.catalog.values import time_or_none
from endcap.errors import ConfigurationError, InvalidInput
from endcap.features import RankingInputs, ranking_inputs
from endcap.personalizer import Personalizer, Ranking
from endcap.policy import DEFAULT_BLENDS, Blend, Context, Exploration, FixedPolicy, Visit, blended, device_of
from endcap.policy.arrange import Arranger
from endcap.policy.context import STEPS, query_kind
from endcap.policy.opening import profiles_of, standard_policy
from endcap.popularity import Popularity
from endcap.profiles import Profile
from endcap.scoring.baseline import BaselineScorer
from endcap.serving_log import ServingLog
from endcap.settings import Settings, load_settings
from endcap.stores.database import Database
from endcap.stores.rankings import Rankings

DAY = 86_400.0
NOW = 1_795_795_200.0
IDS = [f"p{number}" for number in range(5)]
TABLE = ProductTable(
    [
        Product(
            one,
            f"Honey {one}",
            brand=f"b{number % 2}",
            stock=0.0 if number == 0 else 3.0,
            attributes={"margin": number / 10, "added_at": NOW - (5 - number) * 20 * DAY},
        )
        for number, one in enumerate(IDS)
    ]
)
SCORES = np.linspace(2.0, 1.5, 5, dtype=np.float32)


class Nobody:
    def get(self, shopper: str) -> Profile:
        return Profile()


@pytest.fixture
def personalizer() -> Iterator[Personalizer]:
    policy = FixedPolicy(DEFAULT_BLENDS, Exploration(0.05, 1.0), "v7")
    arranger = Arranger(policy, no_exploration=frozenset({"fragile"}))
    # What is drawn hangs on the hour.
    made = Personalizer(
        BaselineScorer(), Nobody(), Popularity(), TABLE, 60_000.0, 2, clock=lambda: NOW, arranger=arranger  # type: ignore[arg-type]
    )  # fmt: skip
    yield made
    made.close()


def ranked(personalizer: Personalizer, shopper: str, segment: str = "") -> Ranking:
    return personalizer.rank(shopper, "honey", IDS, SCORES, Visit("phone", segment, "s1"))


def test_at_most_the_bound_is_explored_with_exact_propensities(personalizer: Personalizer) -> None:
    rankings = [ranked(personalizer, f"s{number}") for number in range(3_000)]
    arms = Counter(one.arm for one in rankings)
    explored = 3_000 - arms["interest"]
    assert 0.035 < explored / 3_000 < 0.065
    assert set(arms) == {arm.name for arm in DEFAULT_BLENDS}
    for one in rankings:
        others = len(DEFAULT_BLENDS) - 1
        assert one.propensity == pytest.approx(0.95 if one.arm == "interest" else 0.05 / others)
        assert one.context is not None
        assert (one.context["policy"], one.context["device"], one.context["explored"]) == ("v7", "phone", True)


def test_nothing_is_tried_out_on_those_who_are_opted_out(personalizer: Personalizer) -> None:
    rankings = [ranked(personalizer, f"s{number}", "fragile") for number in range(500)]
    assert {(one.arm, one.propensity) for one in rankings} == {("interest", 1.0)}
    assert all(one.context is not None and one.context["explored"] is False for one in rankings)


def test_pages_of_one_list_are_made_alike(personalizer: Personalizer) -> None:
    for number in range(50):
        assert ranked(personalizer, f"s{number}").arm == ranked(personalizer, f"s{number}").arm


def test_endpoints_that_are_no_search_get_the_scorers_order(personalizer: Personalizer) -> None:
    assert all(personalizer.rank(f"s{number}", "", IDS, SCORES).arm == "" for number in range(200))


def test_what_was_chosen_is_in_the_rankings_log(personalizer: Personalizer, tmp_path: Path) -> None:
    database = Database.in_folder(tmp_path)
    rankings = Rankings(database)
    log = ServingLog(rankings)
    ranking = next(one for n in range(500) if (one := ranked(personalizer, f"s{n}")).arm != "interest")
    log.shown(ranking, "ann", IDS, list(range(5)), endpoint="search", query="honey")
    log.queue.turn()
    (served,) = rankings.since(0)
    assert (served.arm, served.propensity) == (ranking.arm, ranking.propensity)
    assert Context.from_json(served.context).device == "phone"
    assert served.context["took_ms"] > 0
    database.close()


def inputs() -> RankingInputs:
    return ranking_inputs(Profile(), "honey", IDS, SCORES, TABLE, Popularity(), NOW)


@pytest.mark.parametrize(
    ("weights", "first"),
    [
        ({"engine": 1.0}, 0),
        ({"interest": 1.0}, 2),
        ({"freshness": 1.0}, 4),
        ({"margin": 1.0}, 4),
        ({"stock": 1.0}, 1),
        ({"interest": 0.5, "freshness": 0.5}, 4),
    ],
)
def test_each_signal_orders_by_what_it_says(weights: dict[str, float], first: int) -> None:
    interest = np.array([0.0, 0.1, 1.0, 0.2, 0.8], dtype=np.float32)
    scores, order = blended(Blend("x", weights), inputs(), interest)
    assert order[0] == first
    assert sorted(order.tolist()) == list(range(5))
    assert scores.dtype == np.float32


def test_a_signal_that_nobody_has_changes_nothing() -> None:
    bare = ProductTable([Product(one) for one in IDS])
    plain = ranking_inputs(Profile(), "honey", IDS, SCORES, bare, Popularity(), NOW)
    interest = np.array([0.0, 0.1, 1.0, 0.2, 0.8], dtype=np.float32)
    for signal in ("freshness", "margin", "stock", "popularity"):
        order = blended(Blend("x", {"interest": 0.5, signal: 0.5}), plain, interest)[1]
        assert order.tolist() == [2, 4, 3, 1, 0]


def test_profiles_by_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert profiles_of(Settings()) == DEFAULT_BLENDS
    assert len(standard_policy(Settings()).arms) == 1
    assert standard_policy(Settings(learn_policy=True)).exploration.bound == 0.05
    monkeypatch.setenv("ENDCAP_RANKING_PROFILES", '[{"name": "a", "weights": {"engine": 0.5}}]')
    with pytest.raises(ConfigurationError, match="sum to 0"):
        profiles_of(load_settings())
    twice = [{"name": "a", "weights": {"engine": 1.0}}] * 2
    with pytest.raises(ConfigurationError, match="of its own"):
        profiles_of(Settings(ranking_profiles=twice))
    with pytest.raises(InvalidInput):
        Exploration(1.5)


def test_contexts_are_what_they_say() -> None:
    assert [query_kind(text) for text in ("", "honey", "raw honey", "raw forest honey", "honey 500g")] == list(
        STEPS["query"]
    )
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148"
    assert [device_of(one) for one in (phone, "Mozilla/5.0 (iPad)", "Mozilla/5.0 (X11; Linux)", "curl/8", "")] == [
        "phone", "tablet", "desktop", "unknown", "unknown",
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match="depth"):
        Context.from_json({**Context().as_json(), "depth": "abyss"})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000_000, 1_700_000_000.0),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14", 1_699_920_000.0),
        ("1700000000", 1_700_000_000.0),
        ("soon", None),
        (True, None),
        (None, None),
        (float("nan"), None),
    ],
)
def test_days_as_shops_write_them(value: object, seconds: float | None) -> None:
    assert time_or_none(value) == seconds
