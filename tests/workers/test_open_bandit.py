"""The Open Bandit protocol, on its data where it lies beside the checkout."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from endcap.errors import ConfigurationError, InvalidInput
from endcap.ope import effective_sample_size
from endcap_workers.evaluation import open_bandit, shared_data


@pytest.fixture
def log(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> open_bandit.BanditLog:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    return open_bandit.load("random")


def test_thompson_sampling_prefers_what_is_clicked() -> None:
    choices = open_bandit.thompson_choices(20_000)

    assert choices.shape == (80, 3)
    assert choices.sum(axis=0) == pytest.approx(1.0)
    assert (choices.sum(axis=1) <= 1 + 1e-9).all()  # no item is at two positions
    assert (choices == open_bandit.thompson_choices(20_000)).all()
    assert choices[0, 0] < 1 / 80 < choices.max() < 0.5


@pytest.mark.shared
def test_the_data_is_the_published(log: open_bandit.BanditLog) -> None:
    bts = open_bandit.load("bts")

    assert (len(log), int(log.click.sum()), len(bts), int(bts.click.sum())) == (10_000, 38, 10_000, 42)
    assert log.propensity == pytest.approx(1 / 80)
    assert log.shopper.shape == (10_000, 20)
    assert log.items.shape == (80, 4)
    assert set(log.position.tolist()) == {0, 1, 2}


@pytest.mark.shared
def test_the_published_errors_come_out(log: open_bandit.BanditLog) -> None:
    """The whole protocol. Weighting alone has to agree to the digit; models are fitted by another solver here."""
    results = open_bandit.run()

    assert list(results.rows) == list(open_bandit.PUBLISHED)
    for name, published in open_bandit.PUBLISHED.items():
        ours = (results.rows[name]["mean"], results.rows[name]["std"])
        assert ours == pytest.approx(published, abs=1e-6 if name in ("IPS", "SNIPS") else 0.003)
    assert "42 clicks" in results.notes[0]
    assert "live stays" in results.notes[-1]  # 38 clicks prove nothing
    seen = open_bandit.seen_by(log, open_bandit.thompson_choices(100_000), None)
    assert effective_sample_size(seen.weights) == pytest.approx(1_643, abs=10)


@pytest.mark.shared
def test_predictions_do_not_know_the_row_that_they_are_for(log: open_bandit.BanditLog) -> None:
    some = log.take(np.arange(3_000))
    before = open_bandit.predictions(some)
    some.click = some.click.copy()
    some.click[0] = 1 - some.click[0]
    after = open_bandit.predictions(some)

    assert (before[0] == after[0]).all()
    assert (before != after).any()
    assert 0.0005 < before[np.arange(3_000), some.item].mean() < 0.02


def test_missing_or_other_data_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(shared_data.VARIABLE, str(tmp_path))
    with pytest.raises(ConfigurationError, match=shared_data.VARIABLE):
        open_bandit.load("random")
    folder = tmp_path / "open-bandit-obd" / "random" / "all"
    folder.mkdir(parents=True)
    for name in ("all.csv.gz", "item_context.csv.gz"):
        (folder / name).write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(InvalidInput, match="not the Open Bandit Dataset"):
        open_bandit.load("random")
