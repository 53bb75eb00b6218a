"""The Complete Journey protocol: it is the one it says it is, and its goal is met."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from endcap_workers.evaluation import complete_journey as journey


@pytest.fixture(scope="module")
def cases() -> journey.Cases:
    return journey.load(cases=2_000)


def test_nothing_after_the_cut_is_known(cases: journey.Cases) -> None:
    assert cases.train.transaction_timestamp.max() < journey.CUT <= cases.test.transaction_timestamp.min()
    world = journey.World(cases)
    day = journey.CUT.astype("datetime64[D]").astype(int)
    assert max(profile._latest for profile in world.profiles.values()) < day


def test_the_same_cases_and_baselines_as_the_reference(cases: journey.Cases, shared_dir: Path) -> None:
    file = shared_dir / "benchmarks" / "complete_journey_search.py"
    spec = importlib.util.spec_from_file_location("reference_protocol", file)
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = reference  # its dataclass looks its own module up
    spec.loader.exec_module(reference)
    expected = reference.load(2_000)
    assert expected.test.reset_index(drop=True).equals(cases.test.reset_index(drop=True))
    assert {name: ids.tolist() for name, ids in expected.candidates.items()} == {
        name: ids.tolist() for name, ids in cases.candidates.items()
    }
    own = journey.baselines(cases)["own purchases, then recent"]
    theirs, ours = reference.evaluate(expected, own), journey.evaluate(cases, own)
    assert ours == pytest.approx(theirs)


def test_the_baseline_scorer_beats_own_purchases_first_on_known_and_new_products(cases: journey.Cases) -> None:
    world = journey.World(cases)

    def no_order(household: int, name: str, candidates: np.ndarray) -> np.ndarray:
        return np.zeros(len(candidates), dtype=np.float32)

    ours = journey.evaluate(cases, world.score_with(journey.BaselineScorer(), no_order))
    simple = journey.evaluate(cases, journey.baselines(cases)["own purchases, then recent"])
    assert ours["ndcg@10"] > simple["ndcg@10"]
    assert ours["ndcg@10 new"] > simple["ndcg@10 new"]


def test_served_and_evaluated_features_are_the_same_code(cases: journey.Cases, tmp_path: Path) -> None:
    """A household replayed through the event log gets the same model inputs as in the evaluation."""
    from endcap.catalog.product import product_keys
    from endcap.events import Action, Event
    from endcap.features import ranking_inputs
    from endcap.profiles import MOST_BYTES
    from endcap.stores.aliases import Aliases
    from endcap.stores.database import Database
    from endcap.stores.events import EventLog
    from endcap.stores.profiles import LogProfiles, Restorer

    world = journey.World(cases)
    household, name = int(cases.test.household_id.iloc[0]), str(cases.test.product_type.iloc[0])
    bought = cases.train[cases.train.household_id == household]
    log = EventLog(Database.in_folder(tmp_path))
    log.append(
        [
            Event(str(number), time.timestamp(), str(household), Action.PURCHASE, str(product))
            for number, (time, product) in enumerate(zip(bought.transaction_timestamp, bought.product_id))
        ]
    )
    profile = LogProfiles(Restorer(log, Aliases(log.database, log), MOST_BYTES, 50, 30.0), 8.0).get(str(household))
    candidates = cases.candidates[name]
    served = ranking_inputs(
        profile, name, [str(one) for one in candidates.tolist()], np.zeros(len(candidates), np.float32),
        world.table, world.popularity, world.now,
    )  # fmt: skip
    np.testing.assert_array_equal(served.features, world.inputs(household, name, candidates).features)
    assert len(product_keys([str(one) for one in candidates.tolist()])) == len(served.rows)
