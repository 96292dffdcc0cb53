"""A small server with scripted answers, on a real socket."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import status_pb2
from PIL import Image

from xai_client import AsyncClient, Client
from xai_client.command import main as cli
from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc


@dataclass(frozen=True)
class Failure:
    """A status to fail with, its details, and trailing metadata besides."""

    code: grpc.StatusCode
    message: str = "scripted"
    details: tuple[Message, ...] = ()
    trailing: tuple[tuple[str, str | bytes], ...] = ()

    def abort(self, context: grpc.ServicerContext) -> None:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        entries = list(self.trailing)
        if self.details:
            entries.append(("grpc-status-details-bin", status.SerializeToString()))
        context.set_trailing_metadata(tuple(entries))
        context.abort(self.code, self.message)


@dataclass
class Received:
    method: str
    request: Any
    metadata: dict[str, str | bytes]
    time_remaining: float | None
    arrived: float = field(default_factory=time.monotonic)
    ended: threading.Event = field(default_factory=threading.Event)


@dataclass
class Fake(pb_grpc.ExplanationServiceServicer):
    """Plays the script entry by entry, then answers normally. An entry is a Failure, a message, or a function."""

    script: list[Any] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    address: str = ""

    def requests(self, method: str) -> list[Any]:
        return [each.request for each in self.received if each.method == method]

    def _play(self, method: str, request: Any, context: Any, normal: Callable[[Any], Any]) -> Any:
        metadata = {each.key: each.value for each in context.invocation_metadata()}
        received = Received(method, request, metadata, context.time_remaining())
        context.add_callback(received.ended.set)
        self.received.append(received)
        entry = self.script.pop(0) if self.script else normal
        if isinstance(entry, Failure):
            entry.abort(context)
        return entry(request) if callable(entry) else entry

    def Predict(self, request, context):  # noqa: N802
        return self._play("Predict", request, context, respond)

    def PredictStream(self, request, context):  # noqa: N802
        for event in self._play("PredictStream", request, context, lambda _: iter(())):
            if isinstance(event, Failure):
                event.abort(context)
            yield event

    def ReportGroundTruth(self, request, context):  # noqa: N802
        return self._play("ReportGroundTruth", request, context, lambda _: pb.ReportGroundTruthResponse(changed=True))

    def GetModelInfo(self, request, context):  # noqa: N802
        return self._play("GetModelInfo", request, context, lambda _: pb.GetModelInfoResponse(model=describe()))


MAP = np.arange(12, dtype=np.float32).reshape(3, 4)


def float_map(class_id: int = 7, values: np.ndarray = MAP, **more: Any) -> pb.SaliencyMap:
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=values.shape, data=values.astype("<f4").tobytes())
    return pb.SaliencyMap(class_id=class_id, label=f"label {class_id}", status=pb.MAP_STATUS_OK, tensor=tensor, **more)


def respond(request: pb.PredictRequest) -> pb.PredictResponse:
    """Two classes for each picture, its real size, all of it as the region, and `MAP` for every target."""
    response = pb.PredictResponse(request_id=request.request_id, model_version="v1")
    for image in request.images:
        prediction = response.predictions.add()
        prediction.classes.add(class_id=7, label="tabby cat", probability=0.75, logit=3.5)
        prediction.classes.add(class_id=2, label="dog", probability=0.25, logit=2.0)
        if image.WhichOneof("source") == "encoded":
            width, height = Image.open(io.BytesIO(image.encoded)).size
            prediction.picture.width, prediction.picture.height = width, height
            prediction.region.right, prediction.region.bottom = width, height
        if request.ood:
            prediction.ood.score, prediction.ood.percentile = -1.5, 12.0
        for wanted in request.explanations:
            explanation = prediction.explanations.add(
                name=wanted.name,
                explainer=wanted.explainer,
                status=pb.EXPLANATION_STATUS_COMPLETE,
                pass_count=9,
                maps=[float_map(target) for target in wanted.targets.class_ids or [7]],
            )
            explanation.elapsed.FromMilliseconds(1500)
    return response


def describe() -> pb.ModelInfo:
    model = pb.ModelInfo(
        name="lite0",
        version="abc123",
        class_count=2,
        labels=["cat", "dog"],
        activation=pb.ACTIVATION_SOFTMAX,
        device="cpu",
        engine="mindspore 2.10.0",
        server_version="0.1.0",
        input=pb.InputInfo(
            channels=3,
            height=224,
            width=224,
            resize_height=256,
            resize_width=256,
            interpolation="bicubic",
            mean=[0.5, 0.25, 0.125],
            std=[1.0, 0.5, 0.25],
            mean_colour=[0.25, 0.5, 0.75],
        ),
        limits=pb.Limits(
            max_image_count=8,
            max_pixel_count=1000,
            max_message_bytes=2000,
            max_explanation_count=4,
            max_target_count=5,
            max_pass_count=6000,
            max_call_duration={"seconds": 7, "nanos": 500_000_000},
        ),
    )
    model.ready_time.FromJsonString("2024-05-01T12:00:00Z")
    batch = model.batches.add(batch_size=8)
    batch.duration.FromMilliseconds(40)
    rise = model.explainers.add(name="rise", description="Randomised input sampling.", available=True)
    rise.cost.pass_count = 4000
    rise.cost.duration.FromMilliseconds(2500)
    masks = rise.parameters.add(
        name="masks", description="Most masks to spend.", type=pb.PARAMETER_TYPE_INTEGER, minimum=1, maximum=32000
    )
    masks.default_value.number_value = 4000
    scale = rise.parameters.add(
        name="normalization", description="Scaling.", type=pb.PARAMETER_TYPE_STRING, choices=["none", "max"]
    )
    scale.default_value.string_value = "none"
    rise.quality.add(
        metric="faithfulness/deletion_auc", mean=0.25, confidence_half_width=0.125, sample_count=50, goodness=0.75
    ).update_time.FromJsonString("2024-05-02T00:00:00Z")
    model.explainers.add(
        name="rise_plus", description="With inlier weights.", available=False, unavailable_reason="there is no OoD net"
    )
    rise.composite_score = 0.625
    evaluator = model.evaluator
    evaluator.sample_rate, evaluator.state, evaluator.window_sample_count = 0.01, pb.EVALUATOR_STATE_UP_TO_DATE, 50
    evaluator.last_sample_time.FromJsonString("2024-05-02T01:02:03Z")
    evaluator.window.seconds = 86400
    evaluator.note = "Objects were reported for none of them."
    evaluator.metrics.add(
        name="faithfulness/deletion_auc",
        description="How fast the probability falls.",
        higher_is_better=False,
        minimum=0,
        maximum=1,
    )
    accuracy = evaluator.accuracy
    accuracy.picture_count, accuracy.share = 4, 0.75
    accuracy.classes.add(class_id=1, label="dog", true_positives=3, false_positives=1)
    model.layers.add(name="stem", channels=16, height=112, width=112, available=True)
    model.layers.add(name="head", channels=320, height=7, width=7, available=True, compiled=True, is_default=True)
    model.weights = "Of lite0.ckpt, all 240 parameters."
    model.ood.training_sample_count = 5000
    model.ood.auroc["noise"] = 0.75
    return model


@pytest.fixture
def fake() -> Iterator[Fake]:
    servicer = Fake()
    server = grpc.server(
        futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", 64 * 2**20), ("grpc.so_reuseport", 0)],
    )
    pb_grpc.add_ExplanationServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield servicer
    server.stop(None).wait(5)


class Blocking:
    """The sync client, called as the async one is."""

    def __init__(self, *args, **kwargs):
        self._client = Client(*args, **kwargs)

    async def call(self, method, *args, **kwargs):
        return await asyncio.to_thread(getattr(self._client, method), *args, **kwargs)

    async def stream(self, *args, **kwargs):
        return await asyncio.to_thread(lambda: list(self._client.stream(*args, **kwargs)))


class Awaiting:
    def __init__(self, *args, **kwargs):
        self._client = AsyncClient(*args, **kwargs)

    async def call(self, method, *args, **kwargs):
        return await getattr(self._client, method)(*args, **kwargs)

    async def stream(self, *args, **kwargs):
        return [event async for event in self._client.stream(*args, **kwargs)]


@pytest.fixture(params=[Blocking, Awaiting], ids=["sync", "async"])
async def connect(request):
    clients = []

    def make(*args, **kwargs):
        clients.append(request.param(*args, **kwargs))
        return clients[-1]

    yield make
    for client in clients:
        await client.call("close")


@pytest.fixture
def failure() -> type[Failure]:
    return Failure


@pytest.fixture
def make_map() -> Callable[..., pb.SaliencyMap]:
    return float_map


@pytest.fixture
def answer() -> Callable[[pb.PredictRequest], pb.PredictResponse]:
    """The server's normal answer, to be altered."""
    return respond


@pytest.fixture
def described_model() -> pb.ModelInfo:
    return describe()


@pytest.fixture
def run(fake, capsys, monkeypatch, tmp_path):
    """Runs the command line in `tmp_path`; returns its status and what it wrote to stdout and stderr."""
    monkeypatch.setenv("XAI_SERVER", fake.address)
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        status = cli.main([str(each) for each in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def spawn(fake, tmp_path):
    """Runs the command line as a process in `tmp_path`; keywords are environment variables."""
    # A width in the environment, as pytest's workers have it, wins over that of the terminal.
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}

    def start(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more):
        return subprocess.Popen(
            [sys.executable, "-m", "xai_client", *map(str, argv)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=tmp_path,
            env={**inherited, "XAI_SERVER": fake.address, **more},
        )

    return start


@pytest.fixture
def jpeg() -> bytes:
    """A picture of 40 x 30 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (90, 120, 150)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def cat(tmp_path, jpeg):
    """The path of a JPEG file of 40 x 30 pixels."""
    path = tmp_path / "cat.jpg"
    path.write_bytes(jpeg)
    return path
