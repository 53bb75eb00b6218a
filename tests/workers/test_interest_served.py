"""The tables of the interest model as it is served: their lists are the protocol's, made by the code that serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from endcap.catalog import ProductTable
from endcap.events import Action
from endcap.features import FEATURES, INDEX
from endcap.sequences import Alignment, InputSpec, Vocabulary
from endcap_workers.evaluation import complete_journey as journey
from endcap_workers.evaluation import interest_ablation, interest_served
from endcap_workers.training.cases import TEST, Case, Cases, CaseWriter
from endcap_workers.training.learning import Scores


def test_lists_are_the_protocols_cases(tmp_path: Path) -> None:
    judged = journey.load(400, cut=np.datetime64("2017-02-15"), until=np.datetime64("2017-03-15"))
    table = ProductTable(list(journey.table_products(judged)))
    shared = Alignment(table, Vocabulary(), InputSpec(places=5))
    with CaseWriter(tmp_path, 5) as writer:
        numbers = interest_served.add_block(writer, judged, TEST, most=60, seed=1, shared=shared)
    writer.finish({})
    made = Cases(tmp_path)

    assert len(made.lists) == len(numbers) == 60
    pairs = set(zip(judged.train.household_id, judged.train.product_id, strict=True))
    for (household, kind), number in numbers.items():
        start, size = made.lists[number][["start", "size"]].item()
        ids = [int(table.ids[row]) for row in made.rows[start : start + size]]
        assert ids == judged.candidates[kind].tolist()
        test = judged.test[(judged.test.household_id == household) & (judged.test.product_type == kind)]
        assert sorted(np.repeat(ids, made.wanted[start : start + size].astype(int))) == sorted(test.product_id)
        known = made.features[start : start + size, INDEX["own_any"]] > 0
        assert all((household, one) in pairs for one, it in zip(ids, known, strict=True) if it)
        latest = judged.train[judged.train.household_id == household].tail(5)
        there = made.history_actions[number] == Action.PURCHASE
        assert {int(table.ids[row]) for row in made.history_rows[number][there]} <= set(latest.product_id)
    perfect = Scores(np.r_[0, np.cumsum(made.lists["size"])], made.wanted.astype(np.float32), np.array(made.wanted))
    figures = interest_served.Judged(judged, numbers).figures(perfect)
    assert figures["ndcg@10"] > 0.95
    assert figures["ndcg@10 new"] == pytest.approx(figures["ndcg@10 repeat"], abs=0.1)


def test_a_group_that_is_left_out_says_nothing_and_the_others_stay(tmp_path: Path) -> None:
    nothing = np.zeros(0)
    features = np.arange(2.0 * len(FEATURES)).reshape(2, -1) + 1.0
    with CaseWriter(tmp_path, 1) as writer:
        writer.add(Case(features, np.arange(2), np.ones(2), (nothing, nothing, nothing), 0.0, TEST, 0))
    writer.finish({})
    made = Cases(tmp_path)

    blind = interest_ablation.blinded(made, "taste").features

    taste = np.isin(FEATURES, interest_ablation.GROUPS["taste"])
    assert not blind[:, taste].any()
    assert np.array_equal(blind[:, ~taste], features[:, ~taste])
    assert np.array_equal(made.features, features), "the cases themselves stay as they are"
    every = {name for group in interest_ablation.GROUPS.values() for name in group}
    assert every <= set(FEATURES)


def test_models_vote_by_their_chances() -> None:
    found = Scores(np.array([0, 2, 5]), np.array([0.0, np.log(3.0), 7.0, 7.0, 7.0]), np.zeros(5))

    assert np.exp(interest_ablation._chances(found)) == pytest.approx([0.25, 0.75, 1 / 3, 1 / 3, 1 / 3])
