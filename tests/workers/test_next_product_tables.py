"""``endcap evaluate beauty`` and ``diginetica`` from end to end, on a corner of the data and with tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from endcap_workers.commands import evaluate
from endcap_workers.evaluation import beauty, diginetica, shared_data
from endcap_workers.evaluation.recipes import Recipe
from endcap_workers.training.next_item import Prefixes


def tiny(recipe: Recipe) -> Recipe:
    options = {**recipe.options, "batch": 64, "negatives": min(recipe.options["negatives"], 50)}
    schedule = replace(recipe.schedule, epochs=1)
    return replace(recipe, spec=replace(recipe.spec, width=8), schedule=schedule, options=options)


def few(cases: Prefixes) -> Prefixes:
    return Prefixes(cases.histories[:150], cases.targets[:150], cases.hide_seen)


@pytest.fixture
def corner(monkeypatch: pytest.MonkeyPatch, shared_dir: Path) -> None:
    monkeypatch.setenv(shared_data.VARIABLE, str(shared_dir / "data"))
    users = beauty.load()
    users = replace(users, train=users.train[:150], valid=few(users.valid), test=few(users.test))
    monkeypatch.setattr(beauty, "load", lambda: users)
    sessions = diginetica.load()
    sessions = replace(
        sessions,
        train=sessions.train[-150:],
        held_out=sessions.held_out[:50],
        valid=few(sessions.valid),
        test=few(sessions.test),
    )
    monkeypatch.setattr(diginetica, "load", lambda: sessions)
    monkeypatch.setattr(beauty, "LSTM", tiny(beauty.LSTM))
    monkeypatch.setattr(diginetica, "TRANSFORMER", tiny(diginetica.TRANSFORMER))
    modules: tuple[ModuleType, ...] = (beauty, diginetica)
    for module in modules:
        made = {name: tiny(recipe) for name, recipe in list(module.ABLATION.items())[-2:]}
        monkeypatch.setattr(module, "ABLATION", made)


def test_the_tables_have_all_their_rows(corner: None, tmp_path: Path) -> None:
    last = {}
    for name, options in (("beauty", ["--ablation"]), ("diginetica", ["--seeds", "2", "--ablation"])):
        file = tmp_path / f"{name}.json"
        answer = CliRunner().invoke(evaluate, [name, "--device", "cpu", "--seed", "3", "--json", str(file), *options])
        assert answer.exit_code == 0, answer.output
        assert "Trained on:" in answer.output
        last[name] = json.loads(file.read_text())["rows"]

    for rows in last.values():
        assert "popularity" in rows
        assert "neighbours of the last product" in rows
        assert "neighbours ranked by LightGBM (lambdarank)" in rows
    assert {"LSTM", "LSTM, float32", "transformer", "LSTM, retrained with the validation targets"} < set(last["beauty"])
    assert "the model and neighbours, ranked by LightGBM" in last["beauty"]
    assert {
        "transformer, mean of 2 seeds",
        "transformer, vote of 2 seeds",
        "transformer, all training sessions, mean of 2 seeds",
    } < set(last["diginetica"])
    assert all(0 <= row["HR@10"] <= 1 and row["minutes"] > 0 for key, row in last["beauty"].items() if "LSTM" in key)
