"""What becomes of the traces of calls: a log line each, or OpenTelemetry spans."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from xai_sidecar.engine.trace import Trace
from xai_sidecar.errors import ConfigError

_log = structlog.get_logger(__name__)


class Tracer(Protocol):
    """Begins the traces of calls, and receives them when they have ended. To be used on one event loop."""

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace | None:
        """The trace of a call that has just arrived; None if it is not to be traced.

        Args:
            method: One of `METHODS`.
            metadata: What the caller sent with it.
        """

    def ended(self, trace: Trace) -> None:
        """Takes a trace whose call has ended."""


def make_tracer(kind: str) -> Tracer | None:
    """The tracer that the config asks for.

    Args:
        kind: Of `server.tracing`.

    Raises:
        ConfigError: OpenTelemetry is asked for, and is not installed.
    """
    if kind == "log":
        return LogTracer()
    return SpanTracer(_provider()) if kind == "otel" else None


class LogTracer:
    """Logs the milliseconds of each step."""

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace | None:
        """Traces every call; see `Tracer.begin`."""
        return Trace(method)

    def ended(self, trace: Trace) -> None:
        """Logs a trace; see `Tracer.ended`."""
        steps = {step.name: round(1e3 * step.seconds, 3) for step in trace.steps}
        _log.info("trace", method=trace.name, **steps)


class _SpanTrace(Trace):
    """A trace whose call is a span.

    Attributes:
        span: The call's.
        epoch: What added to a time on the clock of `time.monotonic` gives Unix time, in nanoseconds.
    """

    __slots__ = ("epoch", "span")

    def __init__(self, name: str, span: Any, epoch: int) -> None:
        super().__init__(name)
        self.span = span
        self.epoch = epoch

    def nanoseconds(self, seconds: float) -> int:
        """A time of `time.monotonic` as Unix time in nanoseconds."""
        return self.epoch + round(seconds * 1e9)


class SpanTracer:
    """Makes an OpenTelemetry span of each call, with one below it for each step.

    A call is part of the trace that its caller says it belongs to, by the metadata key `traceparent` of W3C Trace
    Context. Which calls are traced is for the provider's sampler to say.

    Args:
        provider: Where spans go: an `opentelemetry.trace.TracerProvider`.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._tracer = provider.get_tracer("xai_sidecar")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Trace | None:
        """Starts a span if it is sampled; see `Tracer.begin`."""
        carrier = {key: value for key, value in metadata.items() if isinstance(value, str)}
        span = self._tracer.start_span(
            f"xai.v1.ExplanationService/{method}",
            self._propagator.extract(carrier),
            kind=self._api.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": "xai.v1.ExplanationService", "rpc.method": method},
        )
        if not span.is_recording():
            return None
        return _SpanTrace(method, span, time.time_ns() - time.monotonic_ns())

    def ended(self, trace: Trace) -> None:
        """Ends the span of a call, and makes those of its steps; see `Tracer.ended`."""
        if not isinstance(trace, _SpanTrace):
            raise TypeError("that is no trace of this tracer's")
        within = self._api.set_span_in_context(trace.span)
        for step in trace.steps:
            span = self._tracer.start_span(step.name, within, start_time=trace.nanoseconds(step.started))
            span.end(trace.nanoseconds(step.ended))
        trace.span.end()


def _provider() -> Any:
    """The provider of the process if it has one, or else one that sends spans where OTEL_EXPORTER_OTLP_ENDPOINT says.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            return provider
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the package {error.name} is missing. Run pip install 'xai-sidecar[otel]', or set it to log or off.",
            field="server.tracing",
        ) from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
