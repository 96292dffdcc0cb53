"""A server process that explains a model on another server: what it says, and what it does when that goes away."""

import os
import signal
import time

import grpc
import launcher
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from oip_servers import GrpcOipServer, OipModel, RefusalError

from xai_proto import explanation_pb2 as pb
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import parse_config
from xai_sidecar.engine.work import Forward, drive
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise

SHAPE = (3, 24, 32)
TARGET = 2


class Upstream:
    """A model on a server that can go away and come back to the same port."""

    def __init__(self):
        self.model = OipModel(shape=SHAPE)
        self.server = GrpcOipServer(self.model)
        self.port = self.server.port

    def stop(self):
        self.server.stop()

    def start(self):
        self.server = GrpcOipServer(self.model, self.port)

    def run(self, kind, rows):
        """As `Backend.run`, by arithmetic here."""
        inputs = rows[0]
        if kind.name == "masked_forward":
            masks, images, fills = rows
            inputs = images * masks[:, None] + fills * (1 - masks[:, None])
        return (self.model.logits_of(inputs),)


@pytest.fixture(scope="module")
def upstream():
    upstream = Upstream()
    yield upstream
    upstream.stop()


def config_text(upstream, more=""):
    return f"""
[model]
oip = "grpc://127.0.0.1:{upstream.port}/net"
upstream = {{ output = "scores", concurrency = 3, timeout_seconds = 5 }}
input = {{ size = [{SHAPE[1]}, {SHAPE[2]}], mean = 0.0, std = 1.0, mean_colour = 0.0 }}
compile_cache = false
{more}
"""


@pytest.fixture(scope="module")
def box(upstream, start_server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    path = folder / "sidecar.toml"
    evaluator = f"""
[evaluator]
sample_rate = 1.0
interval_seconds = 0.1
metrics = ["faithfulness/srg"]
store = "sqlite:///{folder / "store.sqlite"}"
[explainers.rise]
masks = 200
"""
    path.write_text(config_text(upstream, evaluator))
    with start_server(path) as running:
        yield running


@pytest.fixture(scope="module")
def stub(box, connect):
    with connect(box.grpc) as stub:
        yield stub


def image(number=1):
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def request(number=1, **explanation):
    array = image(number)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())
    asked = []
    if explanation:
        asked = [pb.ExplanationRequest(targets=pb.Targets(class_ids=[TARGET]), seed=3, **explanation)]
    return pb.PredictRequest(images=[pb.Image(model_input=tensor)], explanations=asked)


def test_predictions_are_the_upstreams(upstream, stub):
    (answer,) = stub.Predict(request(), timeout=60).predictions
    expected = ACTIVATIONS["softmax"](upstream.model.logits_of(image()[None]))[0]
    assert answer.classes[0].class_id == expected.argmax()
    np.testing.assert_allclose(answer.classes[0].probability, expected.max(), rtol=1e-5)


@pytest.mark.parametrize("explainer", [Rise(), Occlusion()], ids=lambda each: each.name)
def test_maps_are_those_of_the_model_here(upstream, stub, map_of, explainer):
    (answer,) = stub.Predict(request(explainer=explainer.name), timeout=60).predictions
    (found,) = answer.explanations[0].maps
    model = ModelFacts(*SHAPE[1:])
    given = {"masks": 200} if explainer.name == "rise" else {}
    parameters = explainer.resolve(explainer.parameters_type(**given), model)
    steps = explainer.explain(image(), np.array([TARGET], np.int32), parameters, Context(seed=3))
    expected = drive(steps, upstream.run).maps[0]
    np.testing.assert_allclose(map_of(found), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("explainer", ["gradient", "guided_backprop", "deconvolution", "gradcam"])
def test_explainers_by_gradients_are_refused_with_the_reason(stub, refused, explainer):
    refusal = refused(stub.Predict, request(explainer=explainer))
    assert refusal.code == "FAILED_PRECONDITION"
    assert "another server gives only its outputs" in refusal.message


def test_the_model_is_described(upstream, stub):
    model = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    usable = {each.name for each in model.explainers if not each.unavailable_reason}
    assert usable == {"rise", "occlusion"}
    assert model.device == f"grpc://127.0.0.1:{upstream.port}"


def health(box):
    with grpc.insecure_channel(box.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_it_goes_away_and_comes_back(upstream, box, stub, get, refused, eventually, read_metrics):
    assert get(box.http, "/readyz") == (200, "ready\n")
    events = stub.PredictStream(
        pb.PredictStreamRequest(request=request(explainer="rise", rise=pb.RiseParameters(mask_count=50_000))),
        timeout=60,
    )
    next(events)
    upstream.stop()
    with pytest.raises(grpc.RpcError) as caught:
        list(events)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    refusal = refused(stub.Predict, request())
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "UPSTREAM")
    assert refusal.retry_seconds > 0
    eventually(lambda: get(box.http, "/readyz")[0] == 503)
    assert "does not answer" in get(box.http, "/readyz")[1]
    eventually(lambda: health(box) == "NOT_SERVING")
    assert get(box.http, "/healthz")[0] == 200
    assert read_metrics(box.http)["xai_ready",] == 0
    upstream.start()
    eventually(lambda: get(box.http, "/readyz")[0] == 200)
    eventually(lambda: health(box) == "SERVING")
    assert read_metrics(box.http)["xai_ready",] == 1
    assert len(stub.Predict(request(), timeout=60).predictions) == 1
    assert box.process.poll() is None


def test_a_refusal_is_told_as_one(upstream, box, stub, refused):
    upstream.model.refusal = RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")
    try:
        refusal = refused(stub.Predict, request())
    finally:
        upstream.model.refusal = None
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "UPSTREAM_BUSY")
    assert "too many" in refusal.message and refusal.retry_seconds > 0
    stub.Predict(request(), timeout=60)


def test_evaluation_waits_while_it_is_away_and_chooses_for_auto(upstream, box, stub, eventually):
    def measured(name):
        explainers = {
            each.name: each for each in stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model.explainers
        }
        return max((each.sample_count for each in explainers[name].quality), default=0)

    for number in range(3):
        stub.Predict(request(100 + number), timeout=60)
    upstream.stop()
    time.sleep(0.5)
    upstream.start()
    eventually(lambda: min(measured("rise"), measured("occlusion")) >= 3, 120)
    assert not [entry for entry in box.log if entry["event"] == "measuring_failed"]
    (answer,) = stub.Predict(request(explainer="auto"), timeout=60).predictions
    assert answer.explanations[0].explainer in ("rise", "occlusion")


def test_a_server_waits_for_the_one_that_has_the_model(start_server, tmp_path, only, free_ports, get, eventually):
    upstream = Upstream()
    upstream.stop()
    path, port = tmp_path / "sidecar.toml", free_ports[0]
    path.write_text(config_text(upstream))
    address = f"127.0.0.1:{port}"
    with start_server(path, *only("rise"), f"server.http={address}", wait=False) as server:
        eventually(lambda: any(entry["event"] == "waiting_for_upstream" for entry in server.log))
        status, text = get(address, "/readyz")
        assert status == 503 and f"grpc://127.0.0.1:{upstream.port} does not answer" in text
        assert get(address, "/healthz")[0] == 200
        upstream.start()
        assert server.ready.wait(60) and server.grpc
        assert server.terminate() == 0
    upstream.stop()
    with start_server(path, *only("rise"), wait=False) as server:
        eventually(lambda: any(entry["event"] == "waiting_for_upstream" for entry in server.log))
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_check_says_what_was_found(upstream, tmp_path):
    path = tmp_path / "sidecar.toml"
    path.write_text(config_text(upstream))
    command = [*launcher.CLI, "check", "--config", str(path)]
    done = launcher.run(command, env=os.environ.copy(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"grpc://127.0.0.1:{upstream.port}, forward passes by toy 2.1, by gRPC" in done.stdout
    assert "gradcam" in done.stdout and "not available: It takes gradients" in done.stdout


def test_a_server_like_this_one_is_a_model_server_too(start_misbehaving, misbehaving):
    with start_misbehaving() as inner:
        for scheme in ("grpc", "http"):
            model = {
                "oip": f"{scheme}://{getattr(inner, scheme)}/model",
                "upstream": {"input": "model_input", "output": "logits"},
                "input": {"size": 32},
            }
            backend = load_backend(parse_config({"model": model}))
            try:
                assert backend.warm_up([Forward.kind], lambda line: None) == {}
                inputs = np.random.default_rng(1).standard_normal((4, *misbehaving.SHAPE)).astype(np.float32)
                (found,) = backend.run(Forward.kind, (inputs,))
            finally:
                backend.close()
            np.testing.assert_allclose(found, misbehaving.logits_of(inputs), rtol=1e-4, atol=1e-5)
