"""The one table of settings. ``docs/settings.md`` is generated from it and a test holds the two together.

A value comes from, strongest first: a keyword argument, the environment (``ENDCAP_WINDOW=200``), the file named by
``ENDCAP_CONFIG`` (default ``endcap.toml`` in the working directory), the default below. Secrets are ``SecretStr`` and
never printed.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from endcap.errors import ConfigurationError

CONFIG_VARIABLE = "ENDCAP_CONFIG"
#: Variables that only the tests and benchmarks read.
_NOT_SETTINGS = (CONFIG_VARIABLE, "ENDCAP_TEST_", "ENDCAP_SHARED")

logger = logging.getLogger(__name__)


class Settings(BaseSettings):
    """All settings, with their defaults. Everything embedded until one of the ``*_url`` settings says otherwise."""

    model_config = SettingsConfigDict(env_prefix="ENDCAP_", extra="forbid", frozen=True)

    # Where things are kept
    data_dir: Path = Field(Path(".endcap"), description="Folder of the embedded index, the event log and the models.")
    database_url: str = Field("", description="SQLAlchemy URL of the event log; empty: SQLite in the data folder.")
    database_statement_timeout_s: float = Field(
        10.0,
        ge=0,
        description="PostgreSQL gives up a server's statement after so many seconds; 0: as it is set itself. "
        "Jobs and commands are exempt.",
    )
    database_lock_timeout_s: float = Field(
        3.0, ge=0, description="As above, for waiting for a lock that somebody else holds."
    )
    redis_url: str = Field(
        "", description="Redis: profiles shared by all server processes, and the broker of Celery; empty: none."
    )
    triton_url: str = Field("", description="Triton's gRPC address (host:port); empty: score in process.")
    triton_repository: str = Field("", description="Triton's model repository, where `endcap publish` writes to it.")
    triton_device: str = Field(
        "gpu",
        pattern="^(gpu|cpu|python)$",
        description="What Triton runs published models on; `python`: a server that has the python backend only.",
    )
    model_dir: str = Field("", description="Folder of the model bundles; empty: `models` in the data folder.")

    # The search engine
    engine_url: str = Field("", description="Elasticsearch or OpenSearch URL; empty: the embedded engine.")
    engine_api_key: SecretStr = Field(SecretStr(""), description="API key for Endcap's own calls to the engine.")
    engine_username: str = Field("", description="User name for Endcap's own calls, where no API key is used.")
    engine_password: SecretStr = Field(SecretStr(""), description="Password that goes with the user name.")
    engine_ca_file: str = Field("", description="CA bundle that the engine's certificate is checked against.")
    engine_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for the engine.")
    engine_connections: int = Field(32, ge=1, description="Pooled connections to the engine, per server process.")
    index: str = Field("products", description="Index (or alias) that holds the products.")
    searchable_indices: list[str] = Field(
        default_factory=list, description="Indices that may be searched through the hook; empty: only `index`."
    )
    personalized_indices: list[str] = Field(
        default_factory=list, description="Indices whose hits are products and are reordered; empty: only `index`."
    )
    analyzer: str = Field(
        "standard",
        description="Text analyzer of an index that Endcap makes on Elasticsearch, such as a language's: `german`. The "
        "embedded engine strips that language's endings, English ones where it is none's. Rebuild after a change.",
    )
    compounds: str = Field(
        "auto",
        pattern="^(auto|on|off)$",
        description="Find compounds by their last part (Kocher: Wasserkocher), as the titles' own words tell: `auto` "
        "where `analyzer` is of a language that writes them as one word.",
    )
    source_index: str = Field(
        "", description="The shop's own index, where `index` is Endcap's copy of its products (`endcap attach`)."
    )
    source_vector_field: str = Field(
        "",
        description="Field of `source_index` that vectors are written into as well, for kNN queries of the shop's own; "
        "empty: none, and the index is only read.",
    )
    index_place: str = Field(
        "auto",
        pattern="^(auto|engine|embedded)$",
        description="Where `index` is kept: at `engine_url`, or `embedded` in the data folder while the hook stands in "
        "front of `engine_url`; `auto`: at `engine_url` where that is set.",
    )
    synonyms_file: str = Field(
        "", description="Synonyms in Solr's format (`tv, television`; `telly => tv`), beside those of the admin API."
    )

    # The catalogue
    field_roles: dict[str, str] = Field(
        default_factory=dict,
        description="Role -> field of the shop's rows (id, title, description, brand, category, price, stock, image, "
        "url); a category may be several fields, `department,aisle`. What is not named is guessed; other fields become "
        "attributes.",
    )
    catalogue_files: list[str] = Field(
        default_factory=list,
        description="Files (or patterns such as `/feeds/*.csv`) that the job `reindex` reads; empty: what the index "
        "holds is encoded anew.",
    )
    category_separator: str = Field(" > ", description="Between the levels of a category path in one string.")
    text_encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        description="Hub id or folder of a sentence-transformers model, or `package:NAME` for one inside an installed "
        "package; `use-multilingual` for the packaged ONNX model; `none` for keyword search only.",
    )
    augmentation: bool = Field(
        True,
        description="Score products that nobody has bought by the embedding that the live model's generator makes of "
        "their content; also whether the job `augment` trains one.",
    )
    image_encoder: str = Field(
        "sentence-transformers/clip-ViT-B-32",
        description="For search by photo (`endcap photos`): hub id or folder of a CLIP model of sentence-transformers; "
        "`efficientnet-lite0` for the packaged one; `none`.",
    )
    image_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that pictures may be fetched from (`cdn.shop.example`), the products' and the shoppers'.",
    )
    image_dir: str = Field("", description="Folder of product pictures that are named by a path instead of a URL.")
    max_image_bytes: int = Field(10_000_000, ge=1_000, description="Largest picture that is read.")
    photo_searches: int = Field(
        8,
        ge=1,
        description="Searches by photo under way at once per server process, never more than half of `server_threads`: "
        "slow pictures must not keep other searches waiting. More are refused with 503.",
    )
    product_refresh_s: float = Field(5.0, gt=0, description="Seconds between looks for changed products.")

    # The hook
    window: int = Field(100, ge=1, le=10_000, description="Hits that are reordered: the top of the engine's answer.")
    deadline_ms: float = Field(30.0, gt=0, description="Milliseconds that Endcap's own work may take in a search.")
    scoring_threads: int = Field(4, ge=1, description="Searches scored at once per process; more fail open.")
    two_phase: str = Field(
        "auto",
        pattern="^(auto|always|never)$",
        description="Fetch ids for the window and documents for the page only: `auto` where it is cheaper.",
    )
    shopper_header: str = Field("X-Endcap-Shopper", description="Request header that carries the shopper's id.")
    shopper_cookie: str = Field("endcap_shopper", description="Cookie that carries it where the header is absent.")
    shopper_secret: SecretStr = Field(
        SecretStr(""),
        description="If set, shopper ids must be signed with it (itsdangerous Signer); others are anonymous.",
    )
    personalize_header: str = Field("X-Endcap-Personalize", description="`off` gives the engine's own answer.")
    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Largest request body, after decompression.")
    max_searches: int = Field(50, ge=1, description="Searches in one `_msearch`.")
    hook_cursors: bool = Field(
        False,
        description="Let `scroll` and point-in-time searches through the hook. They hold memory in the engine and "
        "name no index: only where every caller is trusted.",
    )
    cors_origins: list[str] = Field(default_factory=list, description="Origins whose pages may call the API.")

    # Events and profiles
    max_events: int = Field(1_000, ge=1, description="Events in one request.")
    max_event_attributes_bytes: int = Field(8_000, ge=0, description="Largest `event_attributes` of one event.")
    retention_days: float = Field(
        0.0, ge=0, description="Days for which events and rankings are kept; 0: for ever. A job deletes older ones."
    )
    log_rankings: float = Field(1.0, ge=0, le=1, description="Share of the rankings served that is logged.")
    log_features: float = Field(
        0.1, ge=0, le=1, description="Share of the logged rankings that is logged with the features as served."
    )
    profile_products: int = Field(505, ge=1, description="Products remembered per shopper (7 bytes each).")
    profile_recent: int = Field(50, ge=1, description="Latest actions remembered per shopper (9 bytes each).")
    profile_cache_mb: float = Field(64.0, gt=0, description="Memory for profiles in process; older ones are reloaded.")
    half_life_days: float = Field(30.0, gt=0, description="After so many days an action counts half in a profile.")
    popularity_half_life_days: float = Field(30.0, gt=0, description="The same for a product's recent popularity.")
    tail_interval_s: float = Field(0.25, gt=0, description="Seconds between looks for events of other processes.")

    # The server
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    server_workers: int = Field(
        1, ge=1, description="Server processes; each learns of the others' events within `tail_interval_s`."
    )
    server_threads: int = Field(32, ge=1, description="Threads per server process.")

    # What it says about itself
    log_format: str = Field("text", pattern="^(text|json)$", description="Lines of the log: for people, or JSON.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="The least that is logged.")
    access_log: bool = Field(False, description="A line in the log per request: route, status, ms, what degraded it.")
    otlp_endpoint: str = Field(
        "", description="OpenTelemetry collector (http://host:4318) that traces are sent to; empty: none are made."
    )
    trace_share: float = Field(1.0, ge=0, le=1, description="Share of the requests that are traced.")
    drain_s: float = Field(
        0.0,
        ge=0,
        le=300,
        description="Told to stop, go on serving for so many seconds with `/readyz` at 503, so that a load balancer "
        "looks elsewhere first.",
    )

    # Who may see and change the server
    admin: str = Field(
        "auto",
        pattern="^(auto|on|off)$",
        description="The admin API and the console: `auto` where the server listens on this machine only, or a token "
        "exists. Both always ask for a token (`endcap token create`).",
    )
    admin_host: str = Field("127.0.0.1", description="Address that `admin_port` listens on.")
    admin_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="A port of their own for the admin API, the console and the metrics, which `port` then refuses; "
        "0: the same port.",
    )
    admin_token: SecretStr = Field(
        SecretStr(""), description="A token with the role admin beside the stored ones; at least 32 characters."
    )
    admin_calls_per_minute: int = Field(300, ge=1, description="Calls of the admin API per token and minute.")
    login_failures_per_minute: int = Field(
        10, ge=1, description="Wrong tokens per address and minute; more are refused unread."
    )
    audit_days: float = Field(730.0, ge=0, description="Days that the audit log is kept; 0: for ever.")
    console_secret: SecretStr = Field(
        SecretStr(""),
        description="Signs the console's sessions, the same for all servers; empty: a key made in `data_dir`.",
    )
    console_hours: float = Field(12.0, gt=0, description="Hours after which the console asks for the token again.")
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses or networks (10.0.0.0/8) of proxies whose `X-Forwarded-For` and `-Proto` are believed.",
    )
    open_metrics: bool = Field(
        False,
        description="Show `/metrics` and the details of `/readyz` to anyone who reaches them. Otherwise they need a token "
        "of the role reader, or `metrics_token`.",
    )
    metrics_token: SecretStr = Field(
        SecretStr(""),
        description="Opens `/metrics` and the details of `/readyz` as a bearer token, while the database is away, too.",
    )

    @field_validator("admin_token", "metrics_token")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < 32:
            raise ValueError("at least 32 characters, for instance of `openssl rand -hex 32`")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for one in value:
            ip_network(one, strict=False)
        return value

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

    # Fraud, demand and reports
    time_zone: str = Field("UTC", description="The shop's time zone (`Europe/Berlin`): whose days are counted.")
    fraud_window_days: float = Field(90.0, gt=0, description="Behaviour that fraud is looked for in.")
    fraud_in_step: float = Field(
        3.5,
        gt=0,
        description="Suspect new shoppers of a product that so many of them choose by chance once in 10^this.",
    )
    fraud_together: float = Field(
        3.0, gt=0, description="The same of who chose two such products: what each of them needs."
    )
    fraud_woken: float = Field(
        7.0,
        gt=0,
        description="The same of shoppers who are not new, but suddenly do far more than they used to.",
    )
    fraud_strain: float = Field(
        8.0, gt=0, description="Suspect who goes beyond the usual in one quantity as happens once in 10^this."
    )
    fraud_rate_per_minute: int = Field(
        600, ge=0, description="Suspect a shopper that sends more events a minute to one server process; 0: none."
    )
    fraud_device_attribute: str = Field(
        "fingerprint", description="The event attribute that tells devices apart, where a storefront sends one."
    )
    fraud_seller_attribute: str = Field("", description="The product attribute that names its seller; empty: none.")
    lead_time_days: float = Field(7.0, gt=0, description="Days between order and delivery, where a product has none.")
    lead_time_deviation_days: float = Field(2.0, ge=0, description="Their standard deviation.")
    lead_time_attribute: str = Field("", description="The product attribute with its lead time in days.")
    on_order_attribute: str = Field(
        "", description="The product attribute with pieces that are ordered and on the way."
    )
    review_days: float = Field(7.0, ge=0, description="Days between two orders to a supplier.")
    service_level: float = Field(0.95, gt=0, lt=1, description="Probability of not running out until delivery.")
    forecast_top_sellers: int = Field(
        400,
        ge=0,
        le=5_000,
        description="Products that sell most, each forecast by who was best for it, costly forecasters among them.",
    )
    currency: str = Field("", max_length=8, description="How reports write money: `€`, `USD`.")
    report_note: str = Field("", max_length=1_000, description="Stands first among the notes of every report.")
    keep_reports: int = Field(30, ge=1, description="Reports kept of each kind and period; the oldest are removed.")
    report_webhook: str = Field("", description="URL that is told of every new report; empty: none.")
    report_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Key of the HMAC-SHA256 in the webhook's `X-Endcap-Signature`."
    )
    report_recipients: list[str] = Field(default_factory=list, description="E-mail addresses that get every report.")
    smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Where e-mail goes: `smtp://user:password@host:587` (STARTTLS where offered) or `smtps://…`.",
    )
    smtp_from: str = Field("endcap@localhost", description="The sender of e-mail.")

    @field_validator("engine_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=config_file())

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}; Europe/Berlin is one") from None
        return value

    @property
    def models_folder(self) -> Path:
        """Where the model bundles lie."""
        return Path(self.model_dir) if self.model_dir else self.data_dir / "models"

    @property
    def hook_indices(self) -> frozenset[str]:
        """Indices that may be searched from outside."""
        return frozenset(self.searchable_indices or [self.index]) | self.product_indices

    @property
    def product_indices(self) -> frozenset[str]:
        """Indices whose hits are products."""
        return frozenset(self.personalized_indices or [self.index])


def load_settings(**overrides: object) -> Settings:
    """The settings in force. An unknown ``ENDCAP_*`` variable is warned about, an unknown key is an error.

    Raises:
        ConfigurationError: naming the setting, what it got and what it takes.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    if named and not Path(named).is_file():
        raise ConfigurationError(f"settings: {CONFIG_VARIABLE} names {named}, which is no file.")
    known = [f"ENDCAP_{name.upper()}" for name in Settings.model_fields]
    for variable in os.environ:
        name = variable.upper()
        if name.startswith("ENDCAP_") and not name.startswith(_NOT_SETTINGS) and name not in known:
            logger.warning("the environment variable %s is no setting%s", variable, _did_you_mean(name, known))
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_input=False)))
    except SettingsError as error:
        problems = f"{error}: lists and tables are written as JSON there"
    except ValueError as error:
        problems = f"{config_file()} is not TOML: {error}"
    raise ConfigurationError(f"settings: {problems}. `endcap settings --markdown` lists them all.")


def settings_environment(settings: Settings) -> dict[str, str]:
    """Variables that give another process of ours the same settings, secrets included."""
    made = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if not isinstance(value, str):
            value = json.dumps(value, default=str) if isinstance(value, list | dict | bool) else str(value)
        made[f"ENDCAP_{name.upper()}"] = value
    return made


def setting_sources() -> dict[str, str]:
    """Where each setting's value comes from: the name of a variable, the name of the file, or ``default``."""
    variables = {variable.upper(): variable for variable in os.environ}
    file = config_file()
    keys = TomlConfigSettingsSource(Settings, toml_file=file)()
    return {
        name: variables.get(f"ENDCAP_{name.upper()}") or (str(file) if name in keys else "default")
        for name in Settings.model_fields
    }


def config_file() -> Path:
    """The file that settings are read from, whether it is there or not."""
    return Path(os.environ.get(CONFIG_VARIABLE) or "endcap.toml")


def _problem(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"there is no setting {name}{_did_you_mean(name, list(Settings.model_fields))}"
    return f"{name}: {item['msg']}"


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
