"""One OpenTelemetry trace over the whole chain of a request, exported by OTLP/HTTP when the environment asks for it.

The standard variables rule: `OTEL_EXPORTER_OTLP_ENDPOINT` turns tracing on, `OTEL_TRACES_SAMPLER` says which sessions
are traced (`parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.01`: one in a hundred). What is not sampled has
no object here, so that it costs a look at None. No prompt, no output and no key ever goes into a span.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_log = structlog.get_logger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
Attribute = str | int | float | bool


class Traced:
    """A span that is recorded; `end` it."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def traceparent(self) -> str:
        """What another process continues from: https://www.w3.org/TR/trace-context/#traceparent-header."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def begin(self, name: str, **attributes: Attribute) -> Traced:
        """A span inside this one."""
        from opentelemetry.trace import set_span_in_context

        inside = set_span_in_context(self._span)
        return Traced(self._tracer, self._tracer.start_span(name, context=inside, attributes=attributes))

    def note(self, name: str, began: float, ended: float, **attributes: Attribute) -> Traced:
        """A span inside this one that is over; its times by `perf_counter`."""
        from opentelemetry.trace import set_span_in_context

        zero = time.time_ns() - int(perf_counter() * 1e9)
        inside = set_span_in_context(self._span)
        span = self._tracer.start_span(name, context=inside, start_time=zero + int(began * 1e9), attributes=attributes)
        span.end(zero + int(ended * 1e9))
        return Traced(self._tracer, span)

    def end(self, error: BaseException | None = None, **attributes: Attribute) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:500])
        self._span.end()


class Tracing:
    """Begins traces, and joins those that others began."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("corolla")

    def begin(self, name: str, **attributes: Attribute) -> Traced | None:
        """A span of whatever trace this task is in, or of a new one; None where that is not sampled."""
        return self._recorded(self._tracer.start_span(name, attributes=attributes))

    def join(self, traceparent: str | None, name: str, **attributes: Attribute) -> Traced | None:
        """A span inside another process's; None where it names none, in so many hex digits, or does not sample it."""
        from opentelemetry.trace import get_current_span
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        if traceparent is None:
            return None
        theirs = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        if not get_current_span(theirs).get_span_context().is_valid:
            return None
        return self._recorded(self._tracer.start_span(name, context=theirs, attributes=attributes))

    def _recorded(self, span: Span) -> Traced | None:
        return Traced(self._tracer, span) if span.is_recording() else None

    def close(self) -> None:
        """Export what is left; blocks while that takes."""
        self._provider.shutdown()


def tracing_from_environment(service: str, environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """None unless the environment names an OTLP endpoint; a missing library is said in the log, and traces nothing."""
    if not any(environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        _log.warning("nothing is traced: install corolla[tracing]", missing=error.name)
        return None
    name = environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
