"""What it costs to be closed to strangers, and what one caller gets beside another who asks for much.

TLS with tokens over plain: the CPU time of a prediction in the server's process, of two servers that are asked in
turns, the medians of the ratios of rounds. Callers: an explanation of one alone, and beside a hundred of another's.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import statistics
import subprocess
import time
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

_ROUNDS = 12
_BLOCK = 20
_BAR = 1.1
_MASKS = 300
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
        root = _close(closed)
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
                return [*found, _share(encrypted, images["a JPEG file"])]


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


def _share(channel: grpc.Channel, image: pb.Image) -> Figure:
    """The share of the device that a caller with one explanation gets beside one with a hundred."""
    stub = pb_grpc.ExplanationServiceStub(channel)

    def asked(masks: int, seed: int) -> pb.PredictRequest:
        rise = pb.ExplanationRequest(explainer="rise", seed=seed, rise=pb.RiseParameters(mask_count=masks))
        return pb.PredictRequest(images=[image], explanations=[rise])

    def seconds() -> float:
        started = time.perf_counter()
        stub.Predict(asked(_MASKS, 0), timeout=300, metadata=_bearer("one"))
        return time.perf_counter() - started

    seconds()
    shares = []
    for _ in range(3):
        alone = seconds()
        many = [stub.Predict.future(asked(50_000, each), metadata=_bearer("many")) for each in range(_MANY)]
        time.sleep(1.0)
        beside = seconds()
        for call in many:
            call.cancel()
        time.sleep(1.0)
        shares.append((alone + seconds()) / 2 / beside)
    share = statistics.median(shares)
    note = (
        f"1 is all of it; {_MASKS} masks take {alone:.1f} s alone, {beside:.1f} s beside; {_MANY} explanations beside"
    )
    return Figure("share of the device of a caller with one explanation", share, "×", None, note, _LEAST_SHARE)


def _call(channel: grpc.Channel, data: bytes, metadata: tuple[tuple[str, str], ...]) -> Call:
    stub = channel.unary_unary("/xai.v1.ExplanationService/Predict")
    return lambda: stub(data, timeout=60, metadata=metadata)


def _bearer(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer token-of-{name}"),)


def _close(config: Path) -> bytes:
    """Gives a config file TLS and tokens; returns the certificate to trust."""
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
        file.write('tls.certificate = "server.pem"\ntls.key = "server.key"\nauth.tokens = "tokens.toml"\n')
    return (config.parent / "server.pem").read_bytes()
