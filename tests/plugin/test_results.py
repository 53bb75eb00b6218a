"""The one table of numbers: what is printed and what is written."""

import json
from pathlib import Path

import pytest

from endcap.results import Results


def test_rows_are_written_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results("shop", "endcap evaluate shop", 3, notes=["[a note]"])
    results.add("popularity", {"ndcg@10": 0.12345})
    results.add("memory", {"bytes": 3985})
    results.write(tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {
        "name": "shop",
        "command": "endcap evaluate shop",
        "seed": 3,
        "rows": {"popularity": {"ndcg@10": 0.12345}, "memory": {"bytes": 3985.0}},
    }
    results.show()
    printed = capsys.readouterr().out
    for part in ("endcap evaluate shop", "seed 3", "0.1235", "3,985", "[a note]"):
        assert part in printed
