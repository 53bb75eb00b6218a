"""Background work, models, what ranks."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, field_validator


class Learning(BaseModel):
    """Background work, models, what ranks."""

    # Background work
    embedded_worker: bool = Field(
        True,
        description="`endcap serve` runs a worker beside itself. False: run `endcap worker`, or with `redis_url` set "
        "Celery's workers (`endcap worker --celery`), which the jobs are then sent to.",
    )
    schedule: dict[str, str] = Field(
        default_factory=dict,
        description="Job -> crontab (minute hour day month weekday, UTC), instead of the job's own; `off`: only when "
        "asked for.",
    )
    worker_light: int = Field(2, ge=1, description="Light jobs that one worker runs at once; of heavy ones it is one.")
    worker_lease_s: float = Field(
        30.0, ge=1, description="A worker that has been silent for so many seconds is dead: its run is taken up again."
    )
    run_attempts: int = Field(
        3, ge=1, description="How often a run is tried whose worker died or whose fault may pass."
    )
    keep_runs: int = Field(1_000, ge=1, description="Ended runs that are remembered.")

    # Models: what may go live
    keep_versions: int = Field(10, ge=2, description="Versions of each kind of model whose files are kept.")
    gate_min_searches: int = Field(
        200, ge=1, description="Held-out searches below which nothing is promoted by itself."
    )
    gate_max_loss: float = Field(
        0.01, ge=0, description="How much worse (share of the live version's NDCG) a candidate may be over all."
    )
    gate_max_segment_loss: float = Field(
        0.03, ge=0, description="The same for new shoppers, for new products and for heavy shoppers, each by itself."
    )
    gate_max_latency_ms: float = Field(
        10.0, gt=0, description="95th percentile of scoring a window in process, above which nothing is promoted."
    )
    gate_max_calibration_error: float = Field(
        0.1, gt=0, description="Expected calibration error above which nothing is promoted."
    )
    gate_max_drift: float = Field(
        1.0, gt=0, description="Population stability index of the scores against the live version's, at most."
    )
    shadow_sample: float = Field(
        0.05, ge=0, le=1, description="Share of the rankings that a shadow version scores as well, in the background."
    )

    @field_validator("schedule")
    @classmethod
    def _crontabs(cls, value: dict[str, str]) -> dict[str, str]:
        from endcap.schedule import check_crontab

        for job, crontab in value.items():
            try:
                check_crontab(crontab)
            except ValueError as error:
                raise ValueError(f"{job}: {error}") from None
        return value

    # Ranking policy, business rules, experiments
    ranking_profiles: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Ranking profiles that a policy chooses between, the first one where nothing was learnt: "
        '`[{"name": "interest", "weights": {"interest": 1}}, …]`; empty: the ones in the package.',
    )
    learn_policy: bool = Field(
        False, description="Try out other ranking profiles within the bound below, before a policy was learnt, too."
    )
    policy_exploration: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of rankings that a learnt policy may make by another than the best profile.",
    )
    no_exploration_segments: list[str] = Field(
        default_factory=list, description="Segments of shoppers on whom nothing is tried out, experiments included."
    )
    internal_segments: list[str] = Field(
        default_factory=list, description="Segments of staff and testers: their behaviour teaches and decides nothing."
    )
    segment_header: str = Field("X-Endcap-Segment", description="Request header that names the shopper's segment.")
    reward_click: float = Field(0.1, ge=0, description="What a click counts when a policy learns.")
    reward_cart: float = Field(0.3, ge=0, description="What a product put into the cart counts.")
    reward_purchase: float = Field(1.0, ge=0, description="What a purchase counts.")
    reward_hours: float = Field(24.0, gt=0, description="Hours after a ranking in which reactions to it count.")
    policy_discount: float = Field(
        0.5, ge=0, lt=1, description="What a reward of a session's next ranking counts; 0: only this ranking's."
    )
    control_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of shoppers who never take part in an experiment: the yardstick of them all.",
    )
    experiment_models_mb: float = Field(
        512.0,
        ge=0,
        description="Megabytes of models that a server loads for the arms of experiments, beside the live one.",
    )
    sponsored_places: list[int] = Field(
        default_factory=lambda: [1, 4], description="Positions, from 1, that sponsored products may take; empty: none."
    )
    sponsored_reserve: float = Field(0.0, ge=0, description="Least price of a click on a sponsored product.")
    sponsored_pricing: str = Field(
        "second_price", pattern="^(second_price|first_price)$", description="Whether winners pay the runner-up's bid."
    )
    margin_attribute: str = Field("margin", description="Attribute that says what the shop earns by one piece.")
    added_attribute: str = Field("added_at", description="Attribute with the day that a product came into the range.")
