"""`endcap bench scoring` measures what it says."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from endcap import publishing
from endcap.bundles import load_bundle
from endcap.errors import BundleRefused
from endcap_reranker.bench import scoring
from endcap_reranker.bench.command import bench
from tests.services.triton import Triton


@pytest.fixture(autouse=True)
def few_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scoring, "CLIENTS", (1, 2))
    monkeypatch.setenv("ENDCAP_DATA_DIR", str(tmp_path))


def measured(bundle: Path, file: Path) -> dict[str, dict[str, float]]:
    arguments = ["scoring", "--requests", "20", "--bundle", str(bundle), "--json", str(file)]
    CliRunner().invoke(bench, arguments, catch_exceptions=False)
    return dict(orjson.loads(file.read_bytes())["rows"])


def test_rows_of_every_scorer_and_number_of_clients(interest_bundle: Path, tmp_path: Path) -> None:
    rows = measured(interest_bundle, tmp_path / "rows.json")
    assert list(rows) == [
        "bare ONNX session, 1 client",
        "features alone, 1 client",
        "tensors alone, 1 client",
        "baseline, features included, 1 client",
        "baseline, features included, 2 clients",
        "in process, features included, 1 client",
        "in process, features included, 2 clients",
    ]
    assert all(row["p50 ms"] > 0 and row["p99 ms"] >= row["p50 ms"] for row in rows.values())


def test_triton_is_measured_where_there_is_one(
    interest_bundle: Path, triton: Triton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_bundle(interest_bundle)
    publishing.write_version(loaded, triton.repository, "python")
    publishing.load_into_triton(loaded, triton.url)
    monkeypatch.setenv("ENDCAP_TRITON_URL", triton.url)
    rows = measured(interest_bundle, tmp_path / "rows.json")
    assert "Triton, features included, 2 clients" in rows
    assert "more p50 ms" in rows["Triton less in process, by pairs"]


def test_without_a_model_it_says_what_to_do() -> None:
    with pytest.raises(BundleRefused, match="--bundle"):
        scoring.run(requests=1, seed=0)
