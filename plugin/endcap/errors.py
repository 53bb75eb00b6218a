"""Every error that Endcap raises on purpose, so that a caller can catch at the level that he needs.

``EndcapError`` is the root. ``status`` is the HTTP status the server answers with; ``kind`` is a short stable name
that lands in metrics, logs and the answer's body.
"""

from __future__ import annotations

from collections.abc import Mapping


class EndcapError(Exception):
    """Anything that Endcap reports about itself. The message says what to do."""

    status = 500
    kind = "internal_error"


class ConfigurationError(EndcapError):
    """A setting is missing, malformed or contradicts another one."""

    kind = "configuration_error"


class InvalidInput(EndcapError):
    """What the caller sent cannot be used; the message names the part and the reason."""

    status = 400
    kind = "invalid_input"


class TooLarge(InvalidInput):
    """The body exceeds the configured limit."""

    status = 413
    kind = "too_large"


class TooLittle(EndcapError):
    """What there is does not suffice for this yet: too little behaviour, too few products, no model to go on from.

    Not a fault: what is live stays, and a later try may succeed. A job that raises it ends as *skipped*, with the
    message as its reason and ``numbers`` (plain JSON) beside it.
    """

    status = 409
    kind = "too_little"

    def __init__(self, message: str, numbers: Mapping[str, object] | None = None) -> None:
        super().__init__(message, numbers)
        self.numbers = dict(numbers or {})

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownIndex(EndcapError):
    """The index is not there, or is not one that may be searched through Endcap."""

    status = 404
    kind = "index_not_found"


class EngineError(EndcapError):
    """The search engine answered with an error.

    ``body`` is the engine's own error object, for those who want to pass it on unchanged. Survives pickling.
    """

    kind = "engine_error"

    def __init__(self, message: str, status: int = 502, body: object = None) -> None:
        super().__init__(message, status, body)
        self.message = message
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return self.message


class EngineUnavailable(EngineError):
    """The search engine cannot be reached or did not answer in time."""

    kind = "engine_unavailable"

    def __init__(self, message: str, status: int = 503, body: object = None) -> None:
        super().__init__(message, status, body)


class IndexBusy(EngineError):
    """The index is being rebuilt, or another process is writing it: the same change can be made a little later."""

    kind = "index_busy"
    #: Of the answer.
    headers = {"Retry-After": "10"}  # noqa: RUF012 - never changed

    def __init__(self, message: str, status: int = 409, body: object = None) -> None:
        super().__init__(message, status, body)


class EncoderMismatch(ConfigurationError):
    """The index was built with another encoder; it must be rebuilt before vectors can be used."""

    kind = "encoder_mismatch"


class BundleRefused(EndcapError):
    """A model bundle cannot go live: half written, corrupt, made for another feature specification, or not sane. The
    model that is live stays."""

    status = 409
    kind = "bundle_refused"


class PublishingFailed(EndcapError):
    """A model could not be given to Triton; what it serves stays as it was."""

    status = 502
    kind = "publishing_failed"


class ScorerUnavailable(EndcapError):
    """A scorer cannot answer now; the next one in the order of fallback is asked."""

    status = 503
    kind = "scorer_unavailable"


class DeadlineExceeded(ScorerUnavailable):
    """Endcap's own work would take longer than the shopper may wait."""

    kind = "deadline"
