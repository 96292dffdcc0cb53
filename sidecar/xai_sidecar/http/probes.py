"""/healthz and /readyz for probes, and /metrics for Prometheus."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def probe_routes(
    registry: CollectorRegistry, *, is_alive: Callable[[], bool], unready: Callable[[], str]
) -> list[Route]:
    """The routes of probes and metrics.

    Args:
        registry: What /metrics shows; on a thread of its own, since to collect it takes a while.
        is_alive: Answers /healthz: whether the process still works, or has to be restarted.
        unready: Answers /readyz: why no requests should be sent here; empty if they should.
    """

    async def healthz(_: Request) -> Response:
        return _answer(is_alive(), "alive", "dead")

    async def readyz(_: Request) -> Response:
        why = unready()
        return _answer(not why, "ready", f"not ready: {why}")

    def metrics(request: Request) -> Response:
        return _exposition(registry, request)

    return [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]


def _answer(good: bool, yes: str, no: str) -> Response:
    return PlainTextResponse(f"{yes if good else no}\n", 200 if good else 503)


def _exposition(registry: CollectorRegistry, request: Request) -> Response:
    """The series in the format that is accepted; only those of the names in the query `name[]`, if it has any."""
    names = request.query_params.getlist("name[]")
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    text = encode(registry.restricted_registry(names) if names else registry)
    headers = {"Content-Type": content_type}
    if "gzip" in request.headers.get("accept-encoding", "").lower():
        text, headers["Content-Encoding"] = gzip.compress(text), "gzip"
    return Response(text, headers=headers)
