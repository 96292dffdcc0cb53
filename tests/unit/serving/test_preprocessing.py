"""Pictures off the event loop: what waits for what, what is refused, and what ends with its call."""

import asyncio
import io
import threading
import time
import weakref

import numpy as np
import pytest
from PIL import Image

from xai_sidecar import errors
from xai_sidecar.serving import preprocessing, workers
from xai_sidecar.serving.preprocessing import Preprocessor, read_picture
from xai_sidecar.serving.requests import Converted, EncodedPicture, ModelInput, Pixels
from xai_sidecar.serving.workers import AbandonedError, WorkerPool, Workers, WorkerTask


def png(side, array=None):
    out = io.BytesIO()
    (Image.new("L", (side, side)) if array is None else Image.fromarray(array)).save(out, "PNG")
    return EncodedPicture(out.getvalue())


@pytest.fixture
def start(make_model, request):
    """A preprocessor with overrides of the config, and the model's input."""

    def start(*overrides):
        model = make_model(*overrides)
        threads = Workers()
        request.addfinalizer(threads.close)
        return Preprocessor(threads, model.config.server), model.input

    return start


@pytest.fixture
def held(monkeypatch):
    """Decoding of what is larger than 100 pixels goes on looking whether to stop, until the event is set."""
    go_on, begun = threading.Event(), []
    read = preprocessing.read_picture

    def slow(image, spec, limits, look):
        size = Image.open(io.BytesIO(image.data)).size[0] if isinstance(image, EncodedPicture) else 0
        begun.append(size)
        while size > 100 and not go_on.is_set():
            look()
            time.sleep(0.001)
        return read(image, spec, limits, look)

    monkeypatch.setattr(preprocessing, "read_picture", slow)
    yield go_on, begun
    go_on.set()


async def eventually(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


def test_pictures_of_every_kind(start):
    preprocessor, spec = start()
    pixels = Pixels(np.full((10, 12, 3), 255, np.uint8))
    ready = np.random.default_rng(0).standard_normal((3, 6, 8)).astype(np.float32)
    input_ = ModelInput(ready)
    images = [pixels, input_, png(9), png(3000)]
    one, other, small, large = asyncio.run(preprocessor.prepare(images, spec))
    white = [(1 - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True)]
    np.testing.assert_allclose(one.array, np.broadcast_to(np.reshape(white, (3, 1, 1)), (3, 6, 8)), rtol=1e-5)
    np.testing.assert_array_equal(other.array, ready)
    assert [each.picture_size for each in (one, other, small, large)] == [(12, 10), None, (9, 9), (3000, 3000)]
    assert asyncio.run(preprocessor.prepare([input_], spec))[0].region is None
    with pytest.raises(errors.PictureError) as caught:
        asyncio.run(preprocessor.prepare([input_, EncodedPicture(b"x")], spec))
    assert caught.value.field == "images[1].encoded"


def test_pictures_that_are_converted_only_now(start):
    preprocessor, spec = start()

    def convert(value):
        if value is None:
            raise errors.PictureError("It is none.", field="within")
        return Pixels(np.full((10, 12, 3), value, np.uint8))

    assert len(asyncio.run(preprocessor.prepare(Converted([0, 9], convert), spec))) == 2
    with pytest.raises(errors.PictureError) as caught:
        asyncio.run(preprocessor.prepare(Converted([0, None], convert), spec))
    assert caught.value.field == "images[1].within"


def test_pixels_of_a_request(start):
    preprocessor, spec = start("server.max_pixels=10000")
    assert len(asyncio.run(preprocessor.prepare([png(100)] * 2, spec))) == 2
    with pytest.raises(errors.PictureTooLargeError, match="30,000 pixels, of at most 20,000") as caught:
        asyncio.run(preprocessor.prepare([png(100)] * 3, spec))
    assert caught.value.field == "images[2].encoded"
    preprocessor, spec = start("server.max_pixels=10000", "server.max_request_pixels=5000")
    with pytest.raises(errors.PictureTooLargeError):
        asyncio.run(preprocessor.prepare([png(100)], spec))


def test_pixels_of_all_requests(start, held):
    go_on, _ = held

    async def run():
        preprocessor, spec = start("server.queue_pixels=80000")
        first = asyncio.ensure_future(preprocessor.prepare([png(300)], spec))  # alone it may have more
        await asyncio.sleep(0)
        with pytest.raises(errors.OverloadedError) as caught:
            await preprocessor.prepare([png(10)], spec)
        assert caught.value.retry_seconds
        ready = np.zeros((3, 6, 8), np.float32)
        await preprocessor.prepare([ModelInput(ready)], spec)  # nothing to decode
        go_on.set()
        await first
        await preprocessor.prepare([png(10)], spec)

    asyncio.run(run())


def test_the_cheap_does_not_wait_for_the_costly(start, held):
    go_on, _ = held

    async def run():
        preprocessor, spec = start()
        costly = [asyncio.ensure_future(preprocessor.prepare([png(1500)] * 8, spec)) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.wait_for(preprocessor.prepare([png(10)] * 3, spec), 30)
            assert await asyncio.wait_for(preprocessor._workers.run(lambda: "answer"), 30) == "answer"
        assert not any(each.done() for each in costly)
        go_on.set()
        assert [len(each) for each in await asyncio.gather(*costly)] == [8] * 4

    asyncio.run(run())


def test_smaller_ones_overtake(start, held, monkeypatch):
    monkeypatch.setattr(workers, "_MOST_COSTLY_THREADS", 1)
    go_on, begun = held

    async def run():
        preprocessor, spec = start()
        busy = asyncio.ensure_future(preprocessor.prepare([png(1500)], spec))
        await eventually(lambda: begun == [1500])
        rest = [asyncio.ensure_future(preprocessor.prepare([png(side)], spec)) for side in (4000, 3000, 2000)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(busy, *rest)
        assert begun == [1500, 2000, 3000, 4000]

    asyncio.run(run())


def test_what_nobody_waits_for_is_given_up(start, held):
    go_on, begun = held

    async def run():
        preprocessor, spec = start()
        left = asyncio.ensure_future(preprocessor.prepare([png(1500)] * 12, spec))
        await eventually(lambda: begun)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert preprocessor._pixels == 0
        task = WorkerTask(lambda look: "next")
        preprocessor._workers._costly.submit(task, float("inf"))  # after all that waits
        assert await asyncio.wait_for(asyncio.wrap_future(task.future), 30) == "next"
        assert len(begun) <= len(preprocessor._workers._costly._threads), "what waited was begun"
        assert not go_on.is_set()

    asyncio.run(run())


def test_the_rest_of_a_request_is_given_up_after_an_error(start, held):
    async def run():
        preprocessor, spec = start()
        cut = png(0, np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)).data[:-300]
        with pytest.raises(errors.PictureError) as caught:
            await asyncio.wait_for(preprocessor.prepare([EncodedPicture(cut), *[png(1500)] * 9], spec), 30)
        assert caught.value.field == "images[0].encoded"
        task = WorkerTask(lambda look: "next")
        preprocessor._workers._costly.submit(task, float("inf"))
        assert await asyncio.wait_for(asyncio.wrap_future(task.future), 30) == "next"

    asyncio.run(run())


def test_bounds_in_time(start, held):
    preprocessor, spec = start("server.decode_seconds=0.005")
    with pytest.raises(errors.PictureTooLargeError, match=r"0.005 s of CPU time") as caught:
        asyncio.run(preprocessor.prepare([png(1500)], spec))
    assert caught.value.field == "images[0]"
    preprocessor, spec = start()
    with pytest.raises(errors.ExpiredError):
        asyncio.run(preprocessor.prepare([png(1500)], spec, time.monotonic() + 0.05))


def test_a_task_that_is_abandoned_does_not_begin():
    done = []
    task = WorkerTask(lambda look: done.append(1))
    task.abandon()
    task.run()
    assert done == []
    assert task.future.cancelled()


def test_a_waiting_task_that_is_abandoned_holds_nothing():
    """Its place in the queue may come up much later, and its caller's bytes are not counted any more."""
    go_on, begun = threading.Event(), threading.Event()
    pool = WorkerPool(1, "lane")
    pool.submit(WorkerTask(lambda look: begun.set() or go_on.wait(30)), 0)
    assert begun.wait(30)
    picture = png(9)
    task = WorkerTask(lambda look, picture=picture: picture)
    pool.submit(task, 1)
    freed = weakref.ref(picture)
    del picture
    assert freed() is not None
    task.abandon()
    assert freed() is None
    go_on.set()
    pool.close()


def test_decoders_are_counted_by_the_cpus_that_may_be_used(monkeypatch):
    """A container's quota may leave fewer of them than the machine has."""
    monkeypatch.setattr(workers, "usable_cpus", lambda: 6)
    started = Workers()
    assert len(started._costly._threads) == 3
    started.close()


def test_a_task_that_is_abandoned_ends_at_its_next_look():
    done = []

    def work(look):
        task.abandon()
        look()
        done.append(1)

    task = WorkerTask(work)
    task.run()
    assert done == []
    assert isinstance(task.future.exception(), AbandonedError)


def test_a_lane_goes_on_after_errors_and_ends():
    lane = WorkerPool(1, "lane")

    def fail(look):
        raise MemoryError

    failing, fine = WorkerTask(fail), WorkerTask(lambda look: 1)
    for task in (failing, fine):
        lane.submit(task, 0)
    assert isinstance(failing.future.exception(30), MemoryError)
    assert fine.future.result(30) == 1
    lane.close()
    for thread in lane._threads:
        thread.join(30)
        assert not thread.is_alive()


def test_too_many_pixels(make_model):
    model = make_model("server.max_pixels=100")
    fits, large = (Pixels(np.zeros((side, 10, 3), np.uint8)) for side in (10, 11))
    read_picture(fits, model.input, model.config.server)
    with pytest.raises(errors.PictureTooLargeError) as caught:
        read_picture(large, model.input, model.config.server)
    assert caught.value.field == "pixels"


def test_a_picture_is_not_resized_for_a_caller_who_has_gone(make_model, monkeypatch):
    model, decoded = make_model(), []
    decode = preprocessing.decode_for

    def recorded(*arguments):
        decoded.append(decode(*arguments))
        return decoded[0]

    def checkpoint():
        if decoded:
            raise AbandonedError

    monkeypatch.setattr(preprocessing, "decode_for", recorded)
    monkeypatch.setattr(preprocessing, "prepare_decoded", lambda *_: pytest.fail("it was resized"))
    with pytest.raises(AbandonedError):
        read_picture(png(9), model.input, model.config.server, checkpoint)
