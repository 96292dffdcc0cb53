"""The device thread dies: callers are told, health turns, and the process is to end with status 1."""

import asyncio
import threading

import grpc
import numpy as np
import pytest

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.command.server import Sidecar
from xai_sidecar.config import parse_config


class Breakable:
    """A backend that gives logits once when it serves, then breaks in a place where nothing can go wrong."""

    device = "cpu"
    engine = "arithmetic"
    engine_note = ""
    version = "1"
    class_count = 3
    default_layer = None
    ood = None

    def __init__(self):
        self.layers = {}
        self.launches = 0
        self.serving = False
        self.running = threading.Event()
        self.go_on = threading.Event()

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        if self.launches > 1:
            raise MemoryError("the device is gone")
        return {1: 0.001}

    def run(self, kind, rows):
        if self.serving:
            self.running.set()
            assert self.go_on.wait(10)
            self.launches += 1
        return (np.tile(np.arange(3, dtype=np.float32), (len(rows[0]), 1)),)

    def close(self):
        raise AssertionError("a lost device cannot be closed")


CONFIG = {
    "model": {"factory": "none:none", "input": {"size": 4}},
    "server": {"grpc": "127.0.0.1:0", "http": "127.0.0.1:0", "drain_seconds": 5},
}


async def test_everyone_is_told():
    backend = Breakable()
    server = Sidecar(parse_config(CONFIG), lambda config: backend, handle_signals=False)
    ready = asyncio.Event()
    ended = asyncio.ensure_future(server.run(on_ready=lambda _: ready.set()))
    await asyncio.wait_for(ready.wait(), 30)
    backend.serving = True
    pixels = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[4, 4, 3], data=bytes(48))
    request = pb.PredictRequest(images=[pb.Image(pixels=pixels)])
    async with grpc.aio.insecure_channel(server.grpc_address) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        first, second = (asyncio.ensure_future(_call(stub, request)) for _ in range(2))
        await asyncio.to_thread(backend.running.wait, 10)
        await asyncio.sleep(0.2)  # for the second to be waiting
        backend.go_on.set()
        answers = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 20)
    lost = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert [error.code() for error in lost] == [grpc.StatusCode.UNAVAILABLE]
    assert "the device is gone" in lost[0].details()
    (answered,) = (answer for answer in answers if isinstance(answer, pb.PredictResponse))
    assert [one.class_id for one in answered.predictions[0].classes] == [2, 1, 0]
    assert await asyncio.wait_for(ended, 20) == 1
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(server.http_address.rpartition(":")[2]))


async def _call(stub, request):
    return await stub.Predict(request, timeout=20)
