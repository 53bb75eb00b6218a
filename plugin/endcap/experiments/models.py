"""The models that the arms of experiments name: versions beside the live one, in this process, within a bound.

An arm's version is scored in process. Where it cannot be had (its files were removed, they are too large, they do not
go with the products) its searches are scored by the live model, so that no search fails for an experiment; the reason
is in the answer (``experiment:gone``), in the rankings log and, as a share of the arm's rankings, in the verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import numpy as np

from endcap.augmentation import is_switched_on
from endcap.bundles import load_bundle
from endcap.catalog.table import ProductTable
from endcap.errors import EndcapError, InvalidInput, ScorerUnavailable
from endcap.features import RankingInputs
from endcap.registry import INTEREST, Registry
from endcap.scoring.aligned import Aligned
from endcap.scoring.base import Scored, Scorer, answer, sane
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.onnx import OnnxScorer
from endcap.stores.versions import UnknownVersion

log = logging.getLogger(__name__)

#: The scorer that needs no model, as an arm names it.
BASELINE = "baseline"
#: What stands in an answer's ``fallback`` before the reason for which an arm's own model did not score.
FALLBACK = "experiment"
#: Reasons: its files are not there; not loaded yet; more than this process may load.
GONE, LOADING, NO_ROOM = "gone", "loading", "no_room"


class ArmScorer:
    """An arm's model; the live one where that cannot answer. Thread-safe."""

    name = FALLBACK

    def __init__(self, version: str, own: Scorer | None, live: Scorer, why: str = "") -> None:
        """``why``: the reason for which there is no ``own`` one."""
        self.version = version
        self._own, self._live, self._why = own, live, why

    def score(self, inputs: RankingInputs) -> np.ndarray:
        """float32 (n,); see :class:`~endcap.scoring.base.Scorer`."""
        return self.answer(inputs).scores

    def answer(self, inputs: RankingInputs) -> Scored:
        """Scores, who gave them, and why that was not the arm's own model.

        Raises:
            ScorerUnavailable: the live model cannot answer either.
        """
        own, why = self._own, self._why
        if own is not None:
            try:
                scores = sane(own.score(inputs), inputs, own.name)
                return Scored(scores, own.name, "", getattr(own, "calibration", None))
            except EndcapError as error:
                why = error.kind
                log.debug("experiments: %s cannot score: %s", own.name, error)
            except Exception:
                log.exception("experiments: %s failed; the live model scores", own.name)
                why = "internal_error"
        found = answer(self._live, inputs)
        return found._replace(fallback=",".join(filter(None, (f"{FALLBACK}:{why}", found.fallback))))


def missing(scored: Scored) -> str:
    """Why an arm's own model did not score; empty where it did."""
    first = scored.fallback.partition(",")[0]
    return first.removeprefix(f"{FALLBACK}:") if first.startswith(f"{FALLBACK}:") else ""


def same_model(one: ArmScorer | None, other: ArmScorer | None) -> bool:
    """Do two arms name the same model?"""
    return (one.version if one else "") == (other.version if other else "")


def check_models(registry: Registry, versions: Collection[str], most_mb: float) -> None:
    """May arms name these versions?

    Raises:
        InvalidInput: one is not there, or together they are more than a server may load.
    """
    total = 0
    for version in sorted(set(versions) - {"", BASELINE}):
        try:
            total += _size(registry.folder(registry.get(INTEREST, version)))
        except UnknownVersion as error:
            raise InvalidInput(f"an arm cannot be ranked by the model {version!r:.80}: {error}") from None
    if total > most_mb * 2**20:
        raise InvalidInput(
            f"the models of the experiments are {total / 2**20:,.1f} MB together, servers load "
            f"{most_mb:,.0f} MB (setting experiment_models_mb)"
        )


class ArmModels:
    """The versions that running experiments name. :meth:`turn` loads and drops them; requests only look them up."""

    def __init__(
        self,
        registry: Registry,
        encoder_id: str,
        live: Scorer,
        most_mb: float,
        table: ProductTable | None = None,
        augmentation: bool = True,
    ) -> None:
        """``encoder_id``: of the content vectors; empty without. ``live``: scores where an arm's own model cannot.
        ``most_mb``: megabytes of files that are loaded at once. ``augmentation``: as of the live model."""
        self._augmentation, self._augmented = augmentation, augmentation
        self._registry, self._encoder_id, self._live, self._most = registry, encoder_id, live, most_mb * 2**20
        self._wanted: frozenset[str] = frozenset()
        self._loaded: dict[str, tuple[OnnxScorer, int]] = {}
        self._why: dict[str, str] = {}
        self._baseline = BaselineScorer()
        self._table = table

    def want(self, versions: Collection[str]) -> None:
        """What arms name from now on; loaded at the next turn."""
        self._wanted = frozenset(versions) - {"", BASELINE}

    def scorer(self, version: str) -> ArmScorer | None:
        """What scores the searches of an arm; None: the live model, as without an experiment."""
        if not version:
            return None
        if version == BASELINE:
            return ArmScorer(version, self._baseline, self._live)
        found = self._loaded.get(version)
        return ArmScorer(version, found[0] if found else None, self._live, self._why.get(version, LOADING))

    def prepare(self, table: ProductTable) -> None:
        """Line what is loaded up with a product table before searches come with it."""
        self._table = table
        for scorer, _ in list(self._loaded.values()):
            _prepare(scorer, table)

    def turn(self) -> float:
        """Load what is wanted and drop the rest; for a thread that calls it about once a second.

        Raises:
            EndcapError: a version cannot be used; its arms are ranked by the live model, and it is tried again.
        """
        wanted = self._wanted
        augmented = self._augmentation and is_switched_on(self._registry.models)
        if augmented != self._augmented:  # all arms alike, or they would differ by more than their models
            self._loaded, self._augmented = {}, augmented
        for version in set(self._loaded) - wanted:
            del self._loaded[version]
            log.info("experiments: the model %s is no longer needed", version)
        problems: dict[str, EndcapError] = {}
        for version in sorted(wanted):
            try:
                self._load(version)
            except EndcapError as error:
                problems[version] = error
        self._why = {version: _reason(error) for version, error in problems.items()}
        for version in problems:
            self._loaded.pop(version, None)
        if problems:
            raise ScorerUnavailable(
                "; ".join(f"arms of the model {version} are ranked by the live one: {problems[version]}"
                          for version in sorted(problems))
            )  # fmt: skip
        return 0.0

    def _load(self, version: str) -> None:
        # Looked for at each turn: what was removed must not be served by some processes and not by others.
        folder = self._registry.folder(self._registry.get(INTEREST, version))
        if version in self._loaded:
            return
        size = _size(folder)
        held = sum(bytes_ for _, bytes_ in self._loaded.values())
        if held + size > self._most:
            raise _NoRoom(
                f"its {size / 2**20:,.1f} MB are more than experiment_models_mb leaves "
                f"({(self._most - held) / 2**20:,.1f})"
            )
        bundle = load_bundle(folder, self._encoder_id)
        scorer = OnnxScorer(bundle, Aligned(bundle, self._augmented))
        if self._table is not None:
            _prepare(scorer, self._table)
        self._loaded[version] = (scorer, size)
        log.info("experiments: %s is loaded beside the live model", scorer.name)


class _NoRoom(EndcapError):
    kind = NO_ROOM


def _reason(error: EndcapError) -> str:
    return GONE if isinstance(error, UnknownVersion) else error.kind


def _prepare(scorer: OnnxScorer, table: ProductTable) -> None:
    try:
        scorer.prepare(table)
    except EndcapError as error:
        log.warning("experiments: %s does not go with the products: %s", scorer.name, error)


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    except OSError as error:
        raise UnknownVersion(f"the files in {folder.name} cannot be read: {error.strerror or error}") from None
