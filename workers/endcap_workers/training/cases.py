"""Training cases on disk: lists that were (or would have been) shown, what was wanted of them, what was known then.

A folder of plain arrays that are read by memory map, so that millions of rows take no memory: ``features.f16`` (R, F),
``rows.i32`` and ``wanted.f16`` (R,) of the candidates; ``lists.npy`` (G,); ``history_rows.i32``,
``history_actions.u1``, ``history_ages.f32`` (G, L). Rows are those of the product table; -1 is a product that it does
not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import orjson

from endcap.features import FEATURES
from endcap.files import write_atomically
from endcap.sequences import Alignment

TRAIN, VALID, TEST = 0, 1, 2
#: Of a list: its first row, its length, the moment (seconds since 1970), which part it belongs to, how many purchases
#: the shopper had made by then, and whether anything was wanted at all.
LIST = np.dtype(
    [("start", "<i8"), ("size", "<i4"), ("moment", "<f8"), ("part", "u1"), ("buys", "<i4"), ("chosen", "?")]
)
_DONE = "cases.json"


@dataclass(frozen=True, slots=True)
class Case:
    """One list of n candidates; see the module's text. ``wanted``: how often each was wanted, or more where what stood
    low counts more. ``history`` is rows, actions, ages (days), oldest first."""

    features: np.ndarray
    rows: np.ndarray
    wanted: np.ndarray
    history: tuple[np.ndarray, np.ndarray, np.ndarray]
    moment: float
    part: int
    buys: int


class CaseWriter:
    """Writes cases into a folder; they are there for readers once the ``with`` ends without an exception."""

    def __init__(self, folder: Path, places: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _DONE).unlink(missing_ok=True)
        self._folder, self._places = folder, places
        self._files: dict[str, BinaryIO] = {}
        self._lists: list[tuple[Any, ...]] = []
        self._rows = 0
        self.counts = [0, 0, 0]

    def __enter__(self) -> CaseWriter:
        for name in (
            "features.f16",
            "rows.i32",
            "wanted.f16",
            "history_rows.i32",
            "history_actions.u1",
            "history_ages.f32",
        ):
            self._files[name] = (self._folder / name).open("wb")
        return self

    def add(self, case: Case) -> None:
        """Raises OSError where the disk is full."""
        places, rows = self._places, case.rows
        history = [np.zeros(places, dtype=kind) for kind in (np.int32, np.uint8, np.float32)]
        for target, source in zip(history, case.history, strict=True):
            target[: len(source[-places:])] = source[-places:]
        clipped = np.clip(case.features, -60_000, 60_000).astype(np.float16)
        arrays = (clipped, rows.astype(np.int32), np.minimum(case.wanted, 2_000).astype(np.float16), *history)
        for file, values in zip(self._files.values(), arrays, strict=True):
            file.write(values.tobytes())
        self._lists.append((self._rows, len(rows), case.moment, case.part, case.buys, bool(case.wanted.any())))
        self._rows += len(rows)
        self.counts[case.part] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if error is None:
            np.save(self._folder / "lists.npy", np.array(self._lists, dtype=LIST))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Say that the cases are whole; ``about`` is kept with them. After the ``with``."""
        described = {"features": list(FEATURES), "places": self._places, **about}
        write_atomically(self._folder / _DONE, orjson.dumps(described), durable=True)


class Cases:
    """Cases as they lie in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError where none are whole there, ValueError where they are of other features."""
        self.about: dict[str, Any] = orjson.loads((folder / _DONE).read_bytes())
        if self.about["features"] != list(FEATURES):
            raise ValueError(f"the cases in {folder} were made by another version: delete the folder")
        self.lists: np.ndarray = np.load(folder / "lists.npy")
        count, places = int(self.lists["size"].sum()), int(self.about["places"])

        def mapped(name: str, kind: type, *shape: int) -> np.ndarray:
            # An empty file cannot be mapped.
            return np.memmap(folder / name, kind, "r", shape=shape) if shape[0] else np.zeros(shape, kind)

        self.features = mapped("features.f16", np.float16, count, len(FEATURES))
        self.rows = mapped("rows.i32", np.int32, count)
        self.wanted = mapped("wanted.f16", np.float16, count)
        self.history_rows = mapped("history_rows.i32", np.int32, len(self.lists), places)
        self.history_actions = mapped("history_actions.u1", np.uint8, len(self.lists), places)
        self.history_ages = mapped("history_ages.f32", np.float32, len(self.lists), places)

    def part(self, part: int, chosen_only: bool = True) -> np.ndarray:
        """Numbers of the lists of a part; int64."""
        return np.flatnonzero((self.lists["part"] == part) & (self.lists["chosen"] | (not chosen_only)))

    def tensors(self, chosen: np.ndarray, aligned: Alignment) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """The tensors of ``aligned.spec.inputs`` for some lists, as serving makes them; labels float32 (B, N);
        and which places hold a candidate, bool (B, N)."""
        start, size = self.lists["start"][chosen], self.lists["size"][chosen]
        present = np.arange(int(size.max())) < size[:, None]
        at = np.where(present, start[:, None] + np.arange(present.shape[1]), start[:, None])
        rows = np.asarray(self.rows[at])
        made: dict[str, np.ndarray] = {}
        for name in aligned.spec.inputs:
            if name == "candidate_features":
                made[name] = self.features[at].astype(np.float32)
                made[name][~present] = np.nan
            elif name == "candidate_products":
                made[name] = aligned.numbers[rows].astype(np.int64)
            elif name == "candidate_codes":
                made[name] = aligned.codes[rows].astype(np.int64)
            elif name == "candidate_content":
                made[name] = aligned.candidate_content(rows.ravel()).reshape(*rows.shape, -1)
        if any(name.startswith("history") for name in aligned.spec.inputs):
            made |= self._history(chosen, aligned)
        wanted = np.where(present, self.wanted[at], 0).astype(np.float32)
        return {name: made[name] for name in aligned.spec.inputs}, wanted, present

    def _history(self, chosen: np.ndarray, aligned: Alignment) -> dict[str, np.ndarray]:
        actions = np.asarray(self.history_actions[chosen]).astype(np.int64)
        longest = max(int((actions > 0).sum(axis=1).max()), 1)
        actions, rows = actions[:, :longest], np.asarray(self.history_rows[chosen])[:, :longest]
        there = actions > 0
        made = {"history_actions": actions, "history_ages": np.asarray(self.history_ages[chosen])[:, :longest]}
        made["history_products"] = np.where(there, aligned.numbers[rows], 0).astype(np.int64)
        if "history_codes" in aligned.spec.inputs:
            made["history_codes"] = (aligned.codes[rows] * there[..., None]).astype(np.int64)
        if "history_content" in aligned.spec.inputs:
            content = aligned.content(rows.ravel()).reshape(*rows.shape, -1)
            made["history_content"] = content * there[..., None].astype(np.float32)
        return made
