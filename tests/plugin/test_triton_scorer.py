"""Scoring through a real Triton: the same scores, in time, and what happens when it is not there."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from endcap import publishing
from endcap.bundles import Bundle, load_bundle, make_live
from endcap.errors import BundleRefused, DeadlineExceeded, ScorerUnavailable
from endcap.live import LiveModel
from endcap.scoring.base import Scored
from endcap.scoring.triton import CircuitOpen, State, TritonScorer
from endcap.sequences import model_inputs
from endcap_workers.models import Interest
from tests.services.fixtures import missing
from tests.services.process import ServiceMissing, free_port
from tests.services.triton import Triton
from tests.serving import (
    ENCODER,
    SPEC,
    TABLE,
    eventually,
    in_process,
    make_bundle,
    make_profile,
    search,
    searches,
    torch_scores,
)

pytestmark = pytest.mark.triton


def published(folder: Path, server: Triton) -> Bundle:
    bundle = load_bundle(folder, ENCODER)
    publishing.write_version(bundle, server.repository, "python")
    publishing.load_into_triton(bundle, server.url)
    return bundle


@pytest.fixture(scope="module")
def scorer(triton: Triton, interest_bundle: Path) -> Iterator[TritonScorer]:
    made = TritonScorer(triton.url, published(interest_bundle, triton), timeout_s=30.0)
    made.check()
    yield made
    made.close()


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[Triton]:
    """A server that the test may kill."""
    (tmp_path / "repository").mkdir()
    try:
        server = Triton(tmp_path / "repository")
    except ServiceMissing as reason:
        missing(f"triton: {reason}")
        return
    yield server
    server.stop()


def test_torch_onnx_and_triton_say_the_same(
    scorer: TritonScorer, interest_bundle: Path, interest_model: Interest
) -> None:
    onnx = in_process(interest_bundle)
    aligned = onnx._aligned.of(TABLE)
    for one in searches(1_000, seed=21):
        tensors = model_inputs(one, aligned)
        expected = torch_scores(interest_model, tensors)
        assert onnx.score(one) == pytest.approx(expected, abs=1e-4)
        assert scorer.score(one) == pytest.approx(expected, abs=1e-4)


def test_a_search_without_time_is_not_sent(scorer: TritonScorer) -> None:
    one = searches(1)[0]
    one.until = time.perf_counter()
    with pytest.raises(DeadlineExceeded, match="no time left"):
        scorer.score(one)
    assert scorer.state is State.CLOSED, "a hurried search says nothing about the server"


class Silent:
    """Accepts connections and never says a word."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def _closed(url: str, bundle: Bundle, **options: float) -> TritonScorer:
    """A scorer that has seen a sound server, which then became the one at ``url``."""
    made = TritonScorer(url, bundle, **options)  # type: ignore[arg-type]
    made._state = State.CLOSED
    return made


def test_a_server_that_is_silent_costs_no_more_than_the_deadline_and_then_nothing(
    interest_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = searches(1)[0]
    with Silent() as url:
        scorer = _closed(url, load_bundle(interest_bundle), failures=3, cool_down_s=3_600.0)
        given: list[float] = []
        call = scorer._call
        monkeypatch.setattr(
            scorer, "_call", lambda tensors, timeout_s: given.append(timeout_s) or call(tensors, timeout_s)
        )
        for _ in range(3):
            one.until = time.perf_counter() + 1.0
            with pytest.raises(ScorerUnavailable):
                scorer.score(one)
        assert len(given) == 3
        assert max(given) < 0.7, "time is left for the next scorer"
        assert scorer.state is State.OPEN
        one.until = time.perf_counter() + 3_600
        with pytest.raises(CircuitOpen):
            scorer.score(one)
        scorer.close()


def test_success_in_between_keeps_the_circuit_closed(scorer: TritonScorer) -> None:
    one = searches(1)[0]
    for _ in range(2):
        scorer._count_failure("slow")
        scorer.score(one)
    scorer._count_failure("slow")
    assert scorer.state is State.CLOSED
    scorer.score(one)


def test_nobody_there(interest_bundle: Path) -> None:
    scorer = TritonScorer(f"127.0.0.1:{free_port()}", load_bundle(interest_bundle))
    assert scorer.state is State.OPEN
    with pytest.raises(ScorerUnavailable):
        scorer.check()
    assert "failed to connect" in scorer.reason.lower()
    scorer.close()


def test_a_model_that_triton_does_not_have(triton: Triton, tmp_path: Path) -> None:
    scorer = TritonScorer(triton.url, load_bundle(make_bundle(tmp_path, version=999, seed=9)))
    with pytest.raises(ScorerUnavailable, match="999"):
        scorer.check()
    scorer.close()


def test_another_model_under_the_same_version_is_refused(
    scorer: TritonScorer, triton: Triton, interest_bundle: Path, tmp_path: Path
) -> None:
    other = TritonScorer(triton.url, load_bundle(make_bundle(tmp_path, version=1, seed=77)))
    with pytest.raises(BundleRefused, match="gives other scores"):
        other.check()
    assert other.state is State.OPEN
    other.close()


def test_a_model_published_for_another_specification_is_refused(own_triton: Triton, interest_bundle: Path) -> None:
    bundle = load_bundle(interest_bundle)
    publishing.write_version(bundle, own_triton.repository, "python")
    config = own_triton.repository / bundle.served_name / "config.pbtxt"
    config.write_text(config.read_text().replace(bundle.spec.digest, "0123456789abcdef"))
    with pytest.raises(publishing.PublishingFailed, match="specification 0123456789abcdef"):
        publishing.load_into_triton(bundle, own_triton.url, timeout_s=120)


class Traffic:
    """Searches without a pause from several threads, with a deadline as the personalizer sets it; answers are kept."""

    def __init__(self, model: LiveModel, threads: int = 3, deadline_s: float = 60.0) -> None:
        self.model, self.deadline_s = model, deadline_s
        self.answers: list[tuple[float, Scored]] = []
        self.faults: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        shopper = make_profile(np.random.default_rng(number), 50)
        while not self._stop.is_set():
            one = search(shopper, TABLE.ids[:60])
            one.until = time.perf_counter() + self.deadline_s
            try:
                self.answers.append((time.monotonic(), self.model.scorer.answer(one)))
            except BaseException as fault:
                self.faults.append(fault)

    def last(self) -> Scored:
        return self.answers[-1][1]

    def seen(self, scorer: str, since: float = 0.0) -> bool:
        return any(scored.scorer == scorer for moment, scored in self.answers[-200:] if moment > since)


@pytest.fixture
def models(tmp_path: Path, interest_bundle: Path) -> Path:
    """A model folder with version 1, which is live."""
    folder = tmp_path / "models"
    shutil.copytree(interest_bundle, folder / interest_bundle.name)
    make_live(folder / interest_bundle.name)
    return folder


def test_a_version_switch_under_load_fails_no_search(own_triton: Triton, models: Path) -> None:
    first = published(models / "interest-1", own_triton)
    model = LiveModel(models, ENCODER, own_triton.url)
    model.prepare(TABLE)
    model.look()
    try:
        with Traffic(model) as traffic:
            assert eventually(lambda: len(traffic.answers) > 50)
            second = published(make_bundle(models, version=2, seed=6), own_triton)
            make_live(second.folder)
            model.look()
            assert eventually(lambda: traffic.answers and traffic.last().scorer == "triton:interest-2")
            done = len(traffic.answers)
            assert eventually(lambda: len(traffic.answers) > done + 50)
        assert traffic.faults == []
        assert {scored.scorer for _, scored in traffic.answers} == {"triton:interest-1", "triton:interest-2"}
        assert {scored.fallback for _, scored in traffic.answers} == {""}
        assert first.served_name == second.served_name
    finally:
        model.close()


def test_killed_and_restarted_under_load(own_triton: Triton, models: Path) -> None:
    bundle = published(models / "interest-1", own_triton)
    model = LiveModel(models, ENCODER, own_triton.url)
    model.prepare(TABLE)
    model.look()
    try:
        with Traffic(model) as traffic:
            assert eventually(lambda: traffic.seen("triton:interest-1"))
            own_triton.kill()
            killed = time.monotonic()
            assert eventually(lambda: traffic.seen("onnx:interest-1", killed))
            assert eventually(lambda: traffic.last().fallback == "triton:circuit_open")
            with pytest.raises(ScorerUnavailable, match="scoring in process"):
                model.look()
            own_triton.start(bundle.served_name)
            restarted = time.monotonic()
            assert eventually(lambda: traffic.seen("triton:interest-1", restarted))
            assert eventually(lambda: traffic.last().fallback == "")
        assert traffic.faults == [], "not one search failed"
        assert {scored.scorer for _, scored in traffic.answers} == {"triton:interest-1", "onnx:interest-1"}
        model.look()
    finally:
        model.close()


def test_a_missing_client_is_named(interest_bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "sys.modules['tritonclient'] = None\n"
        "from endcap.bundles import load_bundle; from endcap.scoring.triton import TritonScorer\n"
        "from endcap.errors import ConfigurationError\n"
        "try:\n"
        "    TritonScorer('127.0.0.1:1', load_bundle(Path(sys.argv[1])))\n"
        "except ConfigurationError as error:\n"
        "    print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(interest_bundle)], capture_output=True, text=True)
    assert "pip install 'endcap[triton]'" in ran.stdout, ran.stderr


def test_the_specification_of_the_probe_covers_every_tensor(interest_bundle: Path) -> None:
    assert tuple(load_bundle(interest_bundle).probe) == SPEC.inputs
