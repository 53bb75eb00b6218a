"""Who may see and change the server."""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import BaseModel, Field, SecretStr, field_validator


class Access(BaseModel):
    """Who may see and change the server."""

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
        description="Show `/metrics` and the details of `/readyz` to anyone who reaches them. Otherwise they need a "
        "token of the role reader, or `metrics_token`.",
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
