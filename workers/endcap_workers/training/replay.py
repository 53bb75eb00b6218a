"""Lives through the log once more, in the order of time, and writes down what was known whenever somebody wanted
something: the training cases, made by the code that serves.

Profiles, popularity and what is bought together grow as they did in the server; a case is made before the events that
belong to it are taken in. Memory: a packed profile a shopper, bounded by its places; the rest as in the server. Cases
go to disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from endcap.catalog.table import ProductTable
from endcap.events import Action
from endcap.features import RankingInputs, ranking_inputs
from endcap.features.affinity import Affinity, AlignedAffinity
from endcap.popularity import Popularity
from endcap.profiles import DAY_S, Profile, short_keys
from endcap.recommend.behaviour import Behaviour
from endcap.sequences import Alignment, InputSpec, Vocabulary
from endcap.settings import Settings
from endcap.stores.aliases import Login
from endcap.stores.events import EventLog, Lines, kept
from endcap_workers.training.affinity import build_affinity
from endcap_workers.training.cases import Case
from endcap_workers.training.impressions import Impressions, Page
from endcap_workers.training.lists import Lists, Shown
from endcap_workers.training.logins import Logins
from endcap_workers.training.packed import PackedProfiles
from endcap_workers.training.plan import Plan
from endcap_workers.training.shown import shown_features

#: A pause of this length ends a visit.
VISIT_GAP_S = 2 * 3600.0
#: Popularity is at most so old when a case is made, and a read of the log so long.
_CHUNK_S, _CHUNK_EVENTS = DAY_S, 50_000
#: Shopper-product pairs and pairs in baskets that the affinity is learned from.
MOST_REPEATS, MOST_PAIRS = 8_000_000, 6_000_000
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

Progress = Callable[[float, float, str], None]


@dataclass(slots=True)
class World:
    """What the log says by its end, and how often each product was done something with."""

    profiles: PackedProfiles
    popularity: Popularity
    affinity: Affinity | None
    actions: np.ndarray
    sequence: int = 0
    events: int = 0


@dataclass(slots=True)
class Replay:
    """One pass over the log. ``shares``: of the lists of each part, how many become cases (so that they are not too
    many); ``seed`` draws them. ``keep_inputs``: so many searches are kept in ``kept_inputs``, for measuring.
    ``logins``: see :meth:`endcap.stores.aliases.Aliases.logins`. ``impressions``: pages that were shown; from where
    they begin, they are the lists."""

    table: ProductTable
    settings: Settings
    plan: Plan
    lists: Lists
    popularity: Popularity
    shares: tuple[float, float, float] = (1.0, 1.0, 1.0)
    excluded: frozenset[str] = frozenset()
    seed: int = 0
    places: int = 50
    keep_inputs: int = 0
    logins: Mapping[str, Login] = field(default_factory=dict)
    impressions: Impressions | None = None
    kept_inputs: list[RankingInputs] = field(init=False, default_factory=list)
    _aligned: Alignment = field(init=False)
    _affinity: AlignedAffinity | None = field(init=False, default=None)
    _logins: Logins = field(init=False)

    def run(self, log: EventLog, write: Callable[[Case], None], progress: Progress = lambda *_: None) -> World:
        """Raises LogUnavailable; and whatever ``write`` raises."""
        plan, table = self.plan, self.table
        self._aligned = Alignment(table, Vocabulary(), InputSpec(places=self.places))
        self._logins = Logins(self.logins)
        behaviour = Behaviour(MOST_PAIRS, MOST_REPEATS)
        settings = self.settings
        profiles = PackedProfiles(settings.profile_bytes, settings.profile_recent, settings.half_life_days)
        world = World(profiles, self.popularity, None, np.zeros(len(table) + 1, dtype=np.int64))
        due = list(plan.renewals)
        first = 0.0
        for lines in self._chunks(log):
            columns = lines.columns
            now = float(columns.times[0])
            first = first or now
            if due and now >= due[0]:
                while due and now >= due[0]:
                    due.pop(0)
                made = build_affinity(table, behaviour, now, self.seed)
                self._affinity = AlignedAffinity(made, table) if made else None
            self.lists.moved_on()
            shoppers = self._logins.names(columns)
            self._take(lines, shoppers, world, write)
            behaviour.add(columns.keys, columns.times, columns.actions, shoppers, lines.sessions)
            self.popularity.add(columns.keys, columns.times, columns.actions)
            rows = table.rows_of_short_keys(short_keys(columns.keys))
            np.add.at(world.actions, rows[columns.keys != 0], 1)
            world.sequence = max(world.sequence, int(columns.sequence.max()))
            world.events += len(columns)
            progress(float(columns.times[-1]) - first, plan.end - first, "reading the log")
        world.affinity = build_affinity(table, behaviour, plan.end, self.seed)
        return world

    def _chunks(self, log: EventLog) -> Iterator[Lines]:
        """The log by time, without those left out; no chunk spans more than a day, none parts one moment."""
        after = (-np.inf, 0)
        rest: Lines | None = None
        while True:
            found = log.lines_by_time(after, _CHUNK_EVENTS)
            last = len(found.columns) < _CHUNK_EVENTS
            if len(found.columns):
                after = (float(found.columns.times[-1]), int(found.columns.sequence[-1]))
            lines = _joined(rest, found)
            times = lines.columns.times
            if not len(times):
                return
            # What shares the last moment may go on in the next read.
            whole = len(times) if last else int(np.searchsorted(times, times[-1])) or len(times)
            day = np.floor(times[:whole] / _CHUNK_S)
            for part in np.split(np.arange(whole), np.flatnonzero(np.diff(day)) + 1):
                one = _at(lines, part[kept([lines.columns.shoppers[row] for row in part.tolist()], self.excluded)])
                if len(one.columns):
                    yield one
            if last:
                return
            rest = _at(lines, np.arange(whole, len(times)))

    def _take(self, lines: Lines, shoppers: list[str], world: World, write: Callable[[Case], None]) -> None:
        """Cases of a chunk, then the profiles that it leaves. ``shoppers``: whom each event counts for."""
        columns = lines.columns
        moments, times, keys, actions = columns.times, columns.times, columns.keys, columns.actions
        sequence = columns.sequence
        pages: dict[str, deque[Page]] = {}
        for page in self.impressions.until(float(times[-1])) if self.impressions is not None else ():
            pages.setdefault(self._logins.name(page.served.shopper, page.served.time), deque()).append(page)
        for past in self._logins.past(columns):  # goes into the profile at the log-in, and makes no cases
            count = len(past.keys)
            shoppers = [*shoppers, *[past.shopper] * count]
            moments, sequence = np.r_[moments, np.full(count, past.moment)], np.r_[sequence, np.full(count, -1)]
            times, keys, actions = np.r_[times, past.times], np.r_[keys, past.keys], np.r_[actions, past.actions]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(shoppers))}
        who = np.fromiter((numbers[name] for name in shoppers), dtype=np.int64, count=len(shoppers))
        order = np.lexsort((sequence, moments, who))
        who, times, keys, actions, old = who[order], times[order], keys[order], actions[order], sequence[order] < 0
        moments = moments[order]
        new = np.r_[True, (who[1:] != who[:-1]) | (old[1:] != old[:-1])]
        visit = np.cumsum(new | np.r_[True, np.diff(times) > VISIT_GAP_S]) - 1
        wanted = np.isin(actions, self.plan.wanted) & (keys != 0)
        in_window = bool(times.max() >= self.plan.start)
        # A chunk lies within a day, and pages begin with one.
        in_window = in_window and (self.impressions is None or float(moments.max()) < self.impressions.begins)
        names = list(numbers)
        starts = np.flatnonzero(new)
        for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True):
            name = names[who[begin]]
            profile = world.profiles.take(name)
            waiting = pages.get(name, ())
            while waiting and waiting[0].served.time <= moments[end - 1]:
                # An event of the very moment may be what came of the page.
                until = begin + int(np.searchsorted(moments[begin:end], waiting[0].served.time))
                profile.add(keys[begin:until], times[begin:until], actions[begin:until])
                begin = until
                self._page(profile, waiting.popleft(), write)
            here = slice(begin, end)
            # Who searched and took nothing teaches, too: that nothing may be wanted.
            if in_window and not old[begin] and (wanted[here].any() or (actions[here] == Action.SEARCH).any()):
                self._visits(
                    profile,
                    order[here],
                    visit[here],
                    times[here],
                    keys[here],
                    actions[here],
                    wanted[here],
                    lines,
                    write,
                )
            else:
                profile.add(keys[here], times[here], actions[here])
        for name, waiting in pages.items():
            for page in waiting:
                self._page(world.profiles.look(name), page, write)

    def _page(self, profile: Profile, page: Page, write: Callable[[Case], None]) -> None:
        served = page.served
        features, rows = shown_features(served, profile, self.lists, self.table, self.popularity, self._affinity)
        write(self._case(profile, features, rows, page.wanted, served.time, page.part))

    def _visits(
        self, profile: Profile, order: np.ndarray, visit: np.ndarray, times: np.ndarray, keys: np.ndarray,
        actions: np.ndarray, wanted: np.ndarray, lines: Lines, write: Callable[[Case], None],
    ) -> None:  # fmt: skip
        """One shopper's events of a chunk, visit by visit; within a visit each search is a moment of its own."""
        previous = float(profile.recent["time"][-1]) if len(profile.recent) else -np.inf
        edges = np.flatnonzero(np.r_[True, np.diff(visit) != 0, True])
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            goes_on = begin == 0 and times[0] - previous <= VISIT_GAP_S
            searches = [
                row for row in range(begin, end) if actions[row] == Action.SEARCH and lines.queries[int(order[row])]
            ]
            moments = [begin, *searches]
            for number, at in enumerate(moments):
                until = moments[number + 1] if number + 1 < len(moments) else end
                query = lines.queries[int(order[at])] if number else ""
                chosen = np.arange(at, until)
                if not (goes_on and not query):
                    self._cases(profile, query, float(times[at]), keys[chosen[wanted[chosen]]], write)
                profile.add(keys[chosen], times[chosen], actions[chosen])

    def _cases(
        self, profile: Profile, query: str, moment: float, keys: np.ndarray, write: Callable[[Case], None]
    ) -> None:
        part = self.plan.part(moment)
        if part < 0 or not (len(keys) or query):
            return
        rows, times = np.unique(self.table.rows_of_short_keys(short_keys(keys)), return_counts=True)
        rows, times = rows[rows >= 0], times[rows >= 0]
        if query:
            shown = self.lists.of_query(query)
            if shown is not None and self._drawn(moment, hash_of(query), part):
                self._write(profile, shown, rows, times, moment, part, write)
            return
        shelves = self.table.category[rows]
        for category in np.unique(shelves).tolist():
            drawn = self._number(moment, category + 2, rows[0])
            if category < 0 or drawn >= self.shares[part]:
                continue
            inside = shelves == category
            # Half of the lists are what the engine finds for the category's name, where it finds what was wanted.
            shown = self.lists.of_query(self.lists.name(category)) if drawn < 0.5 * self.shares[part] else None
            if shown is None or not set(shown.ids).intersection(self.table.ids[row] for row in rows[inside].tolist()):
                shown = self.lists.of_category(category, rows[inside], moment)
            if shown is not None:
                self._write(profile, shown, rows[inside], times[inside], moment, part, write)

    def _write(
        self, profile: Profile, shown: Shown, rows: np.ndarray, times: np.ndarray, moment: float, part: int,
        write: Callable[[Case], None],
    ) -> None:  # fmt: skip
        inputs = ranking_inputs(profile, shown.query, shown.ids, shown.scores, self.table, self.popularity, moment)
        if self._affinity is not None:
            self._affinity.fill(inputs)
        if len(self.kept_inputs) < self.keep_inputs:
            self.kept_inputs.append(replace(inputs, profile=profile.copy()))
        wanted = np.zeros(len(inputs.rows), dtype=np.int64)
        place = np.searchsorted(rows, inputs.rows) if len(rows) else np.zeros(len(inputs.rows), dtype=np.int64)
        if len(rows):
            place = np.minimum(place, len(rows) - 1)
            wanted = np.where(rows[place] == inputs.rows, times[place], 0)
        if not wanted.any() and len(rows):
            return  # it was wanted, but not from this list
        write(self._case(profile, inputs.features, inputs.rows, wanted, moment, part))

    def _case(
        self, profile: Profile, features: np.ndarray, rows: np.ndarray, wanted: np.ndarray, moment: float, part: int
    ) -> Case:
        then, _, actions, when = self._aligned.history(profile, moment)
        ages = np.maximum((moment - when) / DAY_S, 0.0)
        buys = int(profile.buys().sum()) if profile else 0
        return Case(features, rows, wanted, (then, actions, ages), moment, part, buys)

    def _drawn(self, moment: float, number: int, part: int) -> bool:
        return self._number(moment, number, 0) < self.shares[part]

    def _number(self, moment: float, one: int, other: int) -> float:
        """From 0 to 1, drawn by what the list is and by the seed alone: the order of reading plays no part."""
        with np.errstate(over="ignore"):
            mixed = np.uint64(int(moment * 1e3) & 0xFFFFFFFFFFFF) * _GOLDEN
            mixed ^= np.uint64(one & 0xFFFFFFFF) * np.uint64(0xC2B2AE3D27D4EB4F)
            mixed ^= np.uint64((int(other) * 2_654_435_761 + self.seed * 7_919) & 0xFFFFFFFFFFFF)
            mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(29)
        return float(mixed >> np.uint64(11)) / float(1 << 53)


def hash_of(text: str) -> int:
    """The same in every process."""
    from endcap.catalog.product import product_keys

    return int(product_keys([text])[0]) & 0xFFFFFFFF


def _at(lines: Lines, rows: np.ndarray) -> Lines:
    chosen = rows.tolist()
    return Lines(
        lines.columns.at(rows), [lines.sessions[row] for row in chosen], [lines.queries[row] for row in chosen]
    )


def _joined(one: Lines | None, other: Lines) -> Lines:
    if one is None or not len(one.columns):
        return other
    left, right = one.columns, other.columns
    columns = type(left)(
        np.concatenate([left.sequence, right.sequence]), np.concatenate([left.keys, right.keys]),
        np.concatenate([left.times, right.times]), np.concatenate([left.actions, right.actions]),
        [*left.shoppers, *right.shoppers],
    )  # fmt: skip
    return Lines(columns, [*one.sessions, *other.sessions], [*one.queries, *other.queries])
