"""Callers who leave in crowds, politely or by dying: the server does no more for them, and keeps nothing of theirs.

Four crowds by default; XAI_SOAK=100 for that many.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grpc
import pytest

from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar.zoo.sample import sample_picture

pytestmark = pytest.mark.timed

ROUNDS = int(os.environ.get("XAI_SOAK", "4"))
CALLERS, CHANNELS = 200, 20
LONGEST_STAY = 2.5
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
GROWTH = 64 * 2**20


def rise(masks, **fields):
    return pb.ExplanationRequest(explainer="rise", seed=5, rise=pb.RiseParameters(mask_count=masks), **fields)


@pytest.fixture(scope="module")
def server(start_misbehaving):
    with start_misbehaving("server.repeat_seconds=0") as running:  # the same request is to be worked on again
        yield running


@pytest.fixture(scope="module")
def stub(server, connect):
    with connect(server.grpc) as stub:
        yield stub


@pytest.fixture(scope="module")
def healthy(photo):
    """A request for a bit of everything."""
    wanted = [pb.ExplanationRequest(explainer="gradcam"), rise(48)]
    return pb.PredictRequest(images=[pb.Image(encoded=photo)], explanations=wanted, request_id="healthy")


@pytest.fixture(scope="module")
def answer(stub, healthy):
    """What it is answered before anything has happened."""
    return stub.Predict(healthy, timeout=60)


def same(one, other):
    """That two answers are the same but for how long they took."""
    for response in (one, other):
        for explanation in response.predictions[0].explanations:
            explanation.ClearField("elapsed")
    assert one == other


@pytest.fixture
def crowd(server, photo):
    """Has many callers come at once and leave at random moments; returns the codes that their calls ended with."""
    image = pb.Image(encoded=photo)
    budgeted = rise(20_000, name="budgeted")
    budgeted.budget.FromSeconds(60)
    wanted = [
        [rise(2000)],
        [pb.ExplanationRequest(explainer="gradcam"), rise(2000, targets=pb.Targets(top_count=3))],
        [budgeted],
        [],
    ]

    async def call(stub, number, stay):
        request = pb.PredictRequest(images=[image], explanations=wanted[number // 2 % 4])
        if number % 2:
            call = stub.Predict(request)
            reading = asyncio.ensure_future(call.code())
        else:
            stream = pb.PredictStreamRequest(request=request)
            stream.progress_interval.FromMilliseconds(20)
            call = stub.PredictStream(stream)
            reading = asyncio.ensure_future(read(call))
        await asyncio.wait([reading], timeout=stay)
        call.cancel()
        await asyncio.wait_for(reading, 30)
        return await call.code()

    async def read(call):
        try:
            async for _ in call:
                pass
        except (grpc.RpcError, asyncio.CancelledError):
            pass

    async def come_and_go(seed):
        chance = random.Random(seed)
        channels = [grpc.aio.insecure_channel(server.grpc, options=OWN_CONNECTION) for _ in range(CHANNELS)]
        stubs = [pb_grpc.ExplanationServiceStub(channel) for channel in channels]
        calls = [call(stubs[number % CHANNELS], number, chance.uniform(0, LONGEST_STAY)) for number in range(CALLERS)]
        codes = await asyncio.gather(*calls)
        for channel in channels:
            await channel.close()
        return Counter(code.name for code in codes)

    return lambda seed: asyncio.run(come_and_go(seed))


def test_hundreds_who_cancel(server, crowd, answer, healthy, check_unharmed, read_metrics):
    """Later crowds find the memory that two have left: how much one takes at a time is for chance to say."""

    def resident():
        return read_metrics(server.http)["process_resident_memory_bytes",]

    before = resident()
    sizes = []
    for seed in range(ROUNDS):
        codes = crowd(seed)
        assert set(codes) <= {"CANCELLED", "OK"}, codes
        assert codes["CANCELLED"] > CALLERS / 4, "too few left for this to mean anything"
        same(check_unharmed(server, healthy), answer)
        sizes.append(resident())
    assert max(sizes) - before < 6 * GROWTH
    assert max(sizes[ROUNDS // 2 :]) - max(sizes[: ROUNDS // 2]) < GROWTH
    cancelled = read_metrics(server.http)["xai_jobs_total", "explain", "cancelled"]
    assert cancelled > CALLERS / 2


def test_processes_that_are_killed(server, answer, healthy, check_unharmed, read_metrics, eventually):
    """They cannot say goodbye; the server finds their connections broken."""
    readers, streams = 4, 6
    script = [sys.executable, str(Path(__file__).parent / "readers.py"), server.grpc, str(sample_picture("chelsea"))]
    processes = [subprocess.Popen([*script, str(streams)], stdout=subprocess.PIPE, text=True) for _ in range(readers)]
    try:
        assert [process.stdout.readline() for process in processes] == ["reading\n"] * readers
        assert read_metrics(server.http)["xai_open_explanations",] == readers * streams
        processes[0].kill()
        eventually(lambda: read_metrics(server.http)["xai_open_explanations",] == (readers - 1) * streams)
    finally:
        for process in processes:
            process.kill()
    assert [process.wait(10) for process in processes] == [-signal.SIGKILL] * readers
    for process in processes:
        process.stdout.close()
    same(check_unharmed(server, healthy), answer)
