"""Handing runs to Celery's workers: a message per run that is due, which carries nothing but the run's id.

The table of runs stays the truth. What the broker loses (it was away, it was flushed, a worker died with a message) is
sent again; what comes twice finds its run claimed already.
"""

from __future__ import annotations

import logging
from typing import Any

from endcap.errors import ConfigurationError, EndcapError
from endcap.jobs import Job, load_jobs
from endcap.settings import Settings
from endcap.stores.runs import Run, Runs

log = logging.getLogger(__name__)

TASK = "endcap.run"
#: Seconds between looks for runs to send, and after which one that nobody has begun is sent again.
SWEEP_S, AGAIN_S = 1.0, 60.0
#: A worker's own limit comes after the run's: it is for a run that cannot be stopped otherwise.
_MARGIN_S = 60.0


class BrokerUnavailable(EndcapError):
    """The broker cannot be reached: runs wait in their table and are sent when it is back."""

    status = 503
    kind = "broker_unavailable"


def celery_configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings, the same for those who send and those who work."""
    return {
        "broker_url": settings.redis_url,
        "result_backend": settings.redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            # A message whose worker says nothing for so long is delivered anew; a run that is longer is protected by
            # its claim, and one whose worker died by the sweep.
            "visibility_timeout": 3_600,
            "global_keyprefix": "endcap:celery:",
            "socket_connect_timeout": 2.0,
            "socket_timeout": 30.0,
            "retry_on_timeout": True,
        },
        "result_backend_transport_options": {"global_keyprefix": "endcap:celery:", "retry_policy": {"timeout": 5.0}},
        "result_expires": 86_400,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_acks_on_failure_or_timeout": True,
        "task_track_started": True,
        "task_default_queue": "light",
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": 1,  # a message that waits behind a long run helps nobody
        "worker_hijack_root_logger": False,
        "worker_send_task_events": True,
        "timezone": "UTC",
        "enable_utc": True,
    }


class Dispatcher:
    """Sends what is due. Thread-safe; any number of processes may."""

    def __init__(self, settings: Settings, runs: Runs, again_s: float = AGAIN_S) -> None:
        """Raises ConfigurationError where Celery is not installed."""
        try:
            from celery import Celery
        except ImportError:
            raise ConfigurationError("jobs over Redis need Celery: pip install 'endcap[redis]'") from None
        self._app = Celery("endcap")
        # A sender with a result backend would listen for the results, which stand in the table anyway.
        self._app.conf.update({**celery_configuration(settings), "result_backend": "disabled://"})
        self._jobs: dict[str, Job] = load_jobs()
        self._runs = runs
        self._again_s = again_s

    def sweep(self) -> int:
        """Send every run that is due and was not sent lately; gives how many.

        Raises:
            BrokerUnavailable: those not sent are tried again at the next sweep.
        """
        due = self._runs.to_send(self._again_s)
        for place, run in enumerate(due):
            try:
                self._send(run)
            except Exception as error:  # kombu's OperationalError, redis's, the socket's
                self._runs.not_sent([one.id for one in due[place:]])
                raise BrokerUnavailable(f"the broker cannot be reached, jobs wait: {error}") from error
        return len(due)

    def turn(self) -> float:
        """A sweep, for a thread that calls it again and again."""
        self.sweep()
        return 0.0

    def _send(self, run: Run) -> None:
        job = self._jobs.get(run.job)
        limit = job.time_limit_s if job is not None else _MARGIN_S
        self._app.send_task(
            TASK, args=[run.id], task_id=run.id, queue=run.queue, time_limit=limit + _MARGIN_S, retry=False,
            ignore_result=False,
        )  # fmt: skip

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()


def over_celery(settings: Settings) -> bool:
    """Whether runs are sent to Celery's workers."""
    return bool(settings.redis_url) and not settings.embedded_worker
