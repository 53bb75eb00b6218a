"""The registry: which versions of a model there are, and which one is live.

*Kinds* are models of one purpose (``interest``, ``policy``, ``augmentation``). A version begins as a *candidate*, may
be scored beside the live one as a *shadow*, goes *live* when its gate lets it, and is *retired* when another one does.

Going live has two steps: what is slow and may fail (Triton loads the version and answers a probe as it should), then
the switch itself, in one transaction. Servers look every second; for ``interest`` they look at ``live.json`` beside
the bundles, for other kinds they ask :meth:`Registry.live`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection

from endcap.bundles import live_bundle, load_bundle, make_live, make_none_live
from endcap.errors import BundleRefused, EndcapError
from endcap.gates import Verdict, check_passed
from endcap.pointer import bundle_in_force, pointed_at, written
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.experiments import RUNNING, ExperimentStore
from endcap.stores.versions import (
    CANDIDATE,
    LIVE,
    RETIRED,
    SHADOW,
    Change,
    State,
    UnknownVersion,
    Version,
    Versions,
    added,
)  # fmt: skip

log = logging.getLogger(__name__)

INTEREST = "interest"
#: Puts a version's files where they are served from, and waits until they are; before the switch.
Publish = Callable[[Path], None]


class VersionConflict(EndcapError):
    """The version is not in a state in which this can be done, or another one is pinned."""

    status = 409
    kind = "version_conflict"


class Registry:
    """Thread-safe; any number of processes and machines may share the database and the model folder."""

    def __init__(
        self, database: Database, models: Path, publish: Mapping[str, Publish] | None = None, keep: int = 10
    ) -> None:
        """``models``: the model folder. ``publish``: by kind. ``keep``: versions whose files are kept, per kind."""
        self.models = models
        self.keep = keep
        self._publish = dict(publish or {})
        self._versions = Versions(database)
        self._experiments = ExperimentStore(database)
        self._refused: tuple[str, float] | None = None

    def add_candidate(
        self,
        kind: str,
        version: str,
        folder: Path,
        metrics: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Version:
        """Register a trained version whose files lie in ``folder`` (whole and final). Saying it twice changes nothing.

        Raises:
            VersionConflict: the version is there already, with another folder.
        """
        place = folder.name if folder.parent.resolve() == self.models.resolve() else str(folder.resolve())
        with self._versions.writing() as connection:
            try:
                found = self._versions.one(connection, kind, version)
            except UnknownVersion:
                values = {
                    "kind": kind, "version": version, "state": CANDIDATE, "folder": place,
                    "metrics": dict(metrics or {}), "provenance": dict(provenance or {}),
                }  # fmt: skip
                self._versions.add(connection, values)
                return self._versions.one(connection, kind, version)
            if not found.folder:  # its files were removed, and are back
                self._versions.change(connection, kind, version, folder=place)
                return self._versions.one(connection, kind, version)
            if found.folder != place:
                raise VersionConflict(f"{kind} {version} is registered already, with files in {found.folder or 'no'}")
            return found

    def get(self, kind: str, version: str) -> Version:
        """One version.

        Raises:
            UnknownVersion: there is none.
        """
        return self._versions.get(kind, version)

    def versions(self, kind: str = "", state: State | Literal[""] = "", limit: int = 200) -> list[Version]:
        """All versions (of a kind, in a state), newest first."""
        if kind in ("", INTEREST):
            self._follow_pointer()
        return self._versions.list(kind, state, limit)

    def live(self, kind: str) -> Version | None:
        """The version in force."""
        found = self.versions(kind, LIVE, limit=1)
        return found[0] if found else None

    def history(self, kind: str = "", limit: int = 100) -> Sequence[Change]:
        """What was promoted, pinned, rolled back and refused, newest first."""
        return self._versions.history(kind, limit)

    def folder(self, version: Version) -> Path:
        """Where a version's files lie.

        Raises:
            UnknownVersion: they were removed.
        """
        folder = self.models / version.folder  # an absolute path stays itself
        if not version.folder or not folder.is_dir():
            raise UnknownVersion(f"the files of {version.kind} {version.version} are gone: it cannot be used again")
        return folder

    def judged(self, kind: str, version: str, verdict: Verdict, by: str = "", against: str | None = None) -> Version:
        """Keep what the gate said. ``against``: the version that it was compared with, empty for none; by default what
        is live."""
        with self._versions.writing() as connection:
            found = self._versions.one(connection, kind, version)
            live = self._versions.live(connection, kind)
            against = against if against is not None else live.version if live else ""
            kept = {
                "passed": verdict.passed, "reasons": list(verdict.reasons), "numbers": dict(verdict.numbers),
                "against": against,
            }  # fmt: skip
            self._versions.change(connection, kind, version, verdict=kept)
            if not verdict.passed:
                self._versions.note(connection, kind, "refuse", version, against, by, "; ".join(verdict.reasons))
            return self._versions.one(connection, kind, found.version)

    def publish(self, version: Version) -> None:
        """Put a version's files where they are served from, without putting it into force.

        Raises:
            UnknownVersion: its files are gone.
            BundleRefused, PublishingFailed: it cannot be served.
        """
        if version.kind in self._publish:
            self._publish[version.kind](self.folder(version))

    def promote(
        self, kind: str, version: str, by: str = "", force: bool = False, instead_of: str | None = None
    ) -> Version:
        """Put a version into force; all servers switch within two seconds, and no search fails for it.

        Args:
            force: even where the gate has not let it pass, or another version is pinned (which ends the pin).
            instead_of: only while this version is live (empty: while none is), the one that it was compared with.

        Raises:
            UnknownVersion: there is none, or its files are gone.
            GateFailed: its gate has not judged it, or has refused it.
            VersionConflict: another version is pinned, or one that it was not compared with is live.
            BundleRefused, PublishingFailed: it cannot be served; what was live stays live.
        """
        candidate = self.get(kind, version)
        if not force:
            check_passed(candidate)
        return self._switch(candidate, "promote", by, force, instead_of)

    def promote_unless_pinned(self, kind: str, version: str, by: str = "", instead_of: str | None = None) -> str:
        """As :meth:`promote`, for jobs: where another version is pinned, or was put into force while the candidate was
        judged, people have decided. Gives nothing, or why the candidate stays one. Raises: the rest of what
        :meth:`promote` does."""
        try:
            self.promote(kind, version, by, instead_of=instead_of)
        except VersionConflict as error:
            return str(error)
        return ""

    def pin(self, kind: str, version: str, by: str = "") -> Version:
        """Put a version into force, whatever its gate says, and keep it there until it is unpinned. Raises: see
        :meth:`promote`."""
        return self._switch(self.get(kind, version), "pin", by, force=True)

    def unpin(self, kind: str, by: str = "") -> Version:
        """Let newer versions replace the live one again.

        Raises:
            VersionConflict: nothing is pinned.
        """
        with self._versions.writing() as connection:
            live = self._versions.live(connection, kind)
            if live is None or not live.pinned:
                raise VersionConflict(f"no version of {kind} is pinned")
            self._versions.change(connection, kind, live.version, pinned=False)
            self._versions.note(connection, kind, "unpin", live.version, live.version, by)
            return self._versions.one(connection, kind, live.version)

    def roll_back(self, kind: str, by: str = "") -> Version:
        """Put the version into force that was live before this one. Said again, it goes one further back, and behind
        the first there is none: then what answers without a model is in force, and the version that was is given.

        Raises:
            VersionConflict: nothing is live.
        """
        self._follow_pointer()
        with self._versions.writing() as connection:
            line = self._versions.were_live(connection, kind)
            for one in reversed(line[:-1]):
                found = self._versions.one(connection, kind, one)
                if found.version != line[-1] and found.folder and (self.models / found.folder).is_dir():
                    target = found
                    break
            else:
                return self._withdraw(connection, kind, by)
        return self._switch(target, "roll-back", by, force=True)

    def shadow(self, kind: str, version: str, by: str = "") -> Version:
        """Have a version scored beside the live one, on real traffic, without effect. The one that was shadow before
        becomes a candidate again.

        Raises:
            UnknownVersion: there is none, or its files are gone.
            VersionConflict: it is live.
        """
        with self._versions.writing() as connection:
            found = self._versions.one(connection, kind, version)
            self.folder(found)
            if found.state == LIVE:
                raise VersionConflict(f"{kind} {version} is live: there is nothing to compare it with")
            self._end_shadows(connection, kind)
            self._versions.change(connection, kind, version, state=SHADOW, shadow=None)
            self._versions.note(connection, kind, "shadow", version, "", by)
            return self._versions.one(connection, kind, version)

    def end_shadow(self, kind: str, by: str = "") -> None:
        """Stop scoring a version beside the live one."""
        with self._versions.writing() as connection:
            self._end_shadows(connection, kind)

    def shadowed(self, kind: str, version: str, sums: Mapping[str, float]) -> None:
        """Add to what scoring it beside the live version has shown: ``searches`` and ``errors`` are counts, what else
        there is are sums over the searches, of which the means are kept."""
        with self._versions.writing() as connection:
            before = self._versions.one(connection, kind, version).shadow or {}
            self._versions.change(connection, kind, version, shadow=added(before, sums))

    def prune(self, kind: str) -> list[Version]:
        """Remove the files of all but the latest ``keep`` versions; what is live, pinned, a shadow, named by a running
        experiment, or what roll back would go to stays. The rows stay, for the figures."""
        with self._versions.writing() as connection:
            were = self._versions.were_live(connection, kind)[-2:]
        if kind == INTEREST:
            running = self._experiments.all(RUNNING)
            were = [*were, *(arm.get("model", "") for one in running for arm in one.definition["arms"])]
        present = [one for one in self.versions(kind, limit=1_000) if one.folder]
        gone = []
        for one in present[self.keep :]:
            with self._versions.writing() as connection:
                # As it is now: it may have been put into force since it was listed.
                one = self._versions.one(connection, kind, one.version)
                if one.state not in (CANDIDATE, RETIRED) or one.version in were or not one.folder:
                    continue
                self._versions.change(connection, kind, one.version, folder="")
                self._versions.note(connection, kind, "remove", one.version, "", "")
            shutil.rmtree(self.models / one.folder, ignore_errors=True)
            gone.append(one)
        return gone

    def _switch(self, target: Version, action: str, by: str, force: bool, instead_of: str | None = None) -> Version:
        kind, folder = target.kind, self.folder(target)
        self._follow_pointer()
        self._refuse_pinned(self.live(kind), target, force)
        if kind in self._publish:
            self._publish[kind](folder)
        with self._versions.writing() as connection:
            live = self._versions.live(connection, kind)
            before = live.version if live else ""
            self._refuse_pinned(live, target, force)
            if instead_of not in (None, before) and before != target.version:
                raise VersionConflict(
                    f"{kind} {target.version} was compared with {instead_of or 'what answers without a model'}; "
                    f"{before or 'nothing'} is live by now: have it judged again"
                )
            self.folder(self._versions.one(connection, kind, target.version))  # not tidied away meanwhile
            if live is not None and live.version != target.version:
                self._versions.change(connection, kind, live.version, state=RETIRED, pinned=False)
            self._versions.change(connection, kind, target.version, state=LIVE, pinned=action == "pin")
            self._versions.note(connection, kind, action, target.version, before, by)
            if kind == INTEREST:
                make_live(folder)
            return self._versions.one(connection, kind, target.version)

    def _withdraw(self, connection: Connection, kind: str, by: str) -> Version:
        live = self._versions.live(connection, kind)
        if live is None:
            raise VersionConflict(f"there is no earlier version of {kind} to go back to")
        self._versions.change(connection, kind, live.version, state=RETIRED, pinned=False)
        self._versions.note(connection, kind, "withdraw", live.version, live.version, by)
        if kind == INTEREST:
            make_none_live(self.models)
        return self._versions.one(connection, kind, live.version)

    @staticmethod
    def _refuse_pinned(live: Version | None, target: Version, force: bool) -> None:
        if live is not None and live.pinned and live.version != target.version and not force:
            raise VersionConflict(f"{live.kind} {live.version} is pinned: unpin it first")

    def _end_shadows(self, connection: Connection, kind: str) -> None:
        for one in self._versions.list(kind, SHADOW):
            self._versions.change(connection, kind, one.version, state=CANDIDATE)

    def _follow_pointer(self) -> None:
        """Take note of a bundle that went live by another way (``live.json`` written by hand, or a crash between the
        pointer and the table): the servers go by the pointer, so the registry does, too."""
        folder = None
        try:
            folder = live_bundle(self.models)
            if folder is None or any(one.folder == folder.name for one in self._versions.list(INTEREST, LIVE)):
                return
            if self._refused == written(folder):  # said once, and not read again and again
                return
            bundle = load_bundle(folder)
        except BundleRefused as error:
            log.warning("what live.json names is not in the registry: %s", error)
            self._refused = written(folder)
            return
        version = str(bundle.version)
        self.add_candidate(INTEREST, version, folder, bundle.description.get("metrics"), bundle.provenance)
        with self._versions.writing() as connection:
            live = self._versions.live(connection, INTEREST)
            # Another process may have switched since the look: the pointer is its, and so is the table (and the pin).
            if pointed_at(self.models) != folder.name or (live is not None and live.version == version):
                return
            if live is not None:
                self._versions.change(connection, INTEREST, live.version, state=RETIRED, pinned=False)
            self._versions.change(connection, INTEREST, version, state=LIVE)
            self._versions.note(connection, INTEREST, "found", version, live.version if live else "", "")


def open_registry(settings: Settings, database: Database) -> Registry:
    """The registry that the settings ask for; ``interest`` is given to Triton where there is one."""
    return Registry(database, settings.models_folder, {INTEREST: _to_triton(settings)}, settings.keep_versions)


def _to_triton(settings: Settings) -> Publish:
    def publish(folder: Path) -> None:
        from endcap import publishing

        bundle = load_bundle(folder)
        if settings.triton_repository:
            repository = Path(settings.triton_repository)
            publishing.write_version(bundle, repository, settings.triton_device)
            publishing.make_room(bundle, repository, bundle_in_force(settings.models_folder))
            if settings.triton_url:
                publishing.load_into_triton(bundle, settings.triton_url)

    return publish
