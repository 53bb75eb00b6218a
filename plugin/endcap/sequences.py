"""The tensors an interest model reads: a shopper's history and the candidates of a search, as numbers.

The only place where they are made, for training and serving alike. Names, types and shapes, with B = 1 shopper,
L places of history, N candidates, K code columns, D content numbers, F features:

======================  =======  =========  =============================================================
history_products        int64    (B, L)     oldest first, ``PADDING`` behind
history_codes           int64    (B, L, K)  0 is unknown
history_content         float32  (B, L, D)  zeros where there is none
history_actions         int64    (B, L)     :class:`endcap.events.Action`, 0 in padding
history_ages            float32  (B, L)     days before the moment of ranking, 0 in padding
candidate_products      int64    (B, N)     ``UNKNOWN`` for a product that training never saw
candidate_codes         int64    (B, N, K)
candidate_content       float32  (B, N, D)  and a picture's numbers behind, where a generator reads pictures
candidate_features      float32  (B, N, F)  :data:`endcap.features.FEATURES`
======================  =======  =========  =============================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from endcap.catalog.table import ProductTable, lookup
from endcap.errors import ScorerUnavailable
from endcap.events import Action
from endcap.features import FEATURES, RankingInputs
from endcap.features.affinity import Affinity, AlignedAffinity
from endcap.pictures import WIDTH
from endcap.profile_bytes import profile_keys
from endcap.profiles import DAY_S, Profile
from endcap.vocabulary import CODES as CODES
from endcap.vocabulary import RESERVED, code_column
from endcap.vocabulary import Vocabulary as Vocabulary

PADDING = 0
#: The number of a product that training never saw; it lives by its codes and content.
UNKNOWN = 1

#: Tensor name -> numpy type, in the order of the models' arguments.
INPUTS: Mapping[str, str] = {
    "history_products": "int64",
    "history_codes": "int64",
    "history_content": "float32",
    "history_actions": "int64",
    "history_ages": "float32",
    "candidate_products": "int64",
    "candidate_codes": "int64",
    "candidate_content": "float32",
    "candidate_features": "float32",
}
OUTPUT = "scores"

#: Bits of :attr:`Alignment.newcomers`: it is one; and what the model knows of it. A price band is nothing to speak of.
NEW = 1
KNOWS: Mapping[str, int] = {"brand": 2, "category": 4, "parent": 4, "content": 8, "picture": 16}

#: A longest history that a specification may ask for; more is a mistake, not a model.
MAX_PLACES = 1_000


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model reads: its feature specification. Two with the same :attr:`digest` are interchangeable.

    Attributes:
        features: column names of ``candidate_features``: all of ``FEATURES``, or none.
        places: longest history L; what is older is cut.
        codes: names of the code columns, of ``CODES``, in order.
        content: width D of the content vectors; 0 for none. encoder: id of the encoder that made them.
        inputs: names of the tensors that the graph takes, of ``INPUTS``, in order.
        pictures: how many numbers of a candidate's picture stand behind its content vector, for a generator
            (:mod:`endcap.pictures`); 0 for none. picture_encoder: id of the encoder that made them.
    """

    features: tuple[str, ...] = FEATURES
    places: int = 50
    codes: tuple[str, ...] = CODES
    content: int = 0
    encoder: str = ""
    inputs: tuple[str, ...] = tuple(INPUTS)
    pictures: int = 0
    picture_encoder: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where no server of this version could make the tensors."""
        if self.features and self.features != FEATURES:
            raise ValueError(f"features: {_difference(self.features, FEATURES)}")
        for what, names, known in (("codes", self.codes, CODES), ("inputs", self.inputs, tuple(INPUTS))):
            unknown = [name for name in names if name not in known]
            if unknown or len(set(names)) != len(names):
                raise ValueError(f"{what}: {', '.join(unknown) or 'a name twice'}; known are {', '.join(known)}")
        if not self.inputs:
            raise ValueError("inputs: a model that reads nothing")
        if not 1 <= self.places <= MAX_PLACES:
            raise ValueError(f"places: {self.places} is not within 1 to {MAX_PLACES}")
        if self.content < 0 or (self.content and not self.encoder):
            raise ValueError("content: a width of at least 0, and the encoder that made the vectors")
        if self.pictures not in (0, WIDTH) or bool(self.pictures) != bool(self.picture_encoder):
            raise ValueError(f"pictures: {WIDTH} numbers and the encoder that made them, or none")

    @property
    def digest(self) -> str:
        """16 hex digits that identify the specification."""
        return hashlib.blake2b(orjson.dumps(self.to_json(), option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, without the first (shoppers); -1 for the number of places or candidates."""
        last = name.partition("_")[2]
        content = self.content + (self.pictures if name == "candidate_content" else 0)
        width = {"codes": len(self.codes), "content": content, "features": len(self.features)}
        return (-1, width[last]) if last in width else (-1,)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; :meth:`from_json` gives the specification back."""
        pictures = {"pictures": self.pictures, "picture_encoder": self.picture_encoder} if self.pictures else {}
        return pictures | {
            "features": list(self.features),
            "places": self.places,
            "codes": list(self.codes),
            "content": self.content,
            "encoder": self.encoder,
            "inputs": list(self.inputs),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InputSpec:
        """Raises ValueError, KeyError or TypeError for what is not a specification of this version."""
        names = {"features", "places", "codes", "content", "encoder", "inputs", "pictures", "picture_encoder"}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"unknown keys {', '.join(unknown)}")
        return cls(
            features=tuple(values["features"]),
            places=int(values["places"]),
            codes=tuple(values["codes"]),
            content=int(values["content"]),
            encoder=str(values["encoder"]),
            inputs=tuple(values["inputs"]),
            pictures=int(values.get("pictures", 0)),
            picture_encoder=str(values.get("picture_encoder", "")),
        )


def _difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    gone, new = [one for one in theirs if one not in ours], [one for one in ours if one not in theirs]
    if gone or new:
        parts = [f"{', '.join(gone)} unknown here"] * bool(gone) + [f"{', '.join(new)} missing there"] * bool(new)
        return "; ".join(parts)
    return "the same names in another order"


class Alignment:
    """A product table in a model's terms: what each row is called. Made once per table, off the request's path.

    ``numbers`` int32 (n + 1,), ``codes`` int32 (n + 1, K): the last row is a product of which nothing is known.
    ``unknown`` is the number of a product that training never saw. ``newcomers`` uint8 (n + 1,): of products that a
    generator speaks for, what it knows of them (``NEW`` and ``KNOWS``), 0 for others; None without a generator.
    ``refusal``: why the bundle's generator may not speak here; empty where it may.
    """

    __slots__ = (
        "_gone_keys",
        "_gone_order",
        "_pictures",
        "affinity",
        "codes",
        "newcomers",
        "numbers",
        "refusal",
        "spec",
        "table",
        "unknown",
    )

    def __init__(
        self,
        table: ProductTable,
        vocabulary: Vocabulary,
        spec: InputSpec,
        affinity: Affinity | None = None,
        unknown: int = UNKNOWN,
    ) -> None:
        """``unknown``: see the class; a bundle with a generator has a number of its own for it.

        Raises ScorerUnavailable where the table's content vectors are not as wide as the model's.
        """
        if spec.content and table.vectors is not None and table.vectors.shape[1] != spec.content:
            raise ScorerUnavailable(
                f"the model reads content vectors of {spec.content} numbers, the index holds {table.vectors.shape[1]}"
            )
        self._pictures, self.refusal = _pictures_of(table, spec)
        if self.refusal:
            unknown = UNKNOWN
        self.table, self.spec, self.unknown = table, spec, unknown
        self.affinity = AlignedAffinity(affinity, table) if affinity is not None else None
        keys, order = vocabulary.sorted_keys
        place = lookup(keys, order, table.keys)
        place[-1] = -1
        self.numbers = np.where(place >= 0, place + RESERVED, unknown).astype(np.int32)
        self.codes = np.zeros((len(table) + 1, len(spec.codes)), dtype=np.int32)
        for number, column in enumerate(spec.codes):
            self.codes[:, number] = code_column(table, vocabulary, column)
        self.newcomers = self._newcomers() if unknown != UNKNOWN else None
        # Products that left the catalogue since training still have a meaning in a shopper's history.
        short = profile_keys(keys)
        sorting = np.argsort(short, kind="stable")
        self._gone_order, self._gone_keys = order[sorting], short[sorting]

    def _newcomers(self) -> np.ndarray:
        found = np.full(len(self.numbers), NEW, dtype=np.uint8)
        for column, name in enumerate(self.spec.codes):
            found |= np.where(self.codes[:, column] > 0, KNOWS.get(name, 0), 0).astype(np.uint8)
        found[self.numbers != self.unknown] = 0
        if self.spec.content and self.table.vectors is not None:
            new = np.flatnonzero(found)  # of few products: looking at every vector of a large catalogue takes long
            found[new] |= np.where(self.table.vectors[new].any(axis=1), KNOWS["content"], 0).astype(np.uint8)
        if self._pictures is not None:
            new = np.flatnonzero(found)
            found[new] |= np.where(self._pictures[new].any(axis=1), KNOWS["picture"], 0).astype(np.uint8)
        return found

    def history(self, profile: Profile, now: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The latest L' <= L actions, oldest first: rows in the table (int64, -1 where gone), product numbers (int64),
        actions (int64), times (float64, seconds since 1970).

        Where the profile remembers fewer single actions than there are places, products known only by their counters
        come before them, each once: as a purchase where it was bought, else as a view.
        """
        cached = profile.cache.get("history")
        if isinstance(cached, tuple) and cached[0] is self:
            return cached[1]
        recent = profile.recent[-self.spec.places :]
        keys, times = recent["key"], recent["time"].astype(np.float64)
        actions = recent["action"].astype(np.int64)
        free = self.spec.places - len(recent)
        if free and len(profile.counters) > len(recent):
            rest = np.flatnonzero(~np.isin(profile.counters["key"], recent["key"]))
            ages = profile.age_days(now)[rest]
            order = np.argsort(ages, kind="stable")[:free][::-1]
            rest, ages = rest[order], ages[order]
            bought = np.where(profile.buys()[rest] > 0, int(Action.PURCHASE), int(Action.VIEW))
            keys = np.concatenate([profile.counters["key"][rest], keys])
            times = np.concatenate([now - ages * DAY_S, times])
            actions = np.concatenate([bought, actions])
        rows = self.table.rows_of_profile_keys(keys)
        numbers = self.numbers[rows].astype(np.int64)
        gone = np.flatnonzero(rows < 0)
        if len(gone):
            place = lookup(self._gone_keys, self._gone_order, keys[gone])
            numbers[gone] = np.where(place >= 0, place + RESERVED, self.unknown)
        answer = (rows, numbers, actions, times)
        profile.cache["history"] = (self, answer)
        return answer

    def content(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, D); zeros where there is none."""
        if self.table.vectors is None or not self.spec.content:
            return np.zeros((len(rows), self.spec.content), dtype=np.float32)
        return self.table.vectors[rows].astype(np.float32)

    def candidate_content(self, rows: np.ndarray) -> np.ndarray:
        """float32 (n, D + ``spec.pictures``): :meth:`content`, and what a generator reads of the pictures."""
        content = self.content(rows)
        if not self.spec.pictures:
            return content
        pictures = np.zeros((len(rows), self.spec.pictures), dtype=np.float32)
        if self._pictures is not None:
            pictures[:] = self._pictures[rows]
        return np.concatenate([content, pictures], axis=1)


def model_inputs(inputs: RankingInputs, aligned: Alignment, history_places: int = 0) -> dict[str, np.ndarray]:
    """The tensors of ``aligned.spec.inputs`` for one search, B = 1.

    Args:
        history_places: L of the tensors; 0: as long as the history is, at least 1 (models take any length). Longer
            histories than that are cut to the latest actions.
    """
    spec = aligned.spec
    wanted = spec.inputs
    made: dict[str, np.ndarray] = {}
    if any(name.startswith("history") for name in wanted):
        rows, numbers, actions, times = aligned.history(inputs.profile, inputs.now)
        if history_places and len(rows) > history_places:
            rows, numbers, actions, times = (one[-history_places:] for one in (rows, numbers, actions, times))
        made = {
            "history_products": numbers,
            "history_codes": aligned.codes[rows].astype(np.int64) if "history_codes" in wanted else numbers,
            "history_content": aligned.content(rows) if "history_content" in wanted else numbers,
            "history_actions": actions,
            "history_ages": np.maximum((inputs.now - times) / DAY_S, 0.0).astype(np.float32),
        }
        behind = max(history_places, 1) - len(rows)
        if behind > 0:
            made = {
                name: np.concatenate([one, np.zeros((behind, *one.shape[1:]), dtype=one.dtype)])
                for name, one in made.items()
            }
    made["candidate_products"] = aligned.numbers[inputs.rows].astype(np.int64)
    if "candidate_codes" in wanted:
        made["candidate_codes"] = aligned.codes[inputs.rows].astype(np.int64)
    if "candidate_content" in wanted:
        made["candidate_content"] = aligned.candidate_content(inputs.rows)
    if "candidate_features" in wanted:
        features = inputs.features if aligned.affinity is None else aligned.affinity.fill(inputs)
        made["candidate_features"] = features[:, : len(spec.features)]
    return {name: made[name][None] for name in wanted}


def _pictures_of(table: ProductTable, spec: InputSpec) -> tuple[np.ndarray | None, str]:
    """Vectors of the pictures (n + 1, ``spec.pictures``), None without; and why they do not go with the model."""
    if not spec.pictures or table.pictures is None:
        return None, ""
    found = table.pictures.of(table.ids)
    if found is None:
        return None, ""
    if found.encoder != spec.picture_encoder:
        return None, (
            f"new products are scored without a generator: it learned from pictures by {spec.picture_encoder}, the "
            f"products' are now by {found.encoder}; run the job `augment`"
        )
    return found.vectors, ""
