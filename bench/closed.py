"""What it costs to be closed to strangers, and what one caller gets beside another who asks for much.

TLS with tokens over plain: the CPU time of a prediction in the server's process, of two servers that are asked in
turns, the medians of the ratios of rounds. Callers: the masks of an explanation beside a hundred of another's.
"""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import socket
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from bench import models
from bench.figure import Figure
from bench.protocols import Call, cpu_seconds
from bench.server import served
from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc

_ROUNDS = 30
_BLOCK = 8
_BAR = 1.1
_MASKS = 400
_MANY = 100
_LEAST_SHARE = 0.45
_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc"
_NAMES = ("one", "many")

Served = tuple[grpc.Channel, int]
"""A server's channel and its process id."""


def figures() -> list[Figure]:
    """Measures with the sample classifier."""
    jpeg = io.BytesIO()
    Image.open(models.photograph()).save(jpeg, "JPEG", quality=90)
    pixels = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=pixels.shape, data=pixels.tobytes())
    images = {"a JPEG file": pb.Image(encoded=jpeg.getvalue()), "a float32 model input": pb.Image(model_input=tensor)}
    with models.sample_config(None) as (_, plain), models.sample_config(None) as (_, closed):
        root, metrics = _close(closed)
        with served(plain) as (address, _, plain_pid), served(closed) as (closed_address, _, closed_pid):
            options = [("grpc.ssl_target_name_override", "localhost")]
            credentials = grpc.ssl_channel_credentials(root)
            with (
                grpc.insecure_channel(address) as channel,
                grpc.secure_channel(closed_address, credentials, options) as encrypted,
            ):
                found = [
                    _over_plain(what, image, (channel, plain_pid), (encrypted, closed_pid))
                    for what, image in images.items()
                ]
                return [*found, _share(encrypted, images["a JPEG file"], metrics)]


def _over_plain(
    what: str, image: pb.Image, plain: tuple[grpc.Channel, int], closed: tuple[grpc.Channel, int]
) -> Figure:
    data = pb.PredictRequest(images=[image]).SerializeToString()
    ways = [
        (_call(channel, data, metadata), pid) for (channel, pid), metadata in ((plain, ()), (closed, _bearer("one")))
    ]
    taken: list[list[float]] = [[], []]
    for call, _ in ways:
        for _ in range(5):
            call()
    for index in range(_ROUNDS):
        for way in (0, 1) if index % 2 else (1, 0):
            call, pid = ways[way]
            before = cpu_seconds(pid)
            for _ in range(_BLOCK):
                call()
            taken[way].append((cpu_seconds(pid) - before) / _BLOCK)
    ratio = statistics.median(one / other for other, one in zip(*taken, strict=True))
    note = f"{1e3 * statistics.median(taken[1]):.2f} ms of CPU; plain {1e3 * statistics.median(taken[0]):.2f} ms"
    return Figure(f"a prediction by TLS with a token over plain, {what}", ratio, "×", _BAR, note)


def _share(channel: grpc.Channel, image: pb.Image, metrics: str) -> Figure:
    """The share of masks that a caller with one explanation gets beside one with a hundred; no clock is asked."""
    stub = pb_grpc.ExplanationServiceStub(channel)

    def asked(masks: int, seed: int) -> pb.PredictRequest:
        rise = pb.ExplanationRequest(explainer="rise", seed=seed, rise=pb.RiseParameters(mask_count=masks))
        return pb.PredictRequest(images=[image], explanations=[rise])

    many = [stub.Predict.future(asked(50_000, each), metadata=_bearer("many")) for each in range(_MANY)]
    begun = _masks_run(metrics)
    while _masks_run(metrics) < begun + _MASKS:
        time.sleep(0.05)
    shares = []
    for seed in range(3):
        before = _masks_run(metrics)
        stub.Predict(asked(_MASKS, seed), timeout=600, metadata=_bearer("one"))
        shares.append(_MASKS / (_masks_run(metrics) - before))
    for call in many:
        call.cancel()
    note = f"of the masks that were run while its {_MASKS} were, beside {_MANY} explanations of another"
    return Figure(
        "share of a caller with one explanation", statistics.median(shares), "×", None, note, at_least=_LEAST_SHARE
    )


def _masks_run(metrics: str) -> float:
    """Masked rows that have been run so far."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(r'(?m)^xai_launch_rows_total{.*kind="masked.*} (\S+)$', text))


def _call(channel: grpc.Channel, data: bytes, metadata: tuple[tuple[str, str], ...]) -> Call:
    stub = channel.unary_unary("/xai.v1.ExplanationService/Predict")
    return lambda: stub(data, timeout=60, metadata=metadata)


def _bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer token-of-{name}"),)


def _close(config: Path) -> tuple[bytes, str]:
    """Gives a config file TLS and tokens; returns the certificate to trust, and where its metrics are."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    files = "-keyout server.key -out server.pem"
    command = f"openssl req -x509 {_KEY} -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost {files}"
    subprocess.run(shlex.split(command), cwd=config.parent, check=True, capture_output=True)
    digests = {name: hashlib.sha256(f"token-of-{name}".encode()).hexdigest() for name in _NAMES}
    entries = (
        f'[[tokens]]\nname = "{name}"\nsha256 = "{digest}"\nroles = ["predict", "explain"]\n'
        for name, digest in digests.items()
    )
    (config.parent / "tokens.toml").write_text("".join(entries))
    with config.open("a") as file:
        file.write(f'probes = "{metrics}"\n')
        file.write('tls.certificate = "server.pem"\ntls.key = "server.key"\nauth.tokens = "tokens.toml"\n')
    return (config.parent / "server.pem").read_bytes(), metrics
