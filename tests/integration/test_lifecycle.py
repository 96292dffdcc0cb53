"""The life of the process: starting, ready, draining, ended.

A model of arithmetic lives it, where nothing is compiled: what MindSpore has to do with it is tried with a real one.
"""

import contextlib
import re
import signal
import socket
import time

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from xai_proto import explanation_pb2 as pb

SERVICE = "xai.v1.ExplanationService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
EXPLAINERS = ("gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus")
COMPILED = 8
"""Programs that would be compiled if nothing ended it."""

SIDE = 32
NET = """
import numpy as np
from mindspore import Tensor, nn


class Net(nn.Cell):
    \"\"\"A layer of convolutions of one pixel, their mean over the picture, and a dense layer.\"\"\"

    def __init__(self):
        super().__init__()
        conv, dense = np.load("weights.npz").values()
        self.conv = nn.Conv2d(3, 8, 1, weight_init=Tensor(conv[..., None, None]))
        self.relu = nn.ReLU()
        self.dense = nn.Dense(8, 5, has_bias=False, weight_init=Tensor(dense))

    def construct(self, x):
        return self.dense(self.relu(self.conv(x)).mean((2, 3)))
"""
CONFIG = f"""
[model]
name = "small"
factory = "small_net:Net"
batch_sizes = [1]
compile_cache = false
input.size = {SIDE}
"""

MASKS = 100
"""Of RISE for each of eight pictures; they take the model of arithmetic half a second at least."""


def listening(ports):
    """Overrides that serve on known ports, and the two addresses."""
    grpc_address, http_address = (f"127.0.0.1:{port}" for port in ports)
    return (f'server.grpc="{grpc_address}"', f'server.http="{http_address}"'), grpc_address, http_address


def listens(server, *addresses):
    """Whether something listens at all of the addresses; fails at once when the server has ended."""
    assert server.process.poll() is None, f"the server ended: {server.log} {server.other_output}"
    return all(accepts(address) for address in addresses)


def health(address, service=""):
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


def accepts(address):
    """Whether something listens."""
    host, port = address.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def events(server):
    return [entry["event"] for entry in server.log]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The folder of a net that MindSpore compiles soon, with its config and its weights."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small_net.py").write_text(NET)
    (folder / "sidecar.toml").write_text(CONFIG)
    draw = np.random.default_rng(0)
    np.savez(folder / "weights.npz", *(draw.standard_normal(shape).astype(np.float32) for shape in ((8, 3), (5, 8))))
    return folder


@pytest.fixture(scope="module")
def start_small(start_server, small):
    """Serves that net, in a `with` statement; takes overrides of the config."""
    return lambda *overrides, **options: start_server(small / "sidecar.toml", *overrides, cwd=small, **options)


def logits_of(inputs, small):
    """What the net says of model inputs, (n, 3, H, W)."""
    conv, dense = np.load(small / "weights.npz").values()
    return np.maximum(np.einsum("kc,nchw->nkhw", conv, inputs), 0).mean((2, 3)) @ dense.T


@pytest.fixture(scope="module")
def plain(picture):
    """A request to the model of arithmetic."""
    return pb.PredictRequest(images=[picture(0)], top_k=1)


@pytest.fixture(scope="module")
def slow(picture):
    """One that takes seconds."""
    rise = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=MASKS))
    return pb.PredictRequest(images=map(picture, range(8)), explanations=[rise])


# ------------------------------------------------------------------------------------------------ a whole life


def test_from_start_to_sigterm(
    start_misbehaving, tmp_path, free_ports, connect, refused, get, read_metrics, eventually, slow, plain
):
    """Not ready and saying so, ready, counting, draining with calls in flight, gone."""
    overrides, grpc_address, http_address = listening(free_ports)
    gate = tmp_path / "loaded"
    overrides += ("model.name=sums", "server.drain_seconds=60", f"model.arguments={{gate='{gate}'}}")
    with start_misbehaving(*overrides, wait=False, forked=False) as server:
        eventually(lambda: listens(server, http_address, grpc_address))
        with connect(grpc_address) as stub:
            _check_not_ready(stub, grpc_address, http_address, refused, get, read_metrics, plain)
            assert "ready" not in events(server)
            gate.touch()
            assert server.ready.wait(120)
            assert (server.grpc, server.http) == (grpc_address, http_address)
            assert get(http_address, "/readyz")[0] == get(http_address, "/healthz")[0] == 200
            assert health(grpc_address) == health(grpc_address, SERVICE) == SERVING
            _check_counting(stub, http_address, read_metrics, eventually, plain)
            _check_draining(server, stub, connect, http_address, read_metrics, refused, eventually, slow, plain)
        assert not accepts(grpc_address)
        assert not accepts(http_address)


def _check_not_ready(stub, grpc_address, http_address, refused, get, read_metrics, plain):
    assert get(http_address, "/healthz")[0] == 200
    assert get(http_address, "/readyz")[0] == 503
    assert health(grpc_address) == health(grpc_address, SERVICE) == NOT_SERVING
    for method, request in ((stub.Predict, plain), (stub.GetModelInfo, pb.GetModelInfoRequest())):
        refusal = refused(method, request)
        assert (refusal.code, refusal.domain) == ("UNAVAILABLE", "xai-sidecar")
        assert refusal.fields == ()
    metrics = read_metrics(http_address)
    assert metrics["xai_ready",] == 0
    assert metrics["xai_requests_total", "UNAVAILABLE", "Predict"] == 1
    _check_known_from_the_start(metrics)


def _check_known_from_the_start(metrics):
    """A rate or an alert over a series that appears with its first event misses that event."""
    for method in ("Predict", "PredictStream", "ReportGroundTruth", "GetModelInfo"):
        for code in ("OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED"):
            assert metrics["xai_requests_total", code, method] == 0
    for explainer in EXPLAINERS:
        for status in ("complete", "truncated", "skipped"):
            assert metrics["xai_explanations_total", explainer, status] == 0
        for status in ("ok", "all_zero", "unreliable", "zero_gradient", "not_finite", "no_ood_range"):
            assert metrics["xai_maps_total", explainer, status] == 0
    kinds = ("forward", "masked_forward", "ood_score", "masked_ood_score", "input_gradient", "layer_gradient")
    for kind in kinds:
        for name in ("launches", "launch_rows", "launch_padding_rows"):
            assert metrics[f"xai_{name}_total", kind] == 0
    assert metrics["xai_images_total",] == metrics["xai_open_images",] == metrics["xai_open_explanations",] == 0
    assert metrics["process_resident_memory_bytes",] > 0


def _check_counting(stub, http_address, read_metrics, eventually, plain):
    before = read_metrics(http_address)
    assert before["xai_ready",] == 1
    assert abs(before["xai_ready_timestamp_seconds",] - time.time()) < 60
    (info,) = (key for key in before if key[0] == "xai_model_info")
    assert {"sums", "cpu"} <= set(info)
    explanations = [pb.ExplanationRequest(explainer="gradcam", targets=pb.Targets(top_count=3))]
    stub.Predict(pb.PredictRequest(images=[*plain.images] * 2, explanations=explanations), timeout=60)
    stub.Predict(plain, timeout=60)
    with pytest.raises(grpc.RpcError):
        stub.Predict(pb.PredictRequest(), timeout=60)
    # A launch is counted just after its callers have been answered.
    forwards = ("xai_launch_rows_total", "forward")
    eventually(lambda: read_metrics(http_address)[forwards] >= before[forwards] + 3)
    after = read_metrics(http_address)
    changed = {key for key in after if after[key] != before.get(key) and key[0][:4] == "xai_"}
    grown = {key: after[key] - before.get(key, 0) for key in changed}  # histograms appear with their first event
    assert grown["xai_requests_total", "OK", "Predict"] == 2
    assert grown["xai_requests_total", "INVALID_ARGUMENT", "Predict"] == 1
    assert grown["xai_request_duration_seconds_count", "Predict"] == 3
    assert grown["xai_images_total",] == 3
    assert grown["xai_explanations_total", "gradcam", "complete"] == 2
    assert grown["xai_explanation_duration_seconds_count", "gradcam"] == 2
    assert grown["xai_maps_total", "gradcam", "ok"] == 6
    assert grown["xai_launch_rows_total", "forward"] == 3
    assert grown["xai_launch_rows_total", "layer_gradient"] == 6
    assert 1 <= grown["xai_launches_total", "forward"] <= 3
    assert 1 <= grown["xai_launches_total", "layer_gradient"] <= 6
    assert 0 < grown["xai_launch_duration_seconds_sum", "layer_gradient"] < 60
    names = {key[0].removesuffix("_total") for key in grown}
    assert not names & {"xai_open_images", "xai_ready"}
    assert not any(key[:2] == ("xai_explanations_total", "gradient") for key in grown)


def _check_draining(server, stub, connect, http_address, read_metrics, refused, eventually, slow, plain):
    calls = [stub.Predict.future(slow, timeout=120) for _ in range(3)]
    eventually(lambda: read_metrics(http_address)["xai_open_explanations",] >= 8)
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: "draining" in events(server))
    with connect(server.grpc) as late:
        for asked in (stub, late):
            assert refused(asked.Predict, plain).code == "UNAVAILABLE"
    for call in calls:
        predictions = call.result(timeout=60).predictions
        assert [len(one.explanations[0].maps) for one in predictions] == [1] * 8
    assert server.wait() == 0
    assert server.other_output == []
    assert events(server)[-1] == "stopped"
    ended = [entry for entry in server.log if entry["event"] == "request"]
    assert [entry["code"] for entry in ended][-3:] == ["OK"] * 3


# ------------------------------------------------------------------------------------------------ ready


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


def test_health_and_reflection(server):
    assert health(server.grpc) == health(server.grpc, SERVICE) == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health(server.grpc, "xai.v2.Other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    with grpc.insecure_channel(server.grpc) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        described = reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)
        services, file = ask(iter([listing, described]), timeout=10)
    assert {one.name for one in services.list_services_response.service} == {
        SERVICE,
        "xai.v1.QualityService",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert b"ExplanationService" in b"".join(file.file_descriptor_response.file_descriptor_proto)


def test_http_paths(server, get):
    assert get(server.http, "/healthz") == (200, "alive\n")
    assert get(server.http, "/readyz") == (200, "ready\n")
    for path in ("/", "/metric", "/healthz/x", "/%2e%2e/etc/passwd"):
        status, body = get(server.http, path)
        assert status == 404
        assert "/metrics" in body


# ------------------------------------------------------------------------------------------------ ends


def test_sigint_and_text_logs(start_small, only, free_ports, connect, get, eventually, plain):
    """As at a terminal: lines for people, and Ctrl-C, of which MindSpore has its own idea, ends it as SIGTERM does."""
    overrides, grpc_address, http_address = listening(free_ports)
    overrides += (*only(), "server.log_format=text")
    with start_small(*overrides, wait=False, forked=False) as own:
        eventually(lambda: listens(own, http_address) and get(http_address, "/readyz")[0] == 200, seconds=120)
        with connect(grpc_address) as stub:
            stub.Predict(pb.PredictRequest(images=plain.images, request_id="typed-by-hand"), timeout=60)
            calls = [stub.Predict.future(plain, timeout=60) for _ in range(16)]
            eventually(lambda: "typed-by-hand" in "".join(own.other_output))
            time.sleep(0.05)
            own.process.send_signal(signal.SIGINT)
            codes = {call.code() for call in calls}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
        assert grpc.StatusCode.OK in codes
        assert own.wait() == 0
    assert own.log == [], "these are JSON lines"
    text = "".join(own.other_output)
    for event in ("ready", "request", "draining", "stopped"):
        assert re.search(rf"(?m)^\d\d:\d\d:\d\d \[info\s*\] {event}\b", text)
    assert "request_id=typed-by-hand" in text
    assert grpc_address in text
    assert "\x1b[" not in text, "colours, though this is no terminal"
    assert "Traceback" not in text
    assert "Exception ignored" not in text


def test_sigterm_while_compiling(start_small, only, eventually):
    """What is still to be compiled is not."""
    overrides = (*only(), "model.forward_engine=mindspore", f"model.batch_sizes={list(range(1, COMPILED + 1))}")
    with start_small(*overrides, wait=False) as server:

        def compiling():
            return sum(entry.get("step", "").startswith("compiling") for entry in server.log)

        eventually(compiling)
        assert server.terminate() == 0
        assert compiling() < COMPILED
        assert "ready" not in events(server)
        assert server.other_output == []


def test_sigterm_twice(start_misbehaving, connect, slow, read_metrics, eventually):
    """A second signal changes nothing: what is in flight still finishes."""
    with start_misbehaving("server.drain_seconds=60") as own, connect(own.grpc) as stub:
        call = stub.Predict.future(slow, timeout=60)
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] >= 1)
        own.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in events(own))
        own.process.send_signal(signal.SIGTERM)
        assert len(call.result(timeout=60).predictions) == 8
        assert own.wait() == 0
        assert own.other_output == []


def test_a_health_watch_does_not_hold_up_the_end(start_misbehaving):
    """Load balancers watch for as long as the server lives: waiting for them to hang up would be waiting in vain."""
    with start_misbehaving("server.drain_seconds=60") as own, grpc.insecure_channel(own.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=120)
        assert next(watch).status == SERVING
        started = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert own.wait() == 0
        assert time.monotonic() - started < 30
        assert own.other_output == []


def test_killed_while_compiling_then_started_again(start_small, small, only, tmp_path, connect, picture, eventually):
    """Whatever the killed process left in the compile cache, the next one answers right."""
    overrides = (*only(), "model.forward_engine=mindspore", "model.batch_sizes=[1,2,3]")
    overrides += (f"model.compile_cache={tmp_path}",)
    with start_small(*overrides, wait=False) as killed:
        eventually(lambda: any("batch size 2" in entry.get("step", "") for entry in killed.log))
        killed.process.kill()
        assert killed.wait() == -signal.SIGKILL
        assert "ready" not in events(killed)
    assert any(path.is_file() for path in tmp_path.rglob("*")), "it was killed before it had written anything"
    pair = [picture(number) for number in range(2)]
    inputs = np.stack([np.frombuffer(one.model_input.data, np.float32).reshape(3, SIDE, SIDE) for one in pair])
    for verb in ("compiling", "loading compiled"):
        with start_small(*overrides) as again, connect(again.grpc) as stub:
            steps = [entry["step"] for entry in again.log if entry["event"] == "loading"]
            programs = [step for step in steps if "forward" in step]
            assert any(step.startswith("looking at what the net says") for step in steps)
            assert programs
            assert all(step.startswith(verb) for step in programs), steps
            answers = stub.Predict(pb.PredictRequest(images=pair, top_k=5), timeout=60).predictions
            got = [[one.logit for one in sorted(each.classes, key=lambda one: one.class_id)] for each in answers]
            np.testing.assert_allclose(got, logits_of(inputs, small), rtol=1e-4, atol=1e-4)
            assert again.terminate() == 0
            assert again.other_output == []


@pytest.mark.parametrize("key", ["server.grpc", "server.http"])
def test_a_port_in_use(key, start_misbehaving):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with start_misbehaving(f'{key}="{address}"', wait=False) as own:
            assert own.wait() == 2
    assert len(own.other_output) == 1, own.other_output
    (line,) = own.other_output
    assert line.startswith(f"xai-sidecar: {key}: ")
    assert address in line
    assert f"--set {key}=" in line
    assert events(own) == ["starting"]
