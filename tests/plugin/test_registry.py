"""The registry: what becomes of a version, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from endcap.bundles import LIVE, live_bundle, load_bundle, make_live
from endcap.errors import BundleRefused, PublishingFailed
from endcap.gates import GateFailed, Verdict
from endcap.registry import INTEREST, Registry, VersionConflict
from endcap.stores.database import Database
from endcap.stores.versions import UnknownVersion, Version, versions
from tests.services.fixtures import either_database
from tests.serving import make_bundle

PASSED = Verdict(True, ("NDCG 0.31 against 0.30",), {"searches": 500})
REFUSED = Verdict(False, ("new shoppers: NDCG 0.20, the live version has 0.30",), {"searches": 500})


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with either_database(request, tmp_path, "model_versions", "model_changes") as made:
        yield made


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(database: Database, models: Path) -> Registry:
    """With three versions of `policy`, which are folders and nothing else."""
    made = Registry(database, models)
    for number in (1, 2, 3):
        folder = models / f"policy-{number}"
        folder.mkdir(parents=True)
        made.add_candidate("policy", str(number), folder, {"regret": 0.1 * number}, {"seed": number})
    return made


def test_a_candidate_goes_live_when_its_gate_lets_it(registry: Registry) -> None:
    assert registry.live("policy") is None
    with pytest.raises(GateFailed, match="not been judged"):
        registry.promote("policy", "1")
    registry.judged("policy", "1", PASSED)
    live = registry.promote("policy", "1", "ada")
    assert (live.state, live.metrics, live.provenance) == ("live", {"regret": 0.1}, {"seed": 1})
    registry.judged("policy", "2", REFUSED, "run 7")
    with pytest.raises(GateFailed, match=r"gate refused policy 2: new shoppers"):
        registry.promote("policy", "2")
    assert registry.get("policy", "1").state == "live"
    assert registry.get("policy", "2").verdict == {
        "passed": False, "reasons": list(REFUSED.reasons), "numbers": {"searches": 500}, "against": "1",
    }  # fmt: skip
    assert registry.promote("policy", "2", force=True).state == "live"
    assert registry.get("policy", "1").state == "retired"
    assert [(one.action, one.version, one.before) for one in registry.history("policy")] == [
        ("promote", "2", "1"), ("refuse", "2", "1"), ("promote", "1", ""),
    ]  # fmt: skip


def test_roll_back_goes_one_further_each_time(registry: Registry) -> None:
    with pytest.raises(VersionConflict, match="no earlier version"):
        registry.roll_back("policy")
    for version in ("1", "2", "3"):
        registry.promote("policy", version, force=True)
    assert registry.roll_back("policy").version == "2"
    assert registry.roll_back("policy").version == "1"
    assert registry.roll_back("policy").state == "retired", "before the first there was none"
    assert registry.live("policy") is None
    with pytest.raises(VersionConflict, match="no earlier version"):
        registry.roll_back("policy")
    registry.promote("policy", "3", force=True)
    registry.promote("policy", "1", force=True)
    assert registry.roll_back("policy").version == "3"


def test_a_pinned_version_stays_until_it_is_unpinned(registry: Registry) -> None:
    assert registry.pin("policy", "2", "eve").pinned
    registry.judged("policy", "3", PASSED)
    with pytest.raises(VersionConflict, match="policy 2 is pinned"):
        registry.promote("policy", "3")
    registry.unpin("policy")
    assert registry.promote("policy", "3").version == "3"
    with pytest.raises(VersionConflict, match="no version of policy is pinned"):
        registry.unpin("policy")


def test_what_is_not_there_is_named_and_changes_nothing(registry: Registry, models: Path) -> None:
    registry.promote("policy", "1", force=True)
    with pytest.raises(UnknownVersion, match="no version '9' of 'policy'"):
        registry.promote("policy", "9", force=True)
    (models / "policy-2").rmdir()
    with pytest.raises(UnknownVersion, match="files of policy 2 are gone"):
        registry.promote("policy", "2", force=True)
    live = registry.live("policy")
    assert live is not None
    assert live.version == "1"


def test_a_version_is_registered_once(registry: Registry, models: Path) -> None:
    again = registry.add_candidate("policy", "1", models / "policy-1", {"other": 1.0})
    assert again.metrics == {"regret": 0.1}
    with pytest.raises(VersionConflict, match="registered already"):
        registry.add_candidate("policy", "1", models / "policy-2")


def test_there_is_one_shadow_at_a_time_and_its_findings_add_up(registry: Registry) -> None:
    registry.promote("policy", "1", force=True)
    with pytest.raises(VersionConflict, match="is live"):
        registry.shadow("policy", "1")
    registry.shadow("policy", "2")
    registry.shadow("policy", "3")
    assert [one.state for one in registry.versions("policy")] == ["shadow", "candidate", "live"]
    registry.shadowed("policy", "3", {"searches": 3.0, "rank_correlation": 1.5})
    registry.shadowed("policy", "3", {"searches": 1.0, "rank_correlation": 0.9, "errors": 2.0})
    found = registry.get("policy", "3").shadow
    assert found == {"searches": 4.0, "errors": 2.0, "rank_correlation": pytest.approx(0.6)}


def test_old_files_go_but_not_those_that_may_be_needed(database: Database, models: Path) -> None:
    registry = Registry(database, models, keep=2)
    for number in range(1, 8):
        folder = models / f"policy-{number}"
        folder.mkdir(parents=True)
        registry.add_candidate("policy", str(number), folder)
    for version in ("1", "2", "3"):
        registry.promote("policy", version, force=True)
    gone = {one.version for one in registry.prune("policy")}
    assert gone == {"1", "4", "5"}, "the latest two, the live one and the one before it stay"
    assert sorted(one.name for one in models.iterdir()) == ["policy-2", "policy-3", "policy-6", "policy-7"]
    assert registry.get("policy", "1").folder == ""
    assert registry.roll_back("policy").version == "2"


def test_what_goes_live_while_others_tidy_up_keeps_its_files(
    database: Database, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, other = Registry(database, models, keep=2), Registry(database, models)
    for number in range(1, 6):
        folder = models / f"policy-{number}"
        folder.mkdir(parents=True)
        registry.add_candidate("policy", str(number), folder)
    listed = registry.versions

    def slow(*asked: object, **named: object) -> list[Version]:
        found = listed(*asked, **named)  # type: ignore[arg-type]
        other.promote("policy", "1", force=True)
        return found

    monkeypatch.setattr(registry, "versions", slow)
    assert {one.version for one in registry.prune("policy")} == {"2", "3"}
    live = other.live("policy")
    assert live is not None
    assert other.folder(live) == models / "policy-1"

    def publish(folder: Path) -> None:  # takes a while, in which the files are tidied away
        with database.transaction() as connection:
            connection.execute(versions.update().where(versions.c.version == "4").values(folder=""))

    with pytest.raises(UnknownVersion, match="files of policy 4 are gone"):
        Registry(database, models, {"policy": publish}).promote("policy", "4", force=True)
    live = other.live("policy")
    assert live is not None
    assert live.version == "1"


def test_the_pointer_of_the_interest_model_and_the_registry_agree(database: Database, models: Path) -> None:
    registry = Registry(database, models)
    first, second = make_bundle(models, 1, 5), make_bundle(models, 2, 6)
    make_live(first)  # by hand, or by a process that died before it could write it down
    live = registry.live(INTEREST)
    assert live is not None
    assert (live.version, live.provenance["seed"]) == ("1", 5)
    registry.add_candidate(INTEREST, "2", second)
    registry.promote(INTEREST, "2", force=True)
    assert live_bundle(models) == second
    registry.roll_back(INTEREST)
    assert live_bundle(models) == first
    assert [one.action for one in registry.history(INTEREST)] == ["roll-back", "promote", "found"]
    registry.roll_back(INTEREST)
    assert live_bundle(models) is None, "the first model cannot be taken back"
    assert registry.live(INTEREST) is None


@pytest.mark.parametrize("meanwhile", ["pin", "withdraw"])
def test_who_notes_a_pointer_late_undoes_nothing(
    database: Database, models: Path, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One process reads the pointer, another switches before the first has written down what it read.
    registry, other = Registry(database, models), Registry(database, models)
    make_live(make_bundle(models, 1, 5))
    if meanwhile == "withdraw":
        other.live(INTEREST)
        with database.transaction() as connection:  # the slow one saw the table before that
            connection.execute(versions.update().values(state="candidate"))

    def slow(folder: Path) -> object:
        found = load_bundle(folder)
        monkeypatch.setattr("endcap.registry.load_bundle", load_bundle)
        if meanwhile == "pin":
            other.live(INTEREST)
            other.pin(INTEREST, "1", "ann")
        else:
            other.live(INTEREST)
            other.roll_back(INTEREST, "ann")
        return found

    monkeypatch.setattr("endcap.registry.load_bundle", slow)
    registry.live(INTEREST)
    live = registry.live(INTEREST)
    if meanwhile == "pin":
        assert live is not None
        assert live.pinned
    else:
        assert live is None


def test_what_cannot_be_served_does_not_go_live(database: Database, models: Path) -> None:
    def refuse(folder: Path) -> None:
        raise PublishingFailed("Triton does not load it")

    first, second = make_bundle(models, 1, 5), make_bundle(models, 2, 6)
    make_live(first)
    registry = Registry(database, models, {INTEREST: refuse})
    registry.add_candidate(INTEREST, "2", second)
    with pytest.raises(PublishingFailed):
        registry.promote(INTEREST, "2", force=True)
    assert live_bundle(models) == first
    assert registry.get(INTEREST, "2").state == "candidate"

    # The pointer cannot be written: the table must not say that it was.
    (models / LIVE).unlink()
    (models / LIVE).mkdir()
    with pytest.raises(BundleRefused):
        Registry(database, models).promote(INTEREST, "2", force=True)
    assert registry.get(INTEREST, "2").state == "candidate"


def test_of_two_who_promote_at_once_one_is_last_and_one_is_live(registry: Registry, database: Database) -> None:
    threads = [
        threading.Thread(target=registry.promote, args=("policy", version), kwargs={"force": True})
        for version in ("1", "2", "3") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    live = [one.version for one in registry.versions("policy", "live")]
    assert live == [registry.history("policy", 1)[0].version]
    with database.transaction(read_only=True) as connection:
        assert len(connection.execute(versions.select()).all()) == 3


def test_a_pointer_to_nothing_sound_is_said_once(
    database: Database, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_bundle(models, 1, 5)
    (broken / "model.onnx").write_bytes(b"")
    make_live(broken)
    registry = Registry(database, models)
    for _ in range(3):
        assert registry.live(INTEREST) is None
    assert len([one for one in caplog.records if "not in the registry" in one.message]) == 1
