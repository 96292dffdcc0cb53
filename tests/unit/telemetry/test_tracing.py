"""What becomes of traces: log lines, and OpenTelemetry spans that hang together."""

import sys
import time

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import capture_logs

from xai_sidecar.errors import ConfigError
from xai_sidecar.telemetry.tracing import LogTracer, SpanTracer, make_tracer

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return SpanTracer(provider)


def test_a_call_is_a_span_of_its_callers_trace_and_its_steps_are_below_it(tracer, exporter):
    before = time.time_ns()
    trace = tracer.begin("Predict", {"traceparent": f"00-{TRACE_ID}-{CALLER}-01", "x-bin": b"\0"})
    trace.mark("parse", trace.started + 1)
    trace.mark("pass", trace.started + 3)
    tracer.ended(trace)
    *steps, call = exporter.get_finished_spans()
    assert f"{call.context.trace_id:032x}" == TRACE_ID
    assert f"{call.parent.span_id:016x}" == CALLER
    assert call.name == "xai.v1.ExplanationService/Predict"
    assert [step.name for step in steps] == ["parse", "pass"]
    assert {step.parent.span_id for step in steps} == {call.context.span_id}
    assert {step.context.trace_id for step in steps} == {call.context.trace_id}
    assert [round((step.end_time - step.start_time) / 1e9, 3) for step in steps] == [1, 2]
    assert before - 1e9 < steps[0].start_time < time.time_ns() + 1e9


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "nonsense"}, {"traceparent": f"00-{'0' * 32}-{CALLER}-01"}])
def test_a_call_whose_caller_names_no_trace_begins_one(tracer, exporter, metadata):
    tracer.ended(tracer.begin("Predict", metadata))
    (call,) = exporter.get_finished_spans()
    assert call.parent is None
    assert call.context.trace_id


def test_a_caller_who_does_not_sample_has_nothing_traced(tracer):
    assert tracer.begin("Predict", {"traceparent": f"00-{TRACE_ID}-{CALLER}-00"}) is None
    assert SpanTracer(TracerProvider(sampler=ALWAYS_OFF)).begin("Predict", {}) is None


def test_a_log_line_has_the_milliseconds_of_each_step():
    tracer = make_tracer("log")
    assert isinstance(tracer, LogTracer)
    trace = tracer.begin("Predict", {})
    trace.mark("parse", trace.started + 0.0125)
    with capture_logs() as lines:
        tracer.ended(trace)
    assert lines == [{"event": "trace", "log_level": "info", "method": "Predict", "parse": 12.5}]


def test_by_itself_there_is_no_tracer():
    assert make_tracer("off") is None


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk.trace", "opentelemetry.exporter"])
def test_what_is_not_installed_is_named_with_its_cure(monkeypatch, missing):
    for name in [name for name in sys.modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'xai-sidecar\[otel\]'") as caught:
        make_tracer("otel")
    assert caught.value.field == "server.tracing"
