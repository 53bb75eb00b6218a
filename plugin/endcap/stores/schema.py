"""Which tables the database has, and how it gets those that this version of Endcap wants: Alembic's migrations.

Migrations lie in ``migrations/versions``, in one line: ``0001_…py``, ``0002_…py``. Opening a database brings it up to
date, under a lock, so that any number of processes may start at once. A database that is up to date already costs one
question and no import of Alembic. docs/data.md says how to add a migration.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from endcap.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "migrations"
#: Not Alembic's own name: the database may be another application's, too.
VERSION_TABLE = "endcap_schema"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """``now``: the database's version, empty where it has none yet. ``newest``: what this Endcap wants."""

    now: str
    newest: str

    @property
    def up_to_date(self) -> bool:
        """Nothing has to be done."""
        return self.now == self.newest


def known() -> list[str]:
    """The versions that this Endcap knows, oldest first."""
    return sorted(file.stem.partition("_")[0] for file in (FOLDER / "versions").glob("[0-9]*_*.py"))


def status(connection: Connection) -> SchemaStatus:
    """Where the database stands.

    Raises:
        ConfigurationError: a newer Endcap has written it.
    """
    now = ""
    if inspect(connection).has_table(VERSION_TABLE):
        now = str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() or "")  # noqa: S608
    versions = known()
    if now and now not in versions:
        raise ConfigurationError(
            f"the database has schema {now}, this Endcap knows schemas up to {versions[-1]}: a newer Endcap has "
            "written it. Install that one, or restore a backup from before; nothing was changed."
        )
    return SchemaStatus(now, versions[-1])


def upgrade(connection: Connection) -> None:
    """Bring the database up to date, inside the connection's transaction, which must exclude other writers.

    Tables from before there were migrations are taken over as they are: the first migration makes what is missing.

    Raises:
        ConfigurationError: a newer Endcap has written it.
    """
    found = status(connection)
    if found.up_to_date:
        return
    from alembic import command

    log.info("database schema: from %s to %s", found.now or "nothing", found.newest)
    command.upgrade(_config(connection), "head")


def write_migration(connection: Connection, message: str) -> Path:
    """For developers: a new migration with the differences between a database that is up to date and the tables as the
    stores declare them. Read it before you commit it."""
    from alembic import command

    number = f"{int(known()[-1]) + 1 if known() else 1:04d}"
    made: Any = command.revision(_config(connection), message, autogenerate=True, rev_id=number)
    return Path(made.path)


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
