"""A real PostgreSQL with a cluster of its own."""

from __future__ import annotations

import pwd
import shutil
import subprocess
from pathlib import Path

from tests.services.process import Server, ServiceFailed, ServiceMissing, free_port, service_user


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``: the newest that is installed.

    Raises:
        ServiceMissing: there is none.
    """
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for folder in [*folders, *([Path(on_path).resolve().parent] if on_path else [])]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServiceMissing("PostgreSQL's server is not installed (`make services` does it)")


def start() -> tuple[Server, str]:
    """Start one; gives the server and its SQLAlchemy URL. Durability is off: nobody's data is in it."""
    folder, user = programs(), service_user("postgres", "nobody")
    server = Server("postgres", user)
    try:
        data, port = server.folder / "data", free_port()
        made = subprocess.run(
            [folder / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            capture_output=True,
            text=True,
            cwd=server.folder,
            **({"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}),  # type: ignore[arg-type]
        )
        if made.returncode:
            raise ServiceFailed(f"postgres: initdb failed:\n{made.stderr}")
        settings = [f"unix_socket_directories={server.folder}", "fsync=off", "shared_buffers=32MB"]
        server.start(
            [
                *(str(folder / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"),
                *(part for setting in settings for part in ("-c", setting)),
            ],
            lambda: _accepts(folder, port),
            timeout_s=300,
        )
    except BaseException:
        server.stop()
        raise
    return server, f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


def empty(url: str) -> None:
    """Take everything out of the database: the next test finds it as new."""
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


def _accepts(folder: Path, port: int) -> bool:
    command = [folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
    return subprocess.run(command).returncode == 0
