"""Pictures and answers off the event loop: what waits for what, what is refused, and what ends with its call."""

import asyncio
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.rpc import codec as codecs
from xai_sidecar.rpc.codec import Codec
from xai_sidecar.serving.workers import AbandonedError, Task, WorkerPool


def png(side, array=None):
    out = io.BytesIO()
    (Image.new("L", (side, side)) if array is None else Image.fromarray(array)).save(out, "PNG")
    return pb.Image(encoded=out.getvalue())


def tensor(array, dtype):
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


@pytest.fixture
def codec_of(make_model, request):
    """A codec with overrides of the config, and the model's input."""

    def codec_of(*overrides):
        model = make_model(*overrides)
        codec = Codec(model.config.server)
        request.addfinalizer(codec.close)
        return codec, model.input

    return codec_of


@pytest.fixture
def held(monkeypatch):
    """Decoding of what is larger than 100 pixels goes on looking whether to stop, until the event is set."""
    go_on, begun = threading.Event(), []
    read = codecs.read_image

    def slow(image, spec, limits, look):
        size = Image.open(io.BytesIO(image.encoded)).size[0] if image.encoded else 0
        begun.append(size)
        while size > 100 and not go_on.is_set():
            look()
            time.sleep(0.001)
        return read(image, spec, limits, look)

    monkeypatch.setattr(codecs, "read_image", slow)
    yield go_on, begun
    go_on.set()


async def eventually(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_pictures_of_every_kind(codec_of):
    codec, spec = codec_of()
    pixels = pb.Image(pixels=tensor(np.full((10, 12, 3), 255, np.uint8), pb.DATA_TYPE_UINT8))
    ready = np.random.default_rng(0).standard_normal((3, 6, 8)).astype(np.float32)
    input_ = pb.Image(model_input=tensor(ready, pb.DATA_TYPE_FLOAT32))
    images = [pixels, input_, png(9), png(3000)]
    one, other, small, large = asyncio.run(codec.prepare(images, spec))
    white = [(1 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    np.testing.assert_allclose(one.array, np.broadcast_to(np.reshape(white, (3, 1, 1)), (3, 6, 8)), rtol=1e-5)
    np.testing.assert_array_equal(other.array, ready)
    assert [each.picture_size for each in (one, other, small, large)] == [(12, 10), None, (9, 9), (3000, 3000)]
    assert asyncio.run(codec.prepare([input_], spec))[0].region is None
    for images, field in [([pixels, pb.Image()], "images[1]"), ([input_, pb.Image(encoded=b"x")], "images[1].encoded")]:
        with pytest.raises(errors.PictureError) as caught:
            asyncio.run(codec.prepare(images, spec))
        assert caught.value.field == field


def test_pixels_of_a_request(codec_of):
    codec, spec = codec_of("server.max_pixels=10000")
    assert len(asyncio.run(codec.prepare([png(100)] * 2, spec))) == 2
    with pytest.raises(errors.PictureTooLargeError, match="30,000 pixels, of at most 20,000") as caught:
        asyncio.run(codec.prepare([png(100)] * 3, spec))
    assert caught.value.field == "images[2].encoded"
    codec, spec = codec_of("server.max_pixels=10000", "server.max_request_pixels=5000")
    with pytest.raises(errors.PictureTooLargeError):
        asyncio.run(codec.prepare([png(100)], spec))


def test_pixels_of_all_requests(codec_of, held):
    go_on, _ = held

    async def run():
        codec, spec = codec_of("server.queue_pixels=80000")
        first = asyncio.ensure_future(codec.prepare([png(300)], spec))  # alone it may have more
        await asyncio.sleep(0)
        with pytest.raises(errors.OverloadedError) as caught:
            await codec.prepare([png(10)], spec)
        assert caught.value.retry_seconds
        ready = np.zeros((3, 6, 8), np.float32)
        await codec.prepare([pb.Image(model_input=tensor(ready, pb.DATA_TYPE_FLOAT32))], spec)  # nothing to decode
        go_on.set()
        await first
        await codec.prepare([png(10)], spec)

    asyncio.run(run())


def test_the_cheap_does_not_wait_for_the_dear(codec_of, held):
    go_on, _ = held

    async def run():
        codec, spec = codec_of()
        dear = [asyncio.ensure_future(codec.prepare([png(1500)] * 8, spec)) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.wait_for(codec.prepare([png(10)] * 3, spec), 30)
            assert await asyncio.wait_for(codec.run(lambda: "answer"), 30) == "answer"
        assert not any(each.done() for each in dear)
        go_on.set()
        assert [len(each) for each in await asyncio.gather(*dear)] == [8] * 4

    asyncio.run(run())


def test_smaller_ones_overtake(codec_of, held, monkeypatch):
    monkeypatch.setattr(codecs, "_MOST_DEAR_THREADS", 1)
    go_on, begun = held

    async def run():
        codec, spec = codec_of()
        busy = asyncio.ensure_future(codec.prepare([png(1500)], spec))
        await eventually(lambda: begun == [1500])
        rest = [asyncio.ensure_future(codec.prepare([png(side)], spec)) for side in (4000, 3000, 2000)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(busy, *rest)
        assert begun == [1500, 2000, 3000, 4000]

    asyncio.run(run())


def test_what_nobody_waits_for_is_given_up(codec_of, held):
    go_on, begun = held

    async def run():
        codec, spec = codec_of()
        left = asyncio.ensure_future(codec.prepare([png(1500)] * 12, spec))
        await eventually(lambda: begun)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert codec._pixels == 0
        task = Task(lambda look: "next")
        codec._dear.submit(task, float("inf"))  # after all that waits
        assert await asyncio.wait_for(asyncio.wrap_future(task.future), 30) == "next"
        assert len(begun) <= len(codec._dear._threads), "what waited was begun"
        assert not go_on.is_set()

    asyncio.run(run())


def test_the_rest_of_a_request_is_given_up_after_an_error(codec_of, held):
    async def run():
        codec, spec = codec_of()
        cut = png(0, np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)).encoded[:-300]
        with pytest.raises(errors.PictureError) as caught:
            await asyncio.wait_for(codec.prepare([pb.Image(encoded=cut), *[png(1500)] * 9], spec), 30)
        assert caught.value.field == "images[0].encoded"
        task = Task(lambda look: "next")
        codec._dear.submit(task, float("inf"))
        assert await asyncio.wait_for(asyncio.wrap_future(task.future), 30) == "next"

    asyncio.run(run())


def test_bounds_in_time(codec_of, held):
    codec, spec = codec_of("server.decode_seconds=0.005")
    with pytest.raises(errors.PictureTooLargeError, match=r"0.005 s of CPU time") as caught:
        asyncio.run(codec.prepare([png(1500)], spec))
    assert caught.value.field == "images[0]"
    codec, spec = codec_of()
    with pytest.raises(errors.ExpiredError):
        asyncio.run(codec.prepare([png(1500)], spec, time.monotonic() + 0.05))


def test_a_task_that_is_abandoned_does_not_begin():
    done = []
    task = Task(lambda look: done.append(1))
    task.abandon()
    task.run()
    assert done == []
    assert task.future.cancelled()


def test_a_task_that_is_abandoned_ends_at_its_next_look():
    done = []

    def work(look):
        task.abandon()
        look()
        done.append(1)

    task = Task(work)
    task.run()
    assert done == []
    assert isinstance(task.future.exception(), AbandonedError)


def test_a_lane_goes_on_after_errors_and_ends():
    lane = WorkerPool(1, "lane")

    def fail(look):
        raise MemoryError

    failing, fine = Task(fail), Task(lambda look: 1)
    for task in (failing, fine):
        lane.submit(task, 0)
    assert isinstance(failing.future.exception(30), MemoryError)
    assert fine.future.result(30) == 1
    lane.close()
    for thread in lane._threads:
        thread.join(30)
        assert not thread.is_alive()
