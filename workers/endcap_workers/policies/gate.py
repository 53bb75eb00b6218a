"""May a learnt policy replace the live one? Off-policy evaluation on decisions that taught it nothing says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from endcap.errors import BundleRefused
from endcap.gates import Verdict
from endcap.ope import Gate as Demands
from endcap.ope import LoggedChoices, judge
from endcap.ope.verdict import Decision, Judgement
from endcap.policy.base import BasePolicy
from endcap.policy.decisions import Decisions
from endcap.policy.opening import standard_policy
from endcap.policy.saving import load_policy
from endcap.runtime import open_database
from endcap.settings import Settings
from endcap.stores.versions import Version
from endcap_workers.policies.learning import read_decisions, reward_model


class PolicyGate:
    """The gate of the kind ``policy``. It passes only where SNIPS and DR agree, each with its lower bound above what
    the live policy is estimated to earn, and the effective sample is large enough."""

    def __init__(self, settings: Settings, demands: Demands | None = None) -> None:
        self._settings, self._demands = settings, demands or Demands()

    def judge(self, candidate: Version, live: Version | None) -> Verdict:
        """See :class:`endcap.gates.Gate`.

        Raises:
            BundleRefused: the candidate's file is not sound.
            InvalidInput: the log's propensities are missing or 0.
            LogUnavailable: the log cannot be read now.
        """
        models = self._settings.models_folder
        new = load_policy(models / candidate.folder)
        standing: BasePolicy = standard_policy(self._settings)
        refused = ""
        if live is not None and live.version != candidate.version:
            try:
                standing = load_policy(models / live.folder)
            except BundleRefused as error:
                refused = str(error)
        database = open_database(self._settings)
        try:
            decisions = read_decisions(self._settings, database, new.arms)
        finally:
            database.close()
        judged_from = float(candidate.provenance.get("judged_from", 0.0))
        found = compare(new, standing, decisions, judged_from, self._demands)
        reasons = [found.reason]
        if refused:
            reasons.append(
                f"The live version could not be read ({refused}): it was judged against the standard policy."
            )
        return Verdict(found.decision is Decision.PROMOTE, tuple(reasons), _numbers(found, len(decisions)))


def compare(
    new: BasePolicy, standing: BasePolicy, decisions: Decisions, judged_from: float, demands: Demands
) -> Judgement:
    """The candidate and the live policy on the same decisions, all after ``judged_from``."""
    later = decisions.take(decisions.time > judged_from)
    older = decisions.take(decisions.time <= judged_from)
    if not len(later):
        return Judgement(
            Decision.TOO_LITTLE_DATA,
            "Too little data: no decision since the candidate was taught has a complete reward yet. Live stays.",
            0.0, 0.0, 0, {}, {},
        )  # fmt: skip
    expected = reward_model(older, len(new.arms))(later.contexts) if len(older) else None
    names = [arm.name for arm in standing.arms]
    missing = sorted(set(names) - {arm.name for arm in new.arms})
    if missing:
        return Judgement(
            Decision.KEEP,
            f"The live policy has ranking profiles that the candidate does not know ({', '.join(missing)}): on this "
            "log they cannot be compared. Live stays.",
            0.0, 0.0, 0, {}, {},
        )  # fmt: skip
    mine = new.distribution(later.contexts)
    theirs = standing.distribution(later.contexts)
    aligned = mine * 0.0
    for column, arm in enumerate(new.arms):
        if arm.name in names:
            aligned[:, column] = theirs[:, names.index(arm.name)]
    # Exploration within a bound makes small propensities, and clipping at less than their inverse a wrong answer.
    demands = replace(demands, clip=max(demands.clip, 1.0 / float(later.propensity.min())))
    log = {"reward": later.reward, "action": later.action, "propensity": later.propensity, "predicted": expected}
    return judge(
        LoggedChoices.from_distribution(distribution=mine, **log),
        LoggedChoices.from_distribution(distribution=aligned, **log),
        demands,
        later.shopper,
    )


def _numbers(found: Judgement, decisions: int) -> dict[str, Any]:
    return {
        "decision": found.decision.value,
        "decisions": decisions,
        "effective": found.effective,
        "rewarded": found.rewarded,
        "live": found.live,
        "estimate": dict(found.estimate),
        "lower": dict(found.lower),
    }
