"""The server: gunicorn with threads, configured by Endcap's settings instead of a file of its own."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.glogging import Logger as GunicornLogger  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

from endcap.errors import ConfigurationError, EndcapError
from endcap.logs import set_up_logs
from endcap.settings import Settings
from endcap.tracing import end_traces, set_up_traces
from endcap_reranker.draining import drain, draining
from endcap_reranker.exposure import check_doors
from endcap_reranker.worker_beside import worker_beside

#: prometheus_client reads it when imported, so this module imports nothing that imports it.
MULTIPROCESS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
GRACE_S = 30


class Server(BaseApplication):
    """Each worker process opens a runtime of its own after the fork, and closes it when it ends."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runtime: Any = None
        super().__init__()

    def load_config(self) -> None:
        """Translate the settings."""
        settings = self.settings
        bind = [f"{_bracketed(settings.host)}:{settings.port}"]
        if settings.admin_port:
            bind.append(f"{_bracketed(settings.admin_host)}:{settings.admin_port}")
        values = {
            "bind": bind,
            "worker_class": Worker,
            "logger_class": Logger,
            "loglevel": settings.log_level,
            # Whom to believe about addresses and schemes, endcap_reranker.proxies decides.
            "forwarded_allow_ips": "",
            "workers": settings.server_workers,
            "threads": settings.server_threads,
            "graceful_timeout": GRACE_S,
            "timeout": max(30, int(2 * settings.engine_timeout_s) + 5),
            "keepalive": 75,
            "limit_request_line": 8190,
            # A shopper id that is far too long is answered as a search of nobody's, not as a bad request.
            "limit_request_field_size": 32_768,
            # Nothing here wants managing by a socket in the home folder, which every other server there shares.
            "control_socket_disable": True,
            "proc_name": "endcap",
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108 (heartbeats, off the disk)
            "worker_exit": self._worker_exit,
            "child_exit": _child_exit,
        }
        for name, value in values.items():
            if name in self.cfg.settings:  # some are newer than the oldest gunicorn that will do
                self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, in a worker.

        Raises:
            SystemExit: it cannot be set up. The reason is printed, and gunicorn does not try again.
        """
        # Background threads count and sort in Python. By default one may keep a search waiting for 5 ms at a time.
        sys.setswitchinterval(0.001)
        from endcap.runtime import open_runtime
        from endcap_reranker.app import create_app

        try:
            set_up_traces(self.settings, "endcap")
            self._runtime = open_runtime(self.settings)
            return create_app(self._runtime)
        except EndcapError as error:
            print(f"endcap: {error}", file=sys.stderr, flush=True)
            raise SystemExit(Arbiter.WORKER_BOOT_ERROR) from None

    def run(self) -> None:
        """Until told to stop."""
        try:
            Master(self).run()
        except RuntimeError as error:
            raise ConfigurationError(f"the server cannot start: {error}") from None

    def _worker_exit(self, server: Any, worker: Any) -> None:
        end_traces()
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None


class Master(Arbiter):  # type: ignore[misc, unused-ignore]
    """The first process. Told to stop, it first says so on ``/readyz`` for ``drain_s`` seconds."""

    def handle_term(self) -> None:
        """SIGTERM."""
        wait = self.app.settings.drain_s
        if wait and not draining():
            drain()
            self.log.info("Stopping in %g s: /readyz says so from now on", wait)
            until = time.monotonic() + wait
            while (left := until - time.monotonic()) > 0:
                # What else is signalled meanwhile (a worker's end, a second SIGTERM, Ctrl-C) must not have to wait.
                pending = list(self.wait_for_signals(timeout=min(left, 0.5)))
                if signal.SIGCHLD in pending:
                    self.reap_workers()
                if {signal.SIGINT, signal.SIGQUIT} & set(pending):
                    break
                self.murder_workers()
                self.manage_workers()
        super().handle_term()


class Worker(ThreadWorker):  # type: ignore[misc, unused-ignore]
    """Told to stop, it takes in whoever has connected already: they were let in, so they are answered."""

    def set_accept_enabled(self, enabled: bool) -> None:
        """See gunicorn."""
        if not enabled and not self.alive and self._accepting:
            for listener in self.sockets:
                before = -1
                while before != self.nr_conns:
                    before = self.nr_conns
                    self.accept(listener)
        super().set_accept_enabled(enabled)


class Logger(GunicornLogger):  # type: ignore[misc, unused-ignore]
    """gunicorn's lines go where Endcap's go, in the same form. Requests are logged by Endcap itself."""

    def setup(self, cfg: Any) -> None:
        """See gunicorn."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


def _child_exit(server: Any, worker: Any) -> None:
    if os.environ.get(MULTIPROCESS_VARIABLE):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)


def serve(settings: Settings) -> None:
    """Serve until told to stop (SIGTERM, SIGINT): requests under way are finished first.

    Raises:
        ConfigurationError: an address cannot be listened on, or the admin API would be open to the world.
    """
    set_up_logs(settings)
    check_doors(settings)
    check_address(settings.host, settings.port)
    if settings.admin_port:
        check_address(settings.admin_host, settings.admin_port)
    scratch = ""
    if settings.server_workers > 1 and not os.environ.get(MULTIPROCESS_VARIABLE):
        scratch = os.environ[MULTIPROCESS_VARIABLE] = tempfile.mkdtemp(prefix="endcap-metrics-")
    owner = os.getpid()
    beside = worker_beside(settings) if settings.embedded_worker else None
    if beside is not None:
        beside.start()
    try:
        Server(settings).run()
    finally:
        # run() ends by SystemExit, in the workers too: only the first process tidies up.
        if os.getpid() == owner:
            if beside is not None:
                beside.close()
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)


def check_address(host: str, port: int) -> None:
    """Find out early, and say plainly, that the address cannot be had.

    Raises:
        ConfigurationError: it is taken, not this machine's, or not permitted.
    """
    if port == 0:
        return
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is taken: stop what listens there, or choose another (--port, ENDCAP_PORT)"
        elif error.errno == errno.EACCES:
            reason = f"port {port} needs more rights: choose one from 1024 up (--port, ENDCAP_PORT)"
        else:
            reason = f"{error.strerror or error}: set an address of this machine (--host, ENDCAP_HOST)"
        raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
