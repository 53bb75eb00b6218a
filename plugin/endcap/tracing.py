"""Traces for OpenTelemetry: spans around the parts of a request, sent to a collector where one is set.

Without the setting ``otlp_endpoint`` nothing of OpenTelemetry is imported, and a span costs a function call.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from endcap import __version__
from endcap.errors import ConfigurationError
from endcap.settings import Settings

T = TypeVar("T")

_NOTHING: AbstractContextManager[None] = nullcontext()
_provider: Any = None
_tracer: Any = None


def set_up_traces(settings: Settings, service: str) -> None:
    """Begin to trace, where the settings ask for it. Once per process, after it has forked.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    global _provider, _tracer
    if not settings.otlp_endpoint or _tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigurationError(f"otlp_endpoint is set: pip install 'endcap[telemetry]' ({error})") from None
    resource = Resource.create({"service.name": service, "service.version": __version__})
    _provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_share)))
    exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
    _provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000))
    _tracer = _provider.get_tracer("endcap", __version__)


def end_traces() -> None:
    """Send what still waits, and stop."""
    global _provider, _tracer
    if _provider is not None:
        _provider.shutdown()
    _provider = _tracer = None


def span(name: str, **attributes: Any) -> AbstractContextManager[Any]:
    """A span around the ``with``; gives None where nothing is traced."""
    return _NOTHING if _tracer is None else _tracer.start_as_current_span(name, attributes=attributes)


def server_span(name: str, headers: Mapping[str, str], **attributes: Any) -> AbstractContextManager[Any]:
    """The span of a request, part of the caller's trace where its ``traceparent`` says so (W3C Trace Context)."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract({name.lower(): value for name, value in headers.items()})
    return _tracer.start_as_current_span(name, context=parent, kind=SpanKind.SERVER, attributes=attributes)


def carried(work: Callable[..., T]) -> Callable[..., T]:
    """The work, to be done by another thread, as part of the span at hand and of its log lines."""
    here = contextvars.copy_context()

    def run(*args: Any, **named: Any) -> T:
        return here.run(work, *args, **named)

    return run
