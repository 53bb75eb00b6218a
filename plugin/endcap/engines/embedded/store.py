"""The folders of one index on disk: which one is live, who may write, how a committed state is opened.

``FOLDER/current`` names the live generation (``g000001``), each of which is a complete index of its own. It is replaced
atomically, as is a generation's own ``meta.json`` at each commit; so a process killed at any moment leaves the last
committed state behind, and what it had begun is swept up by the next writer.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import filelock
import tantivy

from endcap.engines.embedded.schema import build_schema, register_analyzers
from endcap.engines.embedded.snapshot import Manifest, Snapshot, is_panic, load, open_failed
from endcap.errors import EngineError, IndexBusy, UnknownIndex
from endcap.files import write_atomically

_ATTEMPTS = 20


class Store:
    """One index in a data folder. Thread-safe; several processes may open the same one, one of which may write."""

    def __init__(self, data_dir: Path, index: str, lock_timeout_s: float = 5.0) -> None:
        self.index = index
        self.folder = Path(data_dir) / "engine" / quote(index, safe="")
        self._lock = filelock.FileLock(self.folder / "write.lock", timeout=lock_timeout_s, thread_local=False)
        self._loading = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._seen: tuple[int, ...] | None = None

    def snapshot(self) -> Snapshot:
        """The state last committed, by whichever process. A few microseconds where nothing has changed.

        Raises:
            UnknownIndex: there is no index yet.
            EngineError: it cannot be read.
        """
        found = self._latest()
        if found is None:
            raise UnknownIndex(f"no such index [{self.index}]: make it with `endcap index`")
        return found

    def exists(self) -> bool:
        """Whether there is an index."""
        return self._latest() is not None

    def _latest(self, wait: bool = False) -> Snapshot | None:
        held = self._snapshot
        if held is not None and self._stamp(held.folder) == self._seen:
            return held
        # Readers never wait for a load in progress: the state that they have is good.
        if not self._loading.acquire(blocking=held is None or wait):
            return held
        try:
            return self._load()
        finally:
            self._loading.release()

    def _load(self) -> Snapshot | None:
        for attempt in range(_ATTEMPTS):
            name = self.current()
            if name is None:
                self._snapshot, self._seen = None, None
                return None
            folder = self.folder / name
            seen = self._stamp(folder)
            try:
                self._snapshot = load(folder, name, self._snapshot)
            except EngineError:
                raise
            except BaseException as error:
                # tantivy panics over files that are not what they should be; the panic is no Exception.
                if not isinstance(error, (OSError, ValueError)) and not is_panic(error):
                    raise
                # A rebuild may have replaced the folder while it was being opened.
                if self.current() == name and attempt > 2:
                    raise open_failed(folder, error) from None
                continue
            self._seen = seen
            return self._snapshot
        raise open_failed(self.folder, RuntimeError("it keeps changing"))

    def _stamp(self, folder: Path) -> tuple[int, ...] | None:
        try:
            one, two = os.stat(self.folder / "current"), os.stat(folder / "meta.json")
        except FileNotFoundError:
            return None
        return one.st_mtime_ns, one.st_ino, two.st_mtime_ns, two.st_ino, two.st_size

    def current(self) -> str | None:
        """Name of the live generation."""
        try:
            return str(json.loads((self.folder / "current").read_text())["generation"])
        except FileNotFoundError:
            return None

    def published(self) -> Snapshot:
        """The state just committed by this process, after whoever is loading has finished."""
        found = self._latest(wait=True)
        if found is None:
            raise UnknownIndex(f"no such index [{self.index}]")
        return found

    # --- writing -----------------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Become the writer; held until :meth:`unlock`, or the process's end however it comes.

        Raises:
            IndexBusy: another process, or another engine object of this one, is writing.
        """
        if self._lock.is_locked:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise IndexBusy(
                f"index [{self.index}] in {self.folder} is being written by another process: "
                "wait until it has refreshed or closed, then try again"
            ) from None
        self.sweep()

    def unlock(self) -> None:
        self._lock.release(force=True)

    @property
    def locked(self) -> bool:
        return bool(self._lock.is_locked)

    def sweep(self) -> None:
        """Remove the generations that are not live. Only the writer may."""
        current = self.current()
        for folder in self.folder.glob("g[0-9]*"):
            if folder.name != current:
                shutil.rmtree(folder, ignore_errors=True)

    def new_generation(self, manifest: Manifest) -> tuple[str, tantivy.Index]:
        """An empty generation beside the live one. Only the writer may."""
        current = self.current()
        name = f"g{int(current[1:]) + 1 if current else 1:06d}"
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        manifest.write(folder)
        index = tantivy.Index(build_schema(), path=str(folder))
        register_analyzers(index, manifest.language)
        return name, index

    def make_current(self, name: str) -> Snapshot:
        """Make a committed generation the live one, in one step, and remove the others."""
        write_atomically(self.folder / "current", json.dumps({"generation": name}).encode(), durable=True)
        found = self.published()
        self.sweep()
        return found

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Hold the writer's lock for a block, unless it is held already."""
        held = self.locked
        self.lock()
        try:
            yield
        finally:
            if not held:
                self.unlock()
