"""Which scorers are in force in this process: those of the bundle that is live, switched without a restart."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np

from endcap.augmentation import is_switched_on
from endcap.bundles import DESCRIPTION, Bundle, live_bundle, load_bundle
from endcap.catalog.table import ProductTable
from endcap.errors import EndcapError, ScorerUnavailable
from endcap.scoring.aligned import Aligned
from endcap.scoring.base import Scorer
from endcap.scoring.baseline import BaselineScorer
from endcap.scoring.fallback import FallbackScorer
from endcap.scoring.onnx import OnnxScorer
from endcap.scoring.triton import State, TritonScorer
from endcap.sequences import Alignment

log = logging.getLogger(__name__)

#: Seconds after which what was refused is tried again: its files may not all have been there yet, or not readable.
RETRY_S = 15.0


class LiveModel:
    """Keeps :attr:`scorer` in step with ``live.json``: Triton (where there is one), in process, baseline.

    Everything slow (reading, checking, lining up with the products) happens in :meth:`look`, before the switch.
    """

    def __init__(self, models: Path, encoder_id: str, triton_url: str = "", augmentation: bool = True) -> None:
        """``models``: the folder of the bundles. ``encoder_id``: of the content vectors; empty without.
        ``augmentation``: products without history are scored by the bundle's generator, unless switched off."""
        self.scorer = FallbackScorer(BaselineScorer())
        self.bundle: Bundle | None = None
        self._models, self._encoder_id, self._triton_url = models, encoder_id, triton_url
        self._augmentation = augmentation
        self._aligned: Aligned | None = None
        self._seen: object = None
        self._refusal: EndcapError | None = None
        self._refused = 0.0
        self._table: ProductTable | None = None
        self._triton: TritonScorer | None = None
        self._retired: TritonScorer | None = None

    def prepare(self, table: ProductTable) -> None:
        """Line the live model up with a product table before searches come with it."""
        self._table = table
        for step in self.scorer.steps:
            _prepare(step, table)

    def alignment(self, table: ProductTable) -> Alignment | None:
        """The table in the live model's terms; None for the baseline, or where the two do not go together."""
        aligned = self._aligned
        try:
            return aligned.of(table) if aligned is not None else None
        except ScorerUnavailable:
            return None

    def newcomers(self, table: ProductTable) -> np.ndarray | None:
        """:attr:`endcap.sequences.Alignment.newcomers` of the table; None where no generator speaks."""
        alignment = self.alignment(table)
        return alignment.newcomers if alignment is not None else None

    def look(self) -> None:
        """Look at the pointer, and switch where it names another bundle. To be called about once a second.

        Raises:
            BundleRefused: what it names cannot go live; what was live stays.
            ConfigurationError: Triton is asked for, but its client is missing.
            ScorerUnavailable: Triton cannot answer now; searches are scored in process. Or new products are scored
                without the bundle's generator.
        """
        folder = live_bundle(self._models)
        seen = _fingerprint(folder), is_switched_on(self._models)
        again = self._refusal is not None and time.monotonic() - self._refused >= RETRY_S
        if seen != self._seen or again:
            self._refusal = None
            try:
                self._switch(folder)
            except EndcapError as error:
                self._refusal, self._refused = error, time.monotonic()
            self._seen = seen
        if self._refusal is not None:
            raise self._refusal
        if self._triton is not None and self._triton.state is not State.CLOSED:
            self._triton.heal()
            raise ScorerUnavailable(f"scoring in process: {self._triton.reason}")
        alignment = self.alignment(self._table) if self._table is not None else None
        if alignment is not None and alignment.refusal:
            raise ScorerUnavailable(alignment.refusal)

    def close(self) -> None:
        """Give Triton's connections back."""
        for one in (self._triton, self._retired):
            if one is not None:
                one.close()

    def _switch(self, folder: Path | None) -> None:
        steps: list[Scorer] = [BaselineScorer()]
        bundle = triton = aligned = None
        if folder is not None:
            bundle = load_bundle(folder, self._encoder_id)
            aligned = Aligned(bundle, self._augmentation and is_switched_on(self._models))
            steps.insert(0, OnnxScorer(bundle, aligned))
            if self._triton_url:
                triton = TritonScorer(self._triton_url, bundle, aligned)
                steps.insert(0, triton)
        if self._table is not None:
            _prepare(steps[0], self._table)
        if triton is not None:
            try:
                triton.check()
            except EndcapError as error:
                log.warning("the model goes live in process only: %s", error)
        self.scorer.replace(steps)
        self._aligned = aligned
        # Calls in flight still use the one before: it is closed a switch later.
        if self._retired is not None:
            self._retired.close()
        self._retired, self._triton, self.bundle = self._triton, triton, bundle
        log.info("live model: %s", ", ".join(step.name for step in steps))


def _prepare(step: Scorer, table: ProductTable) -> None:
    if isinstance(step, OnnxScorer | TritonScorer):
        try:
            step.prepare(table)
        except EndcapError as error:
            log.warning("the live model does not go with the products: %s", error)


def _fingerprint(folder: Path | None) -> object:
    """Changes when the pointer does, and when what it names is replaced."""
    if folder is None:
        return ""
    try:
        status = (folder / DESCRIPTION).stat()
    except OSError:
        return folder.name, 0, 0
    return folder.name, status.st_mtime_ns, status.st_ino
