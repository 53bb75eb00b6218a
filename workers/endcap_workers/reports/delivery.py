"""Tells others of a report: a signed webhook, and e-mail with the report attached."""

from __future__ import annotations

import hashlib
import hmac
import logging
import smtplib
import ssl
import time
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import urllib3

from endcap import __version__
from endcap.errors import ConfigurationError, EndcapError
from endcap.settings import Settings
from endcap_workers.reports.html import render_html
from endcap_workers.reports.model import Report

log = logging.getLogger(__name__)

#: Tries, and seconds before the second; doubled each time.
TRIES, WAIT_S = 4, 2.0
TIMEOUT_S = 15.0
#: Larger attachments than this are refused by many mail servers: the mail then says where the report is.
MOST_ATTACHED = 8_000_000
#: Mail servers to which nothing goes over a network.
_HERE = ("localhost", "127.0.0.1", "::1")


class DeliveryFailed(EndcapError):
    """The report is made and kept, but somebody could not be told."""

    status = 502
    kind = "delivery_failed"


def deliver(
    report: Report, report_id: str, files: Mapping[str, Path], settings: Settings,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:  # fmt: skip
    """Tell everybody whom the settings name; gives ``webhook`` and ``e-mail`` -> ``sent`` or what went wrong.

    Never raises for a receiver that fails: the report is there all the same.
    """
    told: dict[str, str] = {}
    ways: dict[str, Callable[[], None]] = {}
    if settings.report_webhook:
        ways["webhook"] = lambda: call_webhook(report, report_id, settings)
    if settings.report_recipients:
        ways["e-mail"] = lambda: send_mail(report, files, settings)
    for name, way in ways.items():
        told[name] = _tried(name, way, sleep)
    return told


def _tried(name: str, way: Callable[[], None], sleep: Callable[[float], None]) -> str:
    for turn in range(TRIES):
        try:
            way()
            return "sent"
        except ConfigurationError as error:
            log.error("%s: %s", name, error)
            return str(error)
        except DeliveryFailed as error:
            log.warning("%s: %s (try %d of %d)", name, error, turn + 1, TRIES)
            said = str(error)
            if turn + 1 < TRIES:
                sleep(WAIT_S * 2**turn)
        except Exception as error:  # whatever it is, the report is made: it must not be lost with its delivery
            log.exception("%s: not sent", name)
            return f"not sent: {type(error).__name__}: {error}"[:300]
    return said


def signature(secret: str, moment: str, body: bytes) -> str:
    """What ``X-Endcap-Signature`` holds: ``sha256=`` and the HMAC of the time, a dot and the body, in hexadecimal."""
    return "sha256=" + hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()


def call_webhook(report: Report, report_id: str, settings: Settings) -> None:
    """POST what there is to know: the id, the figures, how many rows each table has.

    Raises:
        ConfigurationError: the URL is none.
        DeliveryFailed: no answer, or one that is not 2xx.
    """
    url = settings.report_webhook
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("report_webhook must start with http:// or https://")
    body = orjson.dumps({"event": "report.made", "id": report_id, **summary(report)})
    moment = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Endcap/{__version__}",
        "X-Endcap-Timestamp": moment,
        "X-Endcap-Delivery": report_id,
    }
    secret = settings.report_webhook_secret.get_secret_value()
    if secret:
        headers["X-Endcap-Signature"] = signature(secret, moment, body)
    try:
        # What it says beside its status is not read: it might be without an end.
        answer = urllib3.request(
            "POST", url, body=body, headers=headers, timeout=TIMEOUT_S, retries=False, preload_content=False
        )
        answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise DeliveryFailed(f"the webhook cannot be reached: {type(error).__name__}") from None
    if not 200 <= answer.status < 300:
        raise DeliveryFailed(f"the webhook answered {answer.status}")


def summary(report: Report) -> dict[str, Any]:
    """Plain JSON: everything but the rows."""
    return {
        "kind": report.kind,
        "title": report.title,
        "line": report.line,
        "made": report.made,
        "tiles": [{"title": one.title, "value": one.value, "line": one.line} for one in report.tiles],
        "tables": [{"name": one.name, "title": one.title, "rows": len(one.rows)} for one in report.tables],
        "notes": list(report.notes),
    }


def send_mail(report: Report, files: Mapping[str, Path], settings: Settings) -> None:
    """Send the figures as text, and the report as HTML and as a workbook attached.

    Raises:
        ConfigurationError: ``smtp_url`` is missing or none, an address is none, or a password would go unencrypted.
        DeliveryFailed: the mail server cannot be reached or refuses.
    """
    message = EmailMessage()
    message["Subject"] = f"{report.title}: {report.line}"
    try:
        message["From"] = settings.smtp_from
        message["To"] = ", ".join(settings.report_recipients)
    except ValueError as error:
        raise ConfigurationError(f"smtp_from and report_recipients must be e-mail addresses: {error}") from None
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="endcap.invalid")
    lines = [f"{one.title}: {one.value} {f'({one.line})' if one.line else ''}".rstrip() for one in report.tiles]
    message.set_content("\n".join([report.line, "", *lines, "", *report.notes, "", "The report is attached."]))
    page = render_html(report).encode()
    message.add_attachment(page, maintype="text", subtype="html", filename=f"{report.kind}.html")
    book = files.get("report.xlsx")
    if book is not None and book.stat().st_size + len(page) <= MOST_ATTACHED:
        message.add_attachment(
            book.read_bytes(),
            maintype="application",
            subtype="vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            filename=f"{report.kind}.xlsx",
        )
    _send(message, settings.smtp_url.get_secret_value())


def _send(message: EmailMessage, address: str) -> None:
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError:
        port, url = None, urlsplit("")
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise ConfigurationError("smtp_url must be smtp://[user:password@]host[:port] or smtps://…")
    context = ssl.create_default_context()
    secure = url.scheme == "smtps"
    try:
        if secure:
            server: smtplib.SMTP = smtplib.SMTP_SSL(url.hostname, port or 465, timeout=TIMEOUT_S, context=context)
        else:
            server = smtplib.SMTP(url.hostname, port or 587, timeout=TIMEOUT_S)
        with server:
            server.ehlo()
            if not secure and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
                secure = True
            if url.username and not secure and url.hostname not in _HERE:
                # Whoever sits in between can leave out the offer, and would be told the password.
                raise ConfigurationError(
                    "smtp_url: the mail server offers no STARTTLS, and gets no password: smtps://…"
                )
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            refused = server.send_message(message)
    except (OSError, UnicodeError, smtplib.SMTPException) as error:
        raise DeliveryFailed(f"the mail server refused: {type(error).__name__}: {error}"[:300]) from None
    if refused:
        raise DeliveryFailed(f"the mail server refused {', '.join(refused)}")
