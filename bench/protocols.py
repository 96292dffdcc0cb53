"""CPU time of a prediction in the server by each protocol, over that of the same prediction by the contract's Predict.

The calls of all protocols take turns in short blocks, so that all meet the same noise; the figures are medians of the
ratios of rounds. The CPU time is that of the server's process alone.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from bench import models
from bench.figure import Figure
from bench.server import served
from xai_proto import explanation_pb2 as pb
from xai_proto import open_inference_pb2 as oip

_ROUNDS = 10
_BLOCK = 16
_BAR = 1.1

Call = Callable[[], object]


def figures() -> list[Figure]:
    """Measures with the sample classifier: a JPEG file, and a model input of float32."""
    jpeg = io.BytesIO()
    Image.open(models.photograph()).save(jpeg, "JPEG", quality=90)
    pixels = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
    with (
        models.sample_config(None) as (config, path),
        _serving(path) as (address, http_port, pid),
        grpc.insecure_channel(address) as channel,
    ):
        name = config.model.name
        of_file = _ratios("a JPEG file", _calls(channel, http_port, name, jpeg.getvalue(), None), pid)
        return of_file + _ratios("a float32 model input", _calls(channel, http_port, name, None, pixels), pid)


def _ratios(what: str, calls: dict[str, Call], pid: int) -> list[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(3):
            call()
    for index in range(_ROUNDS):
        order = list(calls) if index % 2 else list(reversed(calls))
        for name in order:
            before = cpu_seconds(pid)
            for _ in range(_BLOCK):
                calls[name]()
            taken[name].append((cpu_seconds(pid) - before) / _BLOCK)
    base = taken.pop("Predict")
    note = f"Predict takes {1e3 * statistics.median(base):.2f} ms of CPU"
    return [
        Figure(
            f"{name} over Predict, {what}",
            statistics.median(one / other for one, other in zip(values, base, strict=True)),
            "×",
            _BAR if name == "ModelInfer" else None,
            f"{1e3 * statistics.median(values):.2f} ms; {note}",
        )
        for name, values in taken.items()
    ]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in nanoseconds' precision where the kernel keeps it of its threads."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has just ended
            total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def _calls(
    channel: grpc.Channel, http_port: int, model: str, file: bytes | None, pixels: np.ndarray | None
) -> dict[str, Call]:
    """The same prediction by each protocol; requests are encoded beforehand, answers are not decoded."""
    if pixels is None:
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
        raw = len(file or b"").to_bytes(4, "little") + (file or b"")
        image = pb.Image(encoded=file)
    else:
        tensor = {"name": "model_input", "datatype": "FP32", "shape": [1, *pixels.shape]}
        raw = pixels.tobytes()
        image = pb.Image(model_input=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=pixels.shape, data=pixels.tobytes()))
    predict = pb.PredictRequest(images=[image]).SerializeToString()
    infer = oip.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[raw]).SerializeToString()
    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}]}
    text = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", http_port)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(path: str, body: bytes, headers: dict[str, str]) -> Call:
        def call() -> None:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200:
                raise RuntimeError(data.decode())

        return call

    calls = {
        "Predict": _grpc(channel, "/xai.v1.ExplanationService/Predict", predict),
        "ModelInfer": _grpc(channel, "/inference.GRPCInferenceService/ModelInfer", infer),
        "/v2 with binary data": post(
            f"/v2/models/{model}/infer", text + raw, {"Inference-Header-Content-Length": str(len(text))}
        ),
    }
    if file is not None:
        message = json.dumps({"images": [{"encoded": base64.b64encode(file).decode()}]}).encode()
        calls["/v1/predict"] = post("/v1/predict", message, {})
    return calls


def _grpc(channel: grpc.Channel, method: str, request: bytes) -> Call:
    stub = channel.unary_unary(method)
    return lambda: stub(request, timeout=60)


@contextmanager
def _serving(path: Path) -> Iterator[tuple[str, int, int]]:
    """A server process of a config file: its gRPC address, its HTTP port and its process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path.write_text(path.read_text().replace('http = "127.0.0.1:0"', f'http = "127.0.0.1:{port}"'))
    with served(path) as (address, _, pid):
        yield address, port, pid
