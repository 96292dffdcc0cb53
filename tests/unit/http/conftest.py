"""A server of HTTP whose core is on the test's event loop, and a client that says all of an answer."""

import asyncio
import http.client
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.http.application import application
from xai_sidecar.http.core_calls import CoreCalls
from xai_sidecar.http.requests import Bodies
from xai_sidecar.http.server import HttpServer
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry


@pytest.fixture
def serving_http():
    """Serves routes that a function makes of `CoreCalls` and `Bodies`; returns what asks them."""

    @contextmanager
    def serving_http(core, make_routes, most_bytes=2**20, most_incoming=2**22):
        telemetry = Telemetry(CollectorRegistry(), [])
        records = CallRecords(telemetry, core.limits)
        calls = CoreCalls(asyncio.get_running_loop(), records)
        bodies = Bodies(most_bytes, most_incoming, calls.refused)
        server = HttpServer("127.0.0.1", 0, application(make_routes(calls, bodies)))

        def asked(method, path, body, headers):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())
            finally:
                connection.close()

        async def ask(method, path, body=None, **headers):
            if isinstance(body, dict):
                body = json.dumps(body)
            headers = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await asyncio.to_thread(asked, method, path, body, headers)
            if answer.headers.get_content_type() == "application/json":
                answer.json = json.loads(answer.body)
            return answer

        ask.port = server.port
        ask.records = records
        ask.telemetry = telemetry
        try:
            yield ask
        finally:
            server.close()

    return serving_http
