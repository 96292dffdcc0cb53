"""A real server process on real sockets, with the real sample classifier."""

import contextlib
import fcntl
import hashlib
import http.client
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import grpc
import launcher
import numpy as np
import pytest
import toys
from google.rpc import error_details_pb2, status_pb2
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.ood.outliers import crops
from xai_sidecar.zoo.sample import prepare_sample, sample_picture

MISBEHAVING = Path(__file__).parents[1] / "chaos" / "misbehaving.py"
SOURCES = Path(__file__).parents[2] / "sidecar"
DAY = 24 * 3600
START_SECONDS = 500
STOP_SECONDS = 60


@dataclass
class ServerProcess:
    """A server process; its log is collected as it comes, one parsed JSON object a line."""

    process: subprocess.Popen
    log: list = field(default_factory=list)
    other_output: list = field(default_factory=list)
    grpc: str = ""
    http: str = ""
    ready: threading.Event = field(default_factory=threading.Event)

    def read(self):
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
            except ValueError:
                self.other_output.append(line)
                continue
            self.log.append(entry)
            if entry["event"] == "ready":
                self.grpc, self.http = entry["grpc"], entry["http"]
                self.ready.set()
        self.ready.set()

    def terminate(self):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        status = self.process.wait(STOP_SECONDS)
        self.reader.join(STOP_SECONDS)
        return status

    def __post_init__(self):
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()


@contextlib.contextmanager
def serving(config, *overrides, wait=True, cwd=None, program=("-m", "xai_sidecar"), forked=True):
    """Serves a config file on free ports; kills the process at the end if it still runs."""
    command = [launcher.PYTHON, *program, "serve", "--config", str(config)]
    for override in ("server.grpc=127.0.0.1:0", "server.http=127.0.0.1:0", *overrides):
        command += ["--set", override]
    start = launcher.Popen if forked else subprocess.Popen
    process = start(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy(), cwd=cwd)
    server = ServerProcess(process)
    try:
        if wait:
            assert server.ready.wait(START_SECONDS), "the server did not start in time"
            assert server.grpc, f"the server ended: {server.log} {server.other_output}"
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        server.wait()


def write_sample_config(folder, cache):
    """The sample classifier's config file, with few batch sizes for a quick start."""
    files = prepare_sample(cache)
    path = folder / "sidecar.toml"
    path.write_text(
        f"""
[model]
name = "efficientnet-lite0"
onnx = "{files.onnx}"
labels = "{files.labels}"
batch_sizes = [1, 4]
gradient_batch_sizes = [1]
compile_cache = "{cache / "compiled"}"
[model.input]
size = 224
resize = 256
interpolation = "bicubic"
mean = {127 / 255}
mean_colour = {127 / 255}
std = {128 / 255}
[server]
max_call_seconds = 86400  # for tests of hours of work, of which seconds are done
"""
    )
    return path


@contextlib.contextmanager
def held(folder):
    """Keeps other processes of tests from making the same in a folder."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def sample_cache(request, tmp_path_factory):
    """What is made of the sample classifier, for all processes of tests and for later runs on the same sources."""
    digest = hashlib.sha256(version("mindspore").encode())
    for path in sorted(SOURCES.rglob("*.py")):
        digest.update(path.read_bytes())
    cache = getattr(request.config, "cache", None)  # pytest's may be switched off
    folder = Path(cache.mkdir("xai-sample")) if cache else tmp_path_factory.mktemp("cache")
    with held(folder):
        for old in folder.iterdir():
            if old.is_dir() and time.time() - old.stat().st_mtime > DAY:
                shutil.rmtree(old)
        made = folder / digest.hexdigest()[:16]
        made.mkdir(exist_ok=True)
        made.touch()
    return made


@pytest.fixture(scope="session")
def sample_config(tmp_path_factory, sample_cache):
    """The sample classifier's config file."""
    return write_sample_config(tmp_path_factory.mktemp("config"), sample_cache)


@pytest.fixture(scope="session")
def crops_folder(tmp_path_factory):
    """A folder of 40 pictures, crops of photographs."""
    folder = tmp_path_factory.mktemp("crops")
    for name in ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket"):
        with Image.open(sample_picture(name)) as picture:
            for index, crop in enumerate(crops(picture.convert("RGB"), 8, seed=0)):
                crop.save(folder / f"{name}-{index}.png")
    return folder


@pytest.fixture(scope="session")
def ood_checkpoint(sample_config, sample_cache, crops_folder, tmp_path_factory):
    """An OoD net for the sample classifier, as the command makes it."""
    path = sample_cache / "ood.safetensors"
    command = [*launcher.CLI, "train-ood", "--config", str(sample_config)]
    command += ["--data", str(crops_folder), "--out", str(path), "--epochs", "30"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("ood"))}
    with held(sample_cache):
        if not path.exists():
            done = launcher.run(command, env=environment, capture_output=True, text=True, timeout=START_SECONDS)
            assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="session")
def server(sample_config, ood_checkpoint):
    """A server of the sample classifier with an OoD net, shared by all tests that leave it as they found it."""
    with serving(sample_config, f"ood.checkpoint={ood_checkpoint}") as running:
        yield running


@pytest.fixture(scope="session")
def start_server():
    """`serving`, for tests that want a server of their own."""
    return serving


@pytest.fixture(scope="session")
def only():
    """Overrides that switch every explainer off but those named, for a quick start."""
    return toys.only


# ------------------------------------------------------------------------------------------------ calling it


@dataclass(frozen=True)
class Refusal:
    """A failed call: its gRPC code, and what google.rpc details say."""

    code: str
    message: str
    domain: str = ""
    reason: str = ""
    fields: tuple = ()
    info: dict = field(default_factory=dict)
    retry_seconds: float | None = None
    metadata: dict = field(default_factory=dict)

    def check(self, code, reason, path):
        """That it is of this kind, names the field at fault, and is whole."""
        assert (self.code, self.reason, self.fields) == (code, reason, (path,)), self.message
        assert self.domain == "xai-sidecar"
        assert self.message.startswith(f"{path}: ")
        assert self.message.endswith(".")
        assert self.info["request_id"] == self.metadata["x-request-id"] != ""
        assert self.retry_seconds is None


def _refusal(error):
    metadata = dict(error.trailing_metadata() or ())
    found = {}
    status = status_pb2.Status.FromString(metadata.get("grpc-status-details-bin", b""))
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(packed.value)
    told = found.get(error_details_pb2.ErrorInfo, error_details_pb2.ErrorInfo())
    wrong = found.get(error_details_pb2.BadRequest, error_details_pb2.BadRequest())
    retry = found.get(error_details_pb2.RetryInfo)
    return Refusal(
        code=error.code().name,
        message=error.details(),
        domain=told.domain,
        reason=told.reason,
        fields=tuple(violation.field for violation in wrong.field_violations),
        info=dict(told.metadata),
        retry_seconds=retry and retry.retry_delay.ToNanoseconds() / 1e9,
        metadata=metadata,
    )


@pytest.fixture(scope="session")
def read_refusal():
    """The `Refusal` that a `grpc.RpcError` tells of."""
    return _refusal


@pytest.fixture(scope="session")
def refused():
    """Calls and returns the `Refusal`; fails when the call does not."""

    def refused(method, request, **arguments):
        with pytest.raises(grpc.RpcError) as caught:
            answer = method(request, **{"timeout": 60, **arguments})
            list(answer) if hasattr(answer, "__next__") else answer  # a stream fails when it is read
        return _refusal(caught.value)

    return refused


@pytest.fixture(scope="session")
def connect():
    """A stub for an address, in a `with` statement."""

    @contextlib.contextmanager
    def connect(address, *options):
        with grpc.insecure_channel(address, options=options) as channel:
            yield pb_grpc.ExplanationServiceStub(channel)

    return connect


@pytest.fixture(scope="session")
def stub(server, connect):
    """A stub for the shared server."""
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture(scope="session")
def photo():
    """An encoded picture of a cat, 451 x 300 pixels."""
    return sample_picture("chelsea").read_bytes()


@pytest.fixture(scope="session")
def slow_request(photo):
    """A request that takes seconds: a gradient pass for each target of each picture."""

    def slow_request(images=8, top_count=1):
        explanation = pb.ExplanationRequest(explainer="gradient", encoding=pb.MAP_ENCODING_PNG)
        explanation.targets.top_count = top_count
        return pb.PredictRequest(images=[pb.Image(encoded=photo)] * images, explanations=[explanation])

    return slow_request


@pytest.fixture(scope="session")
def map_of():
    """A SaliencyMap message as float32 (H, W)."""

    def map_of(message):
        if message.WhichOneof("map") == "png":
            grey = np.asarray(Image.open(io.BytesIO(message.png.data)), np.float32)
            low, high = message.png.minimum, message.png.maximum
            return low + grey / 255 * (high - low)
        dtype = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2"}[message.tensor.dtype]
        return np.frombuffer(message.tensor.data, dtype).reshape(tuple(message.tensor.shape)).astype(np.float32)

    return map_of


@pytest.fixture(scope="session")
def get():
    """GET of a path at an HTTP address: (status, body)."""

    def get(address, path):
        connection = http.client.HTTPConnection(address, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    return get


@pytest.fixture(scope="session")
def read_metrics(get):
    """What /metrics shows: a value for each (name, label values in the order of the label names, without `model`)."""

    def read_metrics(address):
        status, text = get(address, "/metrics")
        assert status == 200
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            (each.name, *(value for name, value in sorted(each.labels.items()) if name != "model")): each.value
            for each in samples
        }

    return read_metrics


@pytest.fixture
def free_ports():
    """Two ports that are free for the moment."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="session")
def eventually():
    """Waits until a condition holds; returns what it gave, and fails after the time allowed."""

    def eventually(condition, seconds=60.0, pause=0.02):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            outcome = condition()
            if outcome:
                return outcome
            time.sleep(pause)
        pytest.fail(f"did not become true within {seconds:g} s: {condition}")

    return eventually


# ------------------------------------------------------------------------------------------------ misbehaving servers


@pytest.fixture(scope="session")
def misbehaving():
    """What the misbehaving servers run, to work out what they should have said."""
    spec = importlib.util.spec_from_file_location("misbehaving", MISBEHAVING)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def start_misbehaving(tmp_path_factory, only):
    """Serves the model of `misbehaving.py`, in a `with` statement; takes overrides of the config."""
    path = tmp_path_factory.mktemp("misbehaving") / "sidecar.toml"
    path.write_text('[model]\nfactory = "none:none"\ninput.size = 32\n')
    script = (str(MISBEHAVING),)
    return lambda *overrides, **options: serving(path, *only("gradcam", "rise"), *overrides, program=script, **options)


@pytest.fixture(scope="session")
def picture(misbehaving):
    """A model input by number, poisoned or not, as an `Image` message."""

    def picture(number, poison=None):
        array = np.random.default_rng(number).standard_normal(misbehaving.SHAPE).astype(np.float32)
        if poison is not None:
            array[0, 0, 0] = misbehaving.POISONS[poison]
        tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())
        return pb.Image(model_input=tensor)

    return picture
