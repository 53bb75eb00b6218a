"""A look at the running experiments: reads the logs, judges, keeps what was said. As often as one likes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from endcap.experiments.before import bought_before
from endcap.experiments.definition import definition_of
from endcap.experiments.measuring import Measured, report_of
from endcap.stores.database import Database
from endcap.stores.experiments import RUNNING, ExperimentStore, StoredExperiment
from endcap.stores.flags import Flags
from endcap.stores.outcomes import Outcome, Outcomes
from endcap.stores.rankings import Rankings

_BATCH = 1_000
#: Points that the curve of an experiment keeps: older ones are thinned out.
_MOST_POINTS = 200


def look(
    database: Database, reward_hours: float = 24.0, name: str = "", progress: Callable[[float], None] | None = None
) -> dict[str, dict[str, Any]]:
    """Judge every running experiment (or the one named, running or not) and keep the report; gives the reports.

    Raises:
        UnknownExperiment: there is none of that name.
        LogUnavailable: the database cannot be read.
    """
    store = ExperimentStore(database)
    chosen = [store.get(name)] if name else store.all(RUNNING)
    if not chosen:
        return {}
    measured = {one.name: Measured(definition_of(one.definition)) for one in chosen}
    counted = dict.fromkeys(measured, 0)
    excluded = Flags(database).excluded_shoppers()
    # A draft has nothing in the log, however long that is.
    begun = [one for one in chosen if one.started]
    for outcomes, share in _outcomes(database, reward_hours, min(one.started for one in begun)) if begun else ():
        for one in begun:
            mine = [
                outcome
                for outcome in outcomes
                if outcome.ranking.time >= one.started and (not one.stopped or outcome.ranking.time <= one.stopped)
            ]
            counted[one.name] += len(mine)
            measured[one.name].add(mine, excluded)
        if progress is not None:
            progress(share)
    reports = {}
    for one in chosen:
        if one.started and measured[one.name].shoppers:
            measured[one.name].before = bought_before(database, measured[one.name].shoppers, one.started)
        found = report_of(measured[one.name], time.time(), counted[one.name])
        found["curve"] = _curve(one, found)
        store.report(one.name, found)
        reports[one.name] = found
    return reports


def _outcomes(database: Database, hours: float, begin: float) -> Iterator[tuple[list[Outcome], float]]:
    """Rankings since ``begin`` with what followed, in batches, and how far that is."""
    rankings, outcomes = Rankings(database), Outcomes(database, hours)
    last = rankings.last_sequence()
    sequence = rankings.before(begin)
    while sequence < last:
        batch = outcomes.since(sequence, _BATCH)
        if not batch:
            return
        sequence = batch[-1].ranking.sequence
        yield batch, min(1.0, sequence / max(last, 1))


def _curve(stored: StoredExperiment, report: dict[str, Any]) -> list[dict[str, Any]]:
    """The deciding difference at every look so far."""
    before = list((stored.report or {}).get("curve", []))
    if "advantage" in report:
        point = {"time": report["time"], "difference": report["advantage"]}
    else:
        first = report["metrics"][report["metric"]]["comparisons"][0]
        point = {"time": report["time"], "difference": first["difference"]}
    if len(before) >= _MOST_POINTS:
        before = before[::2]
    return [*before, point]
