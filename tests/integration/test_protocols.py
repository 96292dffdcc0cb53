"""A server process by its other protocols: who may do what, and how calls over HTTP end when the server does."""

import base64
import hashlib
import http.client
import io
import json
import threading
import time

import grpc
import numpy as np
import pytest
from PIL import Image

from xai_proto import open_inference_pb2 as oip
from xai_proto import open_inference_pb2_grpc as oip_grpc

INPUT = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)


def png():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


ENCODED = png()
PREDICT = {"images": [{"encoded": ENCODED}]}
EXPLAIN = {**PREDICT, "explanations": [{"explainer": "gradcam"}]}
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [ENCODED]}
INSTANCES = {"instances": [{"b64": ENCODED}]}
CALLS = {
    # path: a prediction, and an explanation
    "/v1/predict": (PREDICT, EXPLAIN),
    "/v1/predict:stream": ({"request": PREDICT}, {"request": EXPLAIN}),
    "/v1/models/model:predict": (INSTANCES, None),
    "/v1/models/model:explain": (None, INSTANCES),
    "/v2/models/model/infer": ({"inputs": [TENSOR]}, {"inputs": [TENSOR], "outputs": [{"name": "saliency.gradcam"}]}),
}


@pytest.fixture(scope="module")
def server(start_misbehaving, tmp_path_factory):
    """A server that knows `shop`, which may predict, and `desk`, which may explain, too."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    roles = {"shop": ["predict"], "desk": ["predict", "explain"]}
    path.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\nroles = {given}\n'
            for name, given in roles.items()
        )
    )
    with start_misbehaving(f'server.auth.tokens="{path}"') as running:
        yield running
        assert running.other_output == []


def post(address, path, message, token=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("POST", path, json.dumps(message), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", CALLS)
def test_roles_over_http(server, path):
    """The caller is known on one event loop, and asked for on the other."""
    prediction, explanation = CALLS[path]
    assert post(server.http, path, prediction or explanation)[0] == 401
    assert post(server.http, path, prediction or explanation, "stranger")[0] == 401
    if prediction:
        assert post(server.http, path, prediction, "shop")[0] == 200
    if explanation:
        status, body = post(server.http, path, explanation, "shop")
        assert (status, b"explain" in body) == (403, True)
        assert post(server.http, path, explanation, "desk")[0] == 200


def test_roles_of_the_open_protocol_over_grpc(server):
    tensor = {"name": "model_input", "datatype": "FP32", "shape": INPUT.shape}
    request = oip.ModelInferRequest(inputs=[tensor], raw_input_contents=[INPUT.tobytes()])
    explaining = oip.ModelInferRequest(outputs=[{"name": "saliency.gradcam"}])
    explaining.MergeFrom(request)
    with grpc.insecure_channel(server.grpc) as channel:
        stub = oip_grpc.GRPCInferenceServiceStub(channel)

        def code(request, token=None):
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            call = stub.ModelInfer.future(request, metadata=metadata, timeout=60)
            return call.code()

        assert code(request) is grpc.StatusCode.UNAUTHENTICATED
        assert code(request, "shop") is grpc.StatusCode.OK
        assert code(explaining, "shop") is grpc.StatusCode.PERMISSION_DENIED
        assert code(explaining, "desk") is grpc.StatusCode.OK
        assert stub.ServerLive(oip.ServerLiveRequest(), timeout=60).live


def test_calls_over_http_end_when_the_server_drains(start_misbehaving, get, eventually, read_metrics):
    """A short one is finished, a stream ends with the maps that it has, and nobody is left without an answer."""
    rise = {"explainer": "rise", "rise": {"maskCount": 100_000}}
    short = {**PREDICT, "explanations": [{"explainer": "rise", "rise": {"maskCount": 400}}]}
    found = {}
    with start_misbehaving("server.drain_seconds=6") as own:

        def ask(name, path, message):
            found[name] = post(own.http, path, message)

        asked = {
            "short": ("/v1/predict", short),
            "long": ("/v1/predict", {**PREDICT, "explanations": [rise]}),
            "stream": ("/v1/predict:stream", {"request": {**PREDICT, "explanations": [rise]}}),
        }
        threads = [threading.Thread(target=ask, args=(name, *each)) for name, each in asked.items()]
        for thread in threads:
            thread.start()
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] == 3)
        time.sleep(0.2)
        assert own.terminate() == 0
        for thread in threads:
            thread.join(20)
        assert own.other_output == []
    assert found["short"][0] == 200
    assert b"EXPLANATION_STATUS_COMPLETE" in found["short"][1]
    status, body = found["long"]
    assert (status, b"EXPLANATION_STATUS_TRUNCATED" in body) == (200, True)
    events = [line for line in found["stream"][1].decode().splitlines() if line.startswith("event: ")]
    assert events[0] == "event: predicted"
    assert events[-1] == "event: finished"
    assert b"EXPLANATION_STATUS_TRUNCATED" in found["stream"][1]
