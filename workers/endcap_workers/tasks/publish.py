"""The job that gives a version to Triton without putting it into force: a repository that was lost is filled again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext


class Which(BaseModel):
    """What is published."""

    model_config = ConfigDict(extra="forbid")

    kind: str = Field("interest", max_length=64)
    version: str = Field("", max_length=64, description="This version; empty: the live one.")


def run(context: JobContext) -> Mapping[str, Any]:
    """Write it into the repository, have it loaded, ask it the bundle's probe."""
    from endcap.errors import InvalidInput
    from endcap.registry import open_registry
    from endcap.runtime import open_database

    which = Which.model_validate(dict(context.parameters))
    database = open_database(context.settings)
    try:
        registry = open_registry(context.settings, database)
        found = registry.get(which.kind, which.version) if which.version else registry.live(which.kind)
        if found is None:
            raise InvalidInput(f"no version of {which.kind} is live: name one")
        registry.publish(found)
        return {"kind": found.kind, "version": found.version}
    finally:
        database.close()


JOB = Job("publish", "Give a version to Triton without putting it into force", run, takes=Which, time_limit_s=600.0)
