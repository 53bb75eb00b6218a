"""Jobs for the tests of workers, installed as any package's jobs are: by entry points of the group ``endcap.jobs``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from endcap.jobs import Job, load_jobs
from endcap.settings import Settings, settings_environment

MODULE = "endcap_test_jobs"
SOURCE = '''
import os, time
from endcap.errors import EngineUnavailable, InvalidInput, TooLittle
from endcap.jobs import Job, JobCancelled

def steps(context):
    """Counts to `steps`, keeping count in its folder: what it has done once it does not do again. After each step it
    waits for the file `gate`, where one is named."""
    file, new = context.folder / "count", context.folder / "count.new"
    count = int(file.read_text()) if file.exists() else 0
    began = count
    total, gate = context.parameters.get("steps", 3), context.parameters.get("gate")
    while count < total:
        context.progress(count, total, "counting")
        count += 1
        print("step", count, "in process", os.getpid(), flush=True)
        new.write_text(str(count))
        new.replace(file)
        while gate and not os.path.exists(gate):
            context.progress(count, total, "counting")
            time.sleep(0.02)
    return {"began": began, "count": count, "pid": os.getpid()}

def fails(context):
    kind = context.parameters.get("kind", "bug")
    if kind == "bug":
        raise ValueError("two and two are five")
    if kind == "input":
        raise InvalidInput("there is nothing to train on")
    if kind == "little":
        raise TooLittle("nobody has bought anything yet", {"purchases": 0})
    if kind == "extra":
        import nobody_has_installed_this
    if kind == "passing":
        raise EngineUnavailable("the engine is away")
    if kind == "killed":
        os.kill(os.getpid(), 9)
    if kind == "deaf":
        context.progress(0, 1, "deaf")
        time.sleep(600)
    if kind == "text":
        return {"text": open("/nowhere")}
    return {}

STEPS = Job("test-steps", "Counts", steps, queue="heavy")
QUICK = Job("test-quick", "Counts", steps, queue="light", alone=False)
FAILS = Job("test-fails", "Fails", fails, queue="light", alone=False)
DEAF = Job("test-deaf", "Heeds nothing", fails, queue="light", alone=False, time_limit_s=3.0)
TIMED = Job("test-timed", "Counts every minute", steps, queue="light", schedule="* * * * *")
'''
NAMES = {
    "test-steps": "STEPS",
    "test-quick": "QUICK",
    "test-fails": "FAILS",
    "test-deaf": "DEAF",
    "test-timed": "TIMED",
}


def install_jobs(folder: Path) -> Path:
    """A folder for PYTHONPATH that holds the jobs."""
    (folder / f"{MODULE}.py").write_text(SOURCE)
    info = folder / f"{MODULE}-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {MODULE}\nVersion: 1.0\n")
    lines = [f"{name} = {MODULE}:{variable}" for name, variable in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join(["[endcap.jobs]", *lines, ""]))
    return folder


def environment(settings: Settings, jobs: Path) -> dict[str, str]:
    """For a process of ours that is to know the jobs."""
    return {**os.environ, **settings_environment(settings), "PYTHONPATH": str(jobs)}


def start(settings: Settings, jobs: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """``endcap ARGUMENTS`` in a process of its own."""
    command = [sys.executable, "-c", "from endcap.cli import main; main()", *arguments]
    return subprocess.Popen(command, env=environment(settings, jobs), start_new_session=True)


def job(name: str, queue: str = "heavy", **values: object) -> Job:
    """As whoever submits it sees it; what it does is in the worker's process."""
    return Job(name, name, dict, queue=queue, **values)  # type: ignore[arg-type]


STEPS = job("test-steps")
QUICK = job("test-quick", "light", alone=False)
FAILS = job("test-fails", "light", alone=False)
DEAF = job("test-deaf", "light", alone=False)
#: No job starts by itself.
QUIET = dict.fromkeys([*load_jobs(), "test-timed"], "off")
