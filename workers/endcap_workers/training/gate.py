"""May a trained model replace the live one? Both rank what shoppers wanted after everything that trained the candidate.

The held-out lists begin where the candidate's own held-out window does and go on to the end of the log; they are made
as training makes them, with an affinity as of their beginning. A live model that saw part of that time is favoured.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from endcap.bundles import Bundle, load_bundle
from endcap.catalog.table import ProductTable
from endcap.errors import BundleRefused, EndcapError, ScorerUnavailable, TooLittle
from endcap.features import RankingInputs
from endcap.gates import Verdict
from endcap.interest import Calibration
from endcap.popularity import Popularity
from endcap.profiles import DAY_S
from endcap.runtime import Runtime, open_runtime
from endcap.scoring.base import Scorer
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.onnx import OnnxScorer
from endcap.sequences import OUTPUT, Alignment
from endcap.settings import Settings
from endcap.stores.versions import Version
from endcap_workers.training.cases import TEST, Cases, CaseWriter
from endcap_workers.training.learning import Scores
from endcap_workers.training.lists import Lists
from endcap_workers.training.plan import Plan, make_plan
from endcap_workers.training.replay import Progress, Replay
from endcap_workers.training.segments import calibration_error, drift, segments

MOST_LISTS = 6_000
#: Searches that latency is measured on, each as if the shopper had just done something.
_TIMED = 200
_SCRATCH = "endcap-gate-"
_SEGMENTS = ("new_shoppers", "new_products", "heavy_shoppers")
#: A segment of fewer wanted products says nothing.
_FEWEST_IN_SEGMENT = 50


class InterestGate:
    """The gate of the kind ``interest``."""

    def __init__(self, settings: Settings, progress: Progress = lambda *_: None) -> None:
        self._settings, self._progress = settings, progress

    def judge(self, candidate: Version, live: Version | None) -> Verdict:
        """See :class:`endcap.gates.Gate`.

        Raises:
            BundleRefused: the candidate's files are not sound.
            LogUnavailable, EngineError: log or products cannot be read now.
        """
        models = self._settings.models_folder
        new = load_bundle(models / candidate.folder)
        old: Bundle | None = None
        refused = ""
        if live is not None and live.version != candidate.version:
            try:
                old = load_bundle(models / live.folder)
            except BundleRefused as error:
                refused = str(error)
        runtime = open_runtime(self._settings, start=False)
        try:
            _clear(self._settings.data_dir)
            with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self._settings.data_dir) as folder:
                return self._compared(runtime, new, old, Path(folder), refused)
        finally:
            runtime.close()

    def _compared(self, runtime: Runtime, new: Bundle, old: Bundle | None, folder: Path, refused: str) -> Verdict:
        settings = self._settings
        table = ProductTable.collect(runtime.engine.scan())
        if unfit := _unfit(new, runtime, table):
            return Verdict(False, (unfit,))
        if old is not None and (unfit := _unfit(old, runtime, table)):
            # Servers score without it, too, since the products were encoded anew.
            old, refused = None, unfit
        try:
            plan = self._plan(runtime, new)
        except TooLittle as error:
            return Verdict(False, (str(error),))
        timed = self._cases(runtime, table, plan, folder)
        cases = Cases(folder)
        chosen = cases.part(TEST, chosen_only=False)
        searches = int(cases.lists["chosen"].sum())
        numbers: dict[str, Any] = {"searches": searches, "from": plan.window()["test"], "to": plan.window()["end"]}
        if searches < settings.gate_min_searches:
            reason = f"{searches} held-out searches are too few to judge by; {settings.gate_min_searches} are the least"
            return Verdict(False, (reason,), numbers)
        mine = _scored_by(new, cases, chosen, table)
        theirs = _scored_by(old, cases, chosen, table)
        found, before = segments(cases, chosen, mine), segments(cases, chosen, theirs)
        uncalibrated = calibration_error(mine, new.calibration or Calibration())
        latency, latency_before = _latency(OnnxScorer(new), timed), _latency(_scorer(old), timed)
        moved = drift(mine, theirs) if old is not None else 0.0
        against = old.label if old is not None else "baseline"
        numbers |= {
            "against": against, "candidate": found, "live": before, "calibration_error": uncalibrated, "drift": moved,
            "latency_ms": latency, "live_latency_ms": latency_before,
        }  # fmt: skip
        reasons = self._reasons(found, before, against, uncalibrated, moved, latency)
        notes = [
            f"NDCG@10 {found['all']['ndcg@10']:.4f} against {before['all']['ndcg@10']:.4f} ({against}) on {searches:,} "
            f"held-out searches"
        ]
        if refused:
            notes.append(f"the live version cannot be used ({refused}): compared with the baseline")
        return Verdict(not reasons, tuple(reasons or notes), numbers)

    def _reasons(
        self, found: dict[str, dict[str, float]], before: dict[str, dict[str, float]], against: str, error: float,
        moved: float, latency: dict[str, float],
    ) -> list[str]:  # fmt: skip
        """All that speaks against the candidate."""
        settings, reasons = self._settings, []
        for name in ("all", *_SEGMENTS):
            if name not in found or name not in before:
                continue
            if name != "all" and found[name]["wanted"] < _FEWEST_IN_SEGMENT:
                continue
            most = settings.gate_max_loss if name == "all" else settings.gate_max_segment_loss
            new, old = found[name]["ndcg@10"], before[name]["ndcg@10"]
            if new < old * (1.0 - most):
                reasons.append(f"{name.replace('_', ' ')}: NDCG@10 {new:.4f}, {against} has {old:.4f}")
        if error > settings.gate_max_calibration_error:
            reasons.append(f"calibration error {error:.3f} above {settings.gate_max_calibration_error:g}")
        if latency["p95"] > settings.gate_max_latency_ms:
            reasons.append(f"scoring takes {latency['p95']:.1f} ms, above {settings.gate_max_latency_ms:g} ms")
        if moved > settings.gate_max_drift:
            reasons.append(f"scores drift by {moved:.2f}, above {settings.gate_max_drift:g}")
        return reasons

    def _plan(self, runtime: Runtime, new: Bundle) -> Plan:
        """From the candidate's held-out window to the end of the log: all of it judges."""
        whole = make_plan(runtime.log)
        try:
            begin = float(new.description["data_window"]["moments"]["test"])
        except (KeyError, TypeError, ValueError):
            begin = whole.test
        begin = min(max(begin, 0.0), whole.end - 1.0)
        share = (whole.end - begin) / max(whole.end - whole.start, 1.0)
        return replace(
            whole, start=begin, valid=begin, test=begin, renewals=(begin,), expected=max(1, int(whole.expected * share))
        )

    def _cases(self, runtime: Runtime, table: ProductTable, plan: Plan, folder: Path) -> list[RankingInputs]:
        settings = self._settings
        popularity = Popularity(settings.popularity_half_life_days)
        lists = Lists(table, popularity, runtime.engine, min(settings.window, 200), runtime.encoder)
        share = min(1.0, MOST_LISTS / max(0.8 * plan.expected, 1.0))
        replay = Replay(
            table, settings, plan, lists, popularity, (share, share, share), runtime.flags.excluded_shoppers(),
            keep_inputs=_TIMED, logins=runtime.aliases.logins(),
        )  # fmt: skip
        with CaseWriter(folder, replay.places) as writer:
            replay.run(runtime.log, writer.add, self._progress)
        writer.finish({"window": plan.window()})
        return replay.kept_inputs


def _clear(folder: Path) -> None:
    """Remove what judgements that were killed have left behind."""
    for one in folder.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if one.stat().st_mtime < time.time() - DAY_S:
                shutil.rmtree(one)


def _unfit(bundle: Bundle, runtime: Runtime, table: ProductTable) -> str:
    """Why a bundle does not go with the products as they are encoded now; empty where it does."""
    encoder, spec = runtime.encoder, bundle.spec
    if spec.content and encoder is not None and spec.encoder != encoder.id:
        return f"{bundle.label}: its content vectors are of {spec.encoder}, the products' of {encoder.id}"
    try:
        Alignment(table, bundle.vocabulary, spec)
    except ScorerUnavailable as error:
        return f"{bundle.label}: {error}"
    return ""


def _scored_by(bundle: Bundle | None, cases: Cases, chosen: np.ndarray, table: ProductTable) -> Scores:
    """What a bundle, or the baseline, says to the lists."""
    sizes = cases.lists["size"][chosen].astype(np.int64)
    starts = np.r_[0, np.cumsum(sizes)]
    scores, wanted = np.zeros(int(starts[-1]), dtype=np.float32), np.zeros(int(starts[-1]), dtype=np.float32)
    weights = BaselineScorer().weights
    aligned = Alignment(table, bundle.vocabulary, bundle.spec) if bundle is not None else None
    for number, one in enumerate(chosen.tolist()):
        here, list_ = slice(starts[number], starts[number + 1]), cases.lists[one]
        rows = slice(int(list_["start"]), int(list_["start"] + list_["size"]))
        wanted[here] = cases.wanted[rows]
        if bundle is None or aligned is None:
            scores[here] = np.asarray(cases.features[rows]).astype(np.float32) @ weights
        else:
            tensors, _, _ = cases.tensors(np.array([one]), aligned)
            scores[here] = bundle.session.run([OUTPUT], tensors)[0][0]
    return Scores(starts, scores, wanted)


def _scorer(bundle: Bundle | None) -> Scorer:
    return OnnxScorer(bundle) if bundle is not None else BaselineScorer()


def _latency(scorer: Scorer, searches: list[RankingInputs]) -> dict[str, float]:
    """Milliseconds of scoring one search in process, p50 and p95; zeros where there is none to measure. Those of its
    own thread: what else the machine does must not decide about a model."""
    took = []
    try:
        for number, one in enumerate([*searches[:10], *searches]):
            one.profile.cache.pop("affinity", None)
            one.affinity = None
            began = time.thread_time()
            scorer.score(one)
            if number >= 10:
                took.append((time.thread_time() - began) * 1000.0)
    except EndcapError:
        return {"p50": float("inf"), "p95": float("inf")}
    if not took:
        return {"p50": 0.0, "p95": 0.0}
    p50, p95 = np.quantile(took, (0.5, 0.95))
    return {"p50": float(p50), "p95": float(p95)}
