"""Runs and jobs: what there is to start, what runs, how far it is, what came of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from endcap.errors import EndcapError
from endcap.jobs import Job, load_jobs
from endcap.runtime import Runtime
from endcap.schedule import next_time, schedule_of
from endcap.stores.runs import QUEUED, RUNNING, Run, Runs, State
from endcap.stores.workers import Workers, WorkerSeen
from endcap_reranker.admin.access import caller
from endcap_reranker.admin.operation import Answer, Strict, Topic


class UnknownJob(EndcapError):
    """No installed package brings such a job."""

    status = 404
    kind = "unknown_job"


class RunAnswer(Answer):
    """One run of a job. Times are seconds since 1970 (UTC), 0 where it has not come to that."""

    id: str
    job: str
    queue: str
    parameters: dict[str, Any]
    by: str = Field(description="Who asked for it: a token's name, `schedule`, `cli`.")
    state: State
    attempt: int = Field(description="Counts from 1 once it has begun.")
    submitted: float
    waiting: str = Field(description="What a queued run waits for; empty for any other.")
    due: float = Field(description="Not begun before: a run whose fault may pass is tried again after a while.")
    started: float
    finished: float
    heartbeat: float
    cancelling: bool
    phase: str
    done: float
    total: float
    result: dict[str, Any] | None = Field(description="Of a run that was skipped, `reason` says why.")
    error: str
    log: str = Field(description="The end of what it printed; empty in lists.")


class RunList(Answer):
    """Runs, newest first."""

    runs: list[RunAnswer]
    counts: dict[str, int] = Field(description="All runs that are remembered, by state.")


class WorkerAnswer(Answer):
    """A worker that lives."""

    name: str
    kind: str = Field(description="`embedded` or `celery`.")
    host: str
    pid: int
    queues: list[str]
    runs: list[str] = Field(description="What it is at, as far as it says.")
    started: float
    seen: float


class WorkerList(Answer):
    """Workers, the oldest first."""

    workers: list[WorkerAnswer]


class RunsQuery(Strict):
    """Which runs."""

    job: str = Field("", max_length=100, description="Only of this job.")
    state: State | Literal[""] = Field("", description="Only in this state.")
    limit: int = Field(50, ge=1, le=500, description="At most so many.")
    before: str = Field("", max_length=100, description="Only those older than the run with this id.")


class StartBody(Strict):
    """What a run is started with."""

    parameters: dict[str, Any] = Field(default_factory=dict, description="As the job takes them; see the list of jobs.")


class JobAnswer(Answer):
    """One job."""

    name: str
    title: str
    queue: str
    alone: bool
    time_limit_s: float
    schedule: str = Field(description="Crontab in force (UTC); empty: only when asked for.")
    next: float = Field(description="When it is due next; 0: when asked for.")
    last: float = Field(description="When the schedule started it last; 0: never.")
    parameters: dict[str, Any] | None = Field(description="JSON Schema of its parameters; null: any JSON object.")


class JobList(Answer):
    """Every job that is installed."""

    jobs: list[JobAnswer]


def routes(runtime: Runtime) -> Topic:
    """See the module."""
    topic = Topic("runs", "Background jobs: what there is, what runs, what came of it.")
    settings = runtime.settings
    runs = Runs(runtime.database, settings.worker_lease_s, settings.run_attempts)
    workers = Workers(runtime.database)

    def shown(run: Run) -> RunAnswer:
        if run.state != QUEUED:
            return run_answer(run)
        at_work = {one.job for one in runs.list(job=run.job, state=RUNNING)}
        problem = runtime.upkeep.problems.get("dispatch", "")
        return run_answer(run, waiting_for(run, at_work, workers.alive(), problem))

    @topic.operation("GET", "/jobs", role="reader", summary="Every job, with its schedule.", answer=JobList)
    def list_jobs() -> JobList:
        jobs, fired = load_jobs(), runs.fired()
        crontabs = schedule_of(jobs.values(), settings)
        return JobList(jobs=[_job(one, crontabs.get(one.name, ""), fired.get(one.name, 0.0)) for one in jobs.values()])

    @topic.operation(
        "POST",
        "/jobs/<job>/runs",
        role="operator",
        summary="Start a job.",
        body=StartBody,
        answer=RunAnswer,
        status=202,
        errors=(404,),
    )
    def start_job(job: str, body: StartBody) -> RunAnswer:
        """The run waits in its queue until a worker is free; ask for it by its id to see how far it is."""
        wanted = known_job(load_jobs(), job)
        return shown(runs.get(runs.submit(wanted, body.parameters, caller().name)))

    @topic.operation("GET", "/runs", role="reader", summary="The latest runs.", query=RunsQuery, answer=RunList)
    def list_runs(query: RunsQuery) -> RunList:
        found = runs.list(query.job, query.state, query.limit, query.before)
        at_work, alive = {one.job for one in runs.list(state=RUNNING)}, workers.alive()
        problem = runtime.upkeep.problems.get("dispatch", "")
        return RunList(
            runs=[run_answer(one, waiting_for(one, at_work, alive, problem), with_log=False) for one in found],
            counts=runs.count(),
        )

    @topic.operation("GET", "/workers", role="reader", summary="The workers that live.", answer=WorkerList)
    def list_workers() -> WorkerList:
        return WorkerList(workers=[WorkerAnswer.model_validate(one) for one in workers.alive()])

    @topic.operation(
        "GET", "/runs/<run_id>", role="reader", summary="One run: how far it is.", answer=RunAnswer, errors=(404,)
    )
    def get_run(run_id: str) -> RunAnswer:
        return shown(runs.get(run_id))

    @topic.operation(
        "POST",
        "/runs/<run_id>/cancel",
        role="operator",
        summary="Cancel a run.",
        answer=RunAnswer,
        errors=(404, 409),
    )
    def cancel_run(run_id: str) -> RunAnswer:
        """A waiting run ends at once, a running one when its job next looks (within seconds)."""
        return shown(runs.cancel(run_id))

    @topic.operation(
        "POST",
        "/runs/<run_id>/retry",
        role="operator",
        summary="Try a failed, skipped or cancelled run again.",
        answer=RunAnswer,
        status=202,
        errors=(404, 409),
    )
    def retry_run(run_id: str) -> RunAnswer:
        """It goes on from its last checkpoint, where its job writes such."""
        return shown(runs.retry(run_id, caller().name))

    return topic


def known_job(jobs: Mapping[str, Job], name: str) -> Job:
    """The job of this name. Raises UnknownJob."""
    if name not in jobs:
        raise UnknownJob(f"there is no job {name[:100]!r}: there are {', '.join(jobs) or 'none'}")
    return jobs[name]


def run_answer(run: Run, waiting: str = "", with_log: bool = True) -> RunAnswer:
    """A run as the API shows it."""
    values = {name: getattr(run, name) for name in RunAnswer.model_fields if name != "waiting"}
    return RunAnswer(waiting=waiting, **values | ({} if with_log else {"log": ""}))


def waiting_for(run: Run, at_work: Collection[str], workers: Sequence[WorkerSeen], problem: str) -> str:
    """What a queued run waits for, in words; empty for any other.

    Args:
        at_work: jobs that run now. problem: of handing runs to the broker.
    """
    if run.state != QUEUED:
        return ""
    if run.due > time.time() + 1.0:
        return "its next attempt"
    if run.alone and run.job in at_work:
        return "another run of this job"
    if problem:
        return problem
    if not any(run.queue in one.queues for one in workers):
        return "a worker: none is alive (endcap serve, endcap worker)"
    return "its turn"


def _job(job: Job, crontab: str, last: float) -> JobAnswer:
    return JobAnswer(
        name=job.name,
        title=job.title,
        queue=job.queue,
        alone=job.alone,
        time_limit_s=job.time_limit_s,
        schedule=crontab,
        next=next_time(crontab, time.time()) if crontab else 0.0,
        last=last,
        parameters=job.takes.model_json_schema() if job.takes else None,
    )
