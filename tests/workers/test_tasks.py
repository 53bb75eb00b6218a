"""The jobs that judge, promote, publish and reindex, as a worker calls them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from endcap.bundles import live_bundle, make_live
from endcap.catalog import Product
from endcap.errors import EngineError, InvalidInput, TooLittle
from endcap.gates import Verdict
from endcap.indexing import index_products
from endcap.jobs import Job, load_jobs
from endcap.registry import INTEREST, Registry, open_registry
from endcap.runtime import open_database, open_engine
from endcap.settings import Settings, load_settings
from endcap.stores.versions import Version
from endcap_workers.tasks import judging, publish, reindex
from endcap_workers.training.promotion import promote_bundle
from tests.plugin.test_publishing import bundle_without_content
from tests.services.process import free_port
from tests.services.triton import Triton


@dataclass
class Context:
    """What a job gets, without a worker."""

    settings: Settings
    folder: Path
    parameters: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = "1"

    def progress(self, done: float, total: float, phase: str = "") -> None:
        assert 0 <= done <= total


def run(job: Job, settings: Settings, **parameters: Any) -> Mapping[str, Any]:
    return job.run(Context(settings, settings.data_dir, parameters))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings(data_dir=tmp_path / "data", text_encoder="none")
    with closing(open_engine(made)) as engine:
        index_products([Product(id=f"p{n}", title=f"milk {n}") for n in range(6)], engine, None)
    return made


@pytest.fixture
def registry(settings: Settings) -> Registry:
    made = open_registry(settings, open_database(settings))
    for number in (11, 12):
        made.add_candidate(INTEREST, str(number), bundle_without_content(settings.models_folder, number))
    return made


def test_a_gate_that_refuses_keeps_the_live_version_and_says_why(settings: Settings, registry: Registry) -> None:
    registry.promote(INTEREST, "11", force=True)
    killed, under_way = (settings.data_dir / f"endcap-gate-{name}" for name in ("killed", "under-way"))
    for folder in (killed, under_way):
        folder.mkdir()
    os.utime(killed, (1.0, 1.0))
    [judged] = run(judging.PROMOTE, settings, kind=INTEREST)["judged"]
    assert sorted(settings.data_dir.glob("endcap-gate-*")) == [under_way]
    assert (judged["version"], judged["passed"], judged["promoted"], judged["against"]) == ("12", False, False, "11")
    assert "the log holds 0 clicks" in judged["reasons"][0]
    assert live_bundle(settings.models_folder) == settings.models_folder / "interest-11"
    kept = registry.get(INTEREST, "12").verdict
    assert kept is not None
    assert kept["reasons"] == judged["reasons"]
    assert registry.history(INTEREST, 1)[0].action == "refuse"
    with pytest.raises(TooLittle, match="no new candidate"):  # judged once, it is not judged again by itself
        run(judging.PROMOTE, settings, kind=INTEREST)
    assert run(judging.EVALUATE, settings, kind=INTEREST, version="12")["judged"][0]["version"] == "12"


def test_what_is_live_by_the_end_of_a_judgement_is_what_it_must_have_been_against(
    settings: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gate:
        """People go back while the first judgement is being made."""

        def __init__(self, settings: Settings) -> None:
            pass

        def judge(self, candidate: Version, live: Version | None) -> Verdict:
            assert live is not None
            against.append(live.version)
            if live.version == "12":
                registry.roll_back(INTEREST, "ann")
            return Verdict(True, ("it is better",))

    against: list[str] = []
    folder = bundle_without_content(settings.models_folder, 13)
    for version in ("11", "12"):
        registry.promote(INTEREST, version, force=True)
    registry.add_candidate(INTEREST, "13", folder)
    monkeypatch.setattr("endcap_workers.judging.load_gate", lambda kind, settings: Gate(settings))
    [judged] = run(judging.PROMOTE, settings, kind=INTEREST)["judged"]
    assert (judged["passed"], judged["promoted"], judged["against"]) == (True, False, "12")
    assert judged["reasons"][-1] == "interest 13 was compared with 12; 11 is live by now: have it judged again"
    assert live_bundle(settings.models_folder) == settings.models_folder / "interest-11"
    [judged] = run(judging.PROMOTE, settings, kind=INTEREST)["judged"]  # within the hour
    assert judged["promoted"]
    assert against == ["12", "11"]

    # What trains and judges in one go does the same.
    registry.promote(INTEREST, "12", force=True)
    monkeypatch.setattr("endcap_workers.training.promotion.InterestGate", lambda settings, progress: Gate(settings))
    last = bundle_without_content(settings.models_folder, 14)
    registry.add_candidate(INTEREST, "14", last)
    assert not promote_bundle(settings, last).live
    assert live_bundle(settings.models_folder) == folder


def test_the_hourly_look_tidies_up_after_jobs_that_judge_their_own_versions(settings: Settings) -> None:
    few = settings.model_copy(update={"keep_versions": 2})
    with closing(open_database(few)) as database:
        registry = open_registry(few, database)
        for number in range(4):
            folder = few.models_folder / f"policy-{number}"
            folder.mkdir(parents=True)
            registry.add_candidate("policy", str(number), folder)
            registry.judged("policy", str(number), Verdict(False, ("it is worse",)))
    with pytest.raises(TooLittle, match="no new candidate"):
        run(judging.PROMOTE, few)
    assert sorted(one.name for one in few.models_folder.iterdir()) == ["policy-2", "policy-3"]


NIGHTLY = (
    "train", "update", "augment", "policy", "evaluate", "promote", "report-inventory-daily", "report-fraud-weekly",
)  # fmt: skip


@pytest.mark.parametrize("name", NIGHTLY)
def test_in_a_new_shop_there_is_too_little_which_is_no_failure(settings: Settings, name: str) -> None:
    job = load_jobs()[name]
    with pytest.raises(TooLittle) as told:
        run(job, settings, **(job.takes().model_dump() if job.takes else {}))
    assert len(str(told.value)) > 20


def test_an_engine_that_is_away_is_a_fault_and_not_too_little(settings: Settings) -> None:
    away = settings.model_copy(update={"engine_url": f"http://127.0.0.1:{free_port()}"})
    job = load_jobs()["train"]
    with pytest.raises(EngineError):
        run(job, away, **(job.takes().model_dump() if job.takes else {}))


def test_a_version_without_its_kind_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidInput, match="needs its kind"):
        run(judging.PROMOTE, settings, version="12")


def test_publish_gives_the_live_version_to_triton(settings: Settings, registry: Registry, triton: Triton) -> None:
    over = settings.model_copy(
        update={"triton_url": triton.url, "triton_repository": str(triton.repository), "triton_device": "python"}
    )
    make_live(settings.models_folder / "interest-12")
    assert run(publish.JOB, over) == {"kind": INTEREST, "version": "12"}
    assert list(triton.repository.glob("interest-*/12/model.onnx"))
    assert live_bundle(settings.models_folder) == settings.models_folder / "interest-12"


def test_reindexing_from_the_index_itself_and_from_files(settings: Settings, tmp_path: Path) -> None:
    made = run(reindex.JOB, settings)
    assert (made["read"], made["indexed"]) == (6, 6)
    (tmp_path / "feed.csv").write_text("id,title\np0,milk 0\np1,oat milk\nq,butter\n")
    over = settings.model_copy(update={"catalogue_files": [str(tmp_path / "*.csv")]})
    made = run(reindex.JOB, over, delete_missing=True)
    assert (made["read"], made["indexed"], made["deleted"]) == (3, 2, 4)
    with closing(open_engine(settings)) as engine:
        assert engine.count() == 3
    gone = settings.model_copy(update={"catalogue_files": [str(tmp_path / "no*.csv")]})
    with pytest.raises(InvalidInput, match="there is no file"):
        run(reindex.JOB, gone)
    with pytest.raises(InvalidInput, match="needs the shop's files"):
        run(reindex.JOB, settings, delete_missing=True)


def test_every_job_that_is_installed_can_be_listed() -> None:
    jobs = load_jobs()
    assert {"train", "update", "evaluate", "promote", "publish", "reindex", "retention"} <= set(jobs)
    assert all(job.queue in ("light", "heavy") for job in jobs.values())
