"""Pictures made to keep a server busy: nobody else waits for them, and they are given up with their callers."""

import functools
import io
import os
import struct
import threading
import time
import zlib
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

SIDE = 7000  # 49 megapixels, within server.max_pixels
SMALL_SECONDS = 5  # of a small picture on a busy machine; a bomb alone takes longer in no format, all together minutes


def blank(kind, **options):
    out = io.BytesIO()
    Image.new(options.pop("mode", "L"), (SIDE, SIDE)).save(out, kind, **options)
    return out.getvalue()


def scans(count, side):
    """A progressive JPEG whose last scan comes again and again."""
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, "JPEG", progressive=True)
    last = out.getvalue().rindex(b"\xff\xda")
    return out.getvalue()[:-2] + out.getvalue()[last:-2] * count + b"\xff\xd9"


def chunks():
    """A PNG of a million chunks before its pixels."""
    out = io.BytesIO()
    Image.new("L", (64, 64)).save(out, "PNG")
    text = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    return out.getvalue()[:33] + text * 1_000_000 + out.getvalue()[33:]


def run_lengths():
    head = b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 1078, 40, 1000, 1000, 1, 8, 1, 0, 0, 0, 256, 0)
    return head + bytes(1024) + b"\0\0" * 4_000_000


BOMBS = {
    "scans": lambda: scans(4000, 3000),
    "fewer scans": lambda: scans(80, SIDE),
    "chunks": chunks,
    "run lengths": run_lengths,
    "png": lambda: blank("PNG", mode="RGB"),
    "gif": lambda: blank("GIF"),
    "webp": lambda: blank("WEBP", mode="RGB", lossless=True, quality=0, method=0),
    "tiff": lambda: blank("TIFF", mode="RGB", compression="tiff_adobe_deflate"),
}
REFUSED = {"scans", "chunks", "run lengths"}


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving() as running:
        yield running


@pytest.fixture(scope="module")
def small():
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG")
    return pb.PredictRequest(images=[pb.Image(encoded=out.getvalue())])


@functools.cache
def made(name):
    """Only when it is asked for: it takes a second."""
    return BOMBS[name]()


def bomb(name, count=1):
    return pb.PredictRequest(images=[pb.Image(encoded=made(name))] * count)


def cpu_seconds(server):
    numbers = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_costs_too_much_is_refused(server, connect, read_refusal, name):
    before = cpu_seconds(server)
    with connect(server.grpc) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(bomb(name), timeout=60)
    refusal = read_refusal(caught.value)
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.fields == ("images[0].encoded",)
    assert cpu_seconds(server) - before < 2


def test_many_large_ones_in_a_request_are_refused(server, connect, read_refusal):
    before = cpu_seconds(server)
    with connect(server.grpc) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(bomb("png", 10), timeout=60)
    refusal = read_refusal(caught.value)
    assert (refusal.reason, refusal.fields) == ("PICTURE_TOO_LARGE", ("images[2].encoded",))
    assert cpu_seconds(server) - before < 1


def test_small_pictures_among_large_ones(server, connect, small, check_unharmed):
    """All bombs at once, again and again, for as long as small pictures are asked for; then their callers go."""
    end = threading.Event()
    for name in BOMBS:
        made(name)

    def throw(name):
        with connect(server.grpc) as stub:
            while not end.is_set():
                call = stub.Predict.future(bomb(name, 1 if name in REFUSED else 2), timeout=120)
                while not (end.wait(0.05) or call.done()):
                    pass
                call.cancel()

    throwers = [threading.Thread(target=throw, args=(name,)) for name in BOMBS]
    for thrower in throwers:
        thrower.start()
    try:
        with connect(server.grpc) as stub:
            expected = stub.Predict(small, timeout=60).predictions
            for _ in range(15):
                started = time.monotonic()
                assert stub.Predict(small, timeout=60).predictions == expected
                assert time.monotonic() - started < SMALL_SECONDS
    finally:
        end.set()
        for thrower in throwers:
            thrower.join(60)
    check_unharmed(server, small)
    before = cpu_seconds(server)
    time.sleep(0.5)
    assert cpu_seconds(server) - before < 0.25, "it decodes for nobody"
