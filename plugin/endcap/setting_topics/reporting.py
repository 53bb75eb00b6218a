"""Fraud, demand, and the reports on them."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field, SecretStr, field_validator


class Reporting(BaseModel):
    """Fraud, demand, and the reports on them."""

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
    lead_time_days: float = Field(
        7.0, gt=0, le=3_650, description="Days between order and delivery, where a product has none."
    )
    lead_time_deviation_days: float = Field(2.0, ge=0, le=3_650, description="Their standard deviation.")
    lead_time_attribute: str = Field("", description="The product attribute with its lead time in days.")
    on_order_attribute: str = Field(
        "", description="The product attribute with pieces that are ordered and on the way."
    )
    review_days: float = Field(7.0, ge=0, le=3_650, description="Days between two orders to a supplier.")
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
        description="Where e-mail goes: `smtp://user:password@host:587` (by STARTTLS, without which no password is "
        "sent) or `smtps://…`.",
    )
    smtp_from: str = Field("endcap@localhost", description="The sender of e-mail.")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}; Europe/Berlin is one") from None
        return value
