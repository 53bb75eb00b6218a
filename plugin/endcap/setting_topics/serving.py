"""What shoppers meet: the hook, their events and profiles, the server."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class Serving(BaseModel):
    """What shoppers meet: the hook, their events and profiles, the server."""

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
    profile_bytes: int = Field(
        4_000,
        ge=500,
        le=100_000,
        description="Bytes of the largest profile of a shopper: some 900 products fit into 4,000.",
    )
    profile_recent: int = Field(
        50,
        ge=1,
        le=1_000,
        description="Latest actions remembered per shopper (5 to 11 bytes each; at most a third of them all).",
    )
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
