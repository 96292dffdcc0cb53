"""Any bytes to any route: an answer with a status that is no fault of the server's, and the next caller is served.

A few hundred requests by default; XAI_FUZZ=10000 for that many.
"""

import asyncio
import base64
import contextlib
import copy
import io
import json
import os
import random
import socket

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from structlog.testing import capture_logs
from toys import only

from xai_sidecar.http.contract import ContractRoutes
from xai_sidecar.http.kserve_v1_routes import KServeV1Routes
from xai_sidecar.http.open_inference import OpenInferenceRoutes
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.rpc.answerer import Answerer

REQUESTS = int(os.environ.get("XAI_FUZZ", "300"))
INPUT = np.random.default_rng(1).uniform(0, 1, (3, 6, 8)).astype(np.float32)


def png():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


ENCODED = base64.b64encode(png()).decode()
FILE = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}
TENSOR = {"name": "model_input", "datatype": "FP32", "shape": [1, 3, 6, 8], "data": INPUT.ravel().tolist()}
RISE = {"explainer": "rise", "rise": {"maskCount": 16}, "targets": {"topCount": 2}}
PREDICT = {"images": [{"encoded": ENCODED}], "explanations": [RISE], "topK": 2}
VALID = {
    "/v1/predict": [PREDICT, {"images": [{"encoded": ENCODED}], "requestId": "known"}],
    "/v1/predict:stream": [{"request": PREDICT, "progressInterval": "0.1s"}],
    "/v1/models/model:predict": [{"instances": [{"b64": ENCODED}], "parameters": {"top_k": 2}}],
    "/v1/models/model:explain": [{"instances": [INPUT.tolist()], "parameters": {"explainer": "rise", "masks": 16}}],
    "/v2/models/model/infer": [
        {"id": "1", "inputs": [TENSOR], "outputs": [{"name": "saliency.rise", "parameters": {"masks": 16}}]},
        {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}],
            "parameters": {"top_k": 2},
        },
    ],
}
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    1.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    2**63,
    -(2**70),
    "",
    "a",
    "rise",
]
VALUES += ["image", "FP32", "BYTES", "logits", "saliency.rise", "auto", "\0\n", "\N{SNOWMAN}" * 500, [], {}, [[]], [{}]]
VALUES += [[1] * 1000, [[1, 2], [3]], {"b64": "x"}, {"a": {"b": []}}, ENCODED, "x" * 20_000, "1" * 5000, "NaN", "1.5s"]


def places(value):
    """Every place in a value: what has it, and the key there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def changed(chance, value):
    """A value with something in it replaced, left out or added."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        found = list(places(value))
        if not found:
            break
        holder, key = chance.choice(found)
        what, other = chance.random(), copy.deepcopy(chance.choice(VALUES))
        if what < 0.6:
            holder[key] = other
        elif what < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[chance.choice(["id", "parameters", "data", "outputs", "top_k", "x", "seed"])] = other
    return value


def request_of(number):
    """A path, a body and headers: nearly valid, or of which bytes are changed, cut or made up."""
    chance = random.Random(number)
    path = chance.choice(sorted(VALID))
    body = json.dumps(changed(chance, chance.choice(VALID[path]))).encode()
    headers = {}
    if "v2" in path and chance.random() < 0.3:
        headers["Inference-Header-Content-Length"] = chance.choice([str(len(body)), "0", "-1", "x", "9" * 30])
        body += chance.randbytes(chance.choice([0, 1, 576]))
    what = chance.random()
    if what < 0.05:
        body = chance.randbytes(chance.choice([0, 1, 20, 3000]))
    elif what < 0.15:
        body = bytearray(body[: chance.randrange(len(body)) + 1])
        body[chance.randrange(len(body))] = chance.randrange(256)
    if chance.random() < 0.1:
        name = chance.choice(["grpc-timeout", "x-request-id", "content-encoding", "accept"])
        headers[name] = chance.choice(["1S", "0n", "x", "9" * 100, "gzip", "a b"])
    return path, bytes(body), headers


@pytest.fixture
def serving(serve, serving_http):
    limits = ("server.max_passes=600", "explainers.rise.masks=16", 'model.name="model"')
    core = serve(0.0, *limits, *only("occlusion", "rise"))[0].core

    def make_routes(calls, bodies):
        contract, first = ContractRoutes(Answerer(core), calls, bodies), KServeV1Routes(core, calls, bodies)
        return [*contract.routes(), *first.routes(), *OpenInferenceRoutes(OpenInference(core), calls, bodies).routes()]

    return lambda: serving_http(core, make_routes)


async def test_any_request_gets_an_answer(serving):
    found = []

    @seed(0)
    @settings(
        max_examples=REQUESTS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**64 - 1).map(request_of))
    def draw(request):
        found.append(request)

    draw()
    statuses = {}
    with serving() as ask:
        for path, body, headers in found:
            with capture_logs() as logs:
                answer = await asyncio.wait_for(ask("POST", path, body, **headers), 30)
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            assert answer.status in (200, 400, 404, 413, 429, 504), (path, body, headers, answer.body, logs)
            if answer.status == 200 and path.endswith("stream"):
                assert b"event: error" not in answer.body or b'"code": 13' not in answer.body, (body, answer.body)
        assert not ask.records.count
    print(f"{len(found):,} requests: {statuses}")
    assert statuses[200] > REQUESTS / 20, "it has hardly got anywhere"
    assert statuses[400] > REQUESTS / 5


async def test_bytes_that_are_no_http_harm_nobody(serving):
    chance = random.Random(0)
    heads = [b"", b"GET / HTTP/1.1\r\n", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"]
    heads += [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
        b"\x16\x03\x01",
    ]

    def send(data, port):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.05) as one:
            one.sendall(data)
            one.recv(10_000)

    with serving() as ask:
        for _ in range(REQUESTS // 5):
            data = chance.choice(heads) + chance.randbytes(chance.choice([0, 3, 100, 20_000]))
            await asyncio.to_thread(send, data, ask.port)
        assert (await ask("GET", "/v2/health/live")).status == 200
        assert not ask.records.count
