"""A process of ours that is kept alive."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from endcap.keeper import Keeper
from tests.serving import eventually

#: Ends when its standard input does.
_WAITS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_one_that_dies_is_replaced_and_told_to_stop_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    started = _watched(monkeypatch)
    keeper = Keeper("test", _WAITS, os.environ, 5.0)
    keeper.start()
    assert eventually(lambda: len(started) == 1)
    started[0].kill()
    assert eventually(lambda: len(started) == 2)
    keeper.close()
    assert started[1].poll() is not None


def test_nobody_forks_while_it_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's worker that is forked just then would hold the pipes of the start open: it would never be over."""
    forked, early = threading.Event(), []

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(0)
        forked.set()
        os.waitpid(child, 0)

    def meanwhile() -> None:
        threading.Thread(target=fork).start()
        early.append(forked.wait(0.5))

    started = _watched(monkeypatch, meanwhile)
    keeper = Keeper("test", _WAITS, os.environ, 5.0)
    keeper.start()
    assert eventually(lambda: len(started) == 1)
    assert eventually(forked.is_set), "a fork waits for ever"
    keeper.close()
    assert early == [False]


def _watched(monkeypatch: pytest.MonkeyPatch, meanwhile: Any = lambda: None) -> list[subprocess.Popen[bytes]]:
    """The processes that are started from now on; ``meanwhile`` is called during each start."""
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: Any, **values: Any) -> subprocess.Popen[bytes]:
        meanwhile()
        made = real(*arguments, **values)
        started.append(made)
        return made

    monkeypatch.setattr("endcap.keeper.subprocess.Popen", start)
    return started
