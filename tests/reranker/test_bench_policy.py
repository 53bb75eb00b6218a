"""`endcap bench policy` measures what it says."""

from __future__ import annotations

import pytest

from endcap_reranker.bench import policy


def test_every_row_is_measured_and_rules_do_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "PRODUCTS", 500)
    rows = policy.run(requests=20, seed=0).rows
    assert len(rows) == 9
    assert all(0 < row["median µs"] <= row["p99 µs"] for row in rows.values())
    shop = policy._Shop(0)
    ruled, idle = (policy._under(policy._rules(50, applying), shop.table) for applying in (True, False))
    assert len(shop.arranged(ruled)(0).order) < policy.CANDIDATES  # type: ignore[attr-defined]
    assert len(shop.arranged(idle)(0).order) == policy.CANDIDATES  # type: ignore[attr-defined]
