"""Ranking policies, rules and experiments as the settings ask for them."""

from __future__ import annotations

from pathlib import Path

from endcap.errors import ConfigurationError, InvalidInput
from endcap.experiments.models import ArmModels
from endcap.experiments.service import Experiments, LiveExperiments
from endcap.policy.arrange import Arranger
from endcap.policy.base import Exploration
from endcap.policy.blend import DEFAULT_BLENDS, Blend
from endcap.policy.fixed import FixedPolicy
from endcap.policy.live import Exposure, LivePolicy
from endcap.policy.sponsored import Auction
from endcap.registry import Registry, open_registry
from endcap.settings import Settings
from endcap.stores.database import Database
from endcap.stores.rankings import Rankings
from endcap.stores.rules import Rules

POLICY = "policy"
#: Rankings of one shopper that frequency caps look back at, at most.
_MOST_LOOKED_AT = 200


def profiles_of(settings: Settings) -> tuple[Blend, ...]:
    """The ranking profiles that policies choose between.

    Raises:
        ConfigurationError: one of the setting's is none, or two have the same name.
    """
    if not settings.ranking_profiles:
        return DEFAULT_BLENDS
    try:
        found = tuple(Blend.from_json(one) for one in settings.ranking_profiles)
    except InvalidInput as error:
        raise ConfigurationError(f"ranking_profiles: {error}") from None
    if len({one.name for one in found}) < len(found):
        raise ConfigurationError("ranking_profiles: every profile needs a name of its own")
    return found


def open_arranger(settings: Settings) -> Arranger:
    """An arranger with the standard policy.

    Raises:
        ConfigurationError: see :func:`profiles_of`.
    """
    return Arranger(standard_policy(settings), no_exploration=frozenset(settings.no_exploration_segments))


def standard_policy(settings: Settings) -> FixedPolicy:
    """What serves where nothing was learnt: the first profile; with ``learn_policy`` the others within the bound."""
    profiles = profiles_of(settings)
    if not settings.learn_policy:
        return FixedPolicy(profiles[:1])
    return FixedPolicy(profiles, Exploration(settings.policy_exploration, 1.0))


def auction_of(settings: Settings) -> Auction:
    """How sponsored places are sold.

    Raises:
        ConfigurationError: positions that cannot be sold.
    """
    return Auction(
        tuple(settings.sponsored_places), settings.sponsored_reserve, settings.sponsored_pricing == "second_price"
    )


def follow_policy(
    settings: Settings, database: Database, arranger: Arranger, rankings: Rankings, models: ArmModels | None = None
) -> LivePolicy:
    """What keeps the arranger in step with the database. ``models``: of the experiments' arms."""
    registry = open_registry(settings, database)

    def impressions(shopper: str, since: float) -> list[str]:
        found = rankings.of_shopper(shopper, _MOST_LOOKED_AT)
        return [product for one in found if one.time >= since for product in one.products]

    profiles = {one.name: one for one in profiles_of(settings)}
    experiments = LiveExperiments(
        Experiments(database, settings.control_share), profiles, frozenset(settings.no_exploration_segments), models
    )
    arranger.assigner = experiments
    return LivePolicy(
        arranger,
        Rules(database),
        lambda: live_policy(registry),
        auction_of(settings),
        Exposure(impressions),
        experiments.look,
    )


def live_policy(registry: Registry) -> tuple[str, Path] | None:
    """Version and folder of the live policy; None: none was promoted.

    Raises:
        UnknownVersion: its files are gone.
    """
    found = registry.live(POLICY)
    return None if found is None else (found.version, registry.folder(found))
