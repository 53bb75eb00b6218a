"""The job ``policy``: learn a ranking policy from the log, judge it, and put it into force if the gate lets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from endcap.jobs import Job, JobContext

#: Places whose examination a run tells of.
_PLACES = 12


class Parameters(BaseModel):
    """How to learn."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["incumbent", "thompson", "linucb", "q", "softmax"] = Field("incumbent", description="Which policy.")
    days: float = Field(90.0, gt=0, le=3650, description="How far back the log is read.")
    seed: int = Field(0, ge=0, description="Of what is random in learning.")
    promote: bool = Field(True, description="Put it into force if its gate lets it.")


def run(context: JobContext) -> Mapping[str, Any]:
    """What was learnt, and what the gate said. Raises TooLittle: the live policy stays."""
    from endcap.errors import TooLittle
    from endcap.policy.base import Exploration
    from endcap.policy.opening import POLICY, profiles_of
    from endcap.policy.saving import save_policy
    from endcap.registry import open_registry
    from endcap.runtime import open_database
    from endcap_workers.policies.gate import PolicyGate
    from endcap_workers.policies.learning import learn, read_decisions

    settings = context.settings
    given = Parameters.model_validate(dict(context.parameters))
    arms = profiles_of(settings)
    database = open_database(settings)
    try:
        decisions = read_decisions(
            settings, database, arms, given.days, lambda share: context.progress(0.6 * share, 1.0, "reading rankings")
        )
        looked = decisions.examination
        told = {
            "decisions": len(decisions), "left_out": dict(decisions.left_out),
            "examination": [] if looked is None else looked.propensity[:_PLACES].round(3).tolist(),
        }  # fmt: skip
        version = f"policy-{context.run_id}"
        try:
            learnt = learn(
                decisions, arms, given.kind, Exploration(settings.policy_exploration), version,
                settings.policy_discount, given.seed,
            )  # fmt: skip
        except TooLittle as error:
            raise TooLittle(str(error), told) from None
        context.progress(0.7, 1.0, "judging")
        folder = settings.models_folder / version
        save_policy(learnt.policy, folder)
        registry = open_registry(settings, database)
        provenance = {
            "kind": given.kind, "run": context.run_id, "taught": learnt.taught, "judged_from": learnt.judged_from,
            "first": float(decisions.time[0]), "last": float(decisions.time[-1]), "seed": given.seed,
        }  # fmt: skip
        metrics = {"decisions": len(decisions), "mean reward": float(decisions.reward.mean())}
        candidate = registry.add_candidate(POLICY, version, folder, metrics, provenance)
        live = registry.live(POLICY)
        against = live.version if live else ""
        verdict = PolicyGate(settings).judge(candidate, live)
        registry.judged(POLICY, version, verdict, f"run {context.run_id}", against)
        reasons, promoted = verdict.reasons, False
        if verdict.passed and given.promote:
            kept = registry.promote_unless_pinned(POLICY, version, f"run {context.run_id}", against)
            reasons, promoted = (*reasons, kept) if kept else reasons, not kept
    finally:
        database.close()
    return {
        **told, "version": version, "promoted": promoted,
        "reason": " ".join(reasons), "numbers": dict(verdict.numbers),
    }  # fmt: skip


JOB = Job("policy", "Learn how to rank from what rankings earned", run, schedule="30 3 * * *", takes=Parameters)
