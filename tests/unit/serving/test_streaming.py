"""Explanations as they come: what is told when, what it is equal to, and what ends with the stream."""

import asyncio
import threading
import time
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from structlog.testing import capture_logs

from xai_sidecar.errors import DeviceError, ExpiredError
from xai_sidecar.explainers.base import MapStatus, Saliency
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import RisePlus
from xai_sidecar.serving.plan import Condition, ExplanationResult, Stage, Targets
from xai_sidecar.serving.streaming import ExplanationKey, ExplanationProgress, ExplanationVersion, explanations

FOREVER = float("inf")
INTERVAL = 0.01


# ------------------------------------------------------------------------------------------------ a script


class Scripted:
    """An explanation that is as far as the test says; what is asked of it is for the test to answer."""

    def __init__(self, plan, planned=1000):
        self.plan = plan
        self.planned_passes = planned
        self.pass_count = 0
        self.cancelled = False
        self.peeks = []
        self.final = asyncio.get_running_loop().create_future()

    async def peek(self, engine):
        self.peeks.append(asyncio.get_running_loop().create_future())
        return await self.peeks[-1]

    def cancel(self):
        self.cancelled = True

    def version(self, stage=Stage.PARTIAL, errors=None):
        errors = None if errors is None else np.array(errors, np.float32)
        saliency = Saliency(np.ones((1, 6, 8), np.float32), (MapStatus.OK,), errors)
        return ExplanationResult(self.plan, np.zeros(1, np.int32), saliency, self.pass_count, 0.1, stage)

    def finish(self):
        self.final.set_result(self.version(Stage.COMPLETE))


class Playing:
    """A predictor whose predictions are the explanations themselves."""

    engine = None

    def begin(self, one, plan, deadline, admitted):
        return one

    async def explained(self, explaining):
        return await explaining.final


class Reader:
    """Reads a stream of scripted explanations event by event."""

    def __init__(self, plan, *scripts):
        self.events = explanations(Playing(), scripts, [plan], FOREVER, INTERVAL)
        self._next = None

    async def next(self):
        """The next event, as soon as there is one."""
        self._next = self._next or asyncio.ensure_future(anext(self.events))
        done, _ = await asyncio.wait({self._next}, timeout=10)
        assert done, "nothing came"
        event, self._next = self._next, None
        return event.result()

    async def nothing(self):
        """Whether nothing comes in the next few intervals."""
        self._next = self._next or asyncio.ensure_future(anext(self.events))
        await asyncio.sleep(6 * INTERVAL)
        return not self._next.done()

    async def ended(self):
        with pytest.raises(StopAsyncIteration):
            await self.next()
        return True


@pytest.fixture
def script(make_plan):
    """A scripted explanation of 1,000 passes, the first map after 8, and who reads its stream."""

    def script(count=1):
        plan = make_plan()
        scripts = [Scripted(plan) for _ in range(count)]
        return *scripts, Reader(plan, *scripts)

    return script


async def test_progress_is_told_when_there_is_some(script):
    one, reader = script()
    assert await reader.nothing()
    one.pass_count = 5
    event = await reader.next()
    assert isinstance(event, ExplanationProgress)
    assert (event.key, event.pass_count, event.planned_passes) == (ExplanationKey(0, 0), 5, 1000)
    assert event.standard_error is None
    assert await reader.nothing(), "nothing has changed"
    one.pass_count = 6
    assert (await reader.next()).pass_count == 6
    one.pass_count = 1000
    assert await reader.nothing(), "what follows is the end"
    assert one.peeks == []
    one.finish()
    event = await reader.next()
    assert (event.key, event.result.stage) == (ExplanationKey(0, 0), Stage.COMPLETE)
    assert await reader.ended()


async def test_the_time_left_goes_by_the_time_taken(script):
    one, reader = script()
    earliest = time.monotonic()
    assert await reader.nothing()
    begun = time.monotonic()  # by then
    await asyncio.sleep(0.1)
    one.pass_count = 25  # of 1,000: 39 times as much is left
    before = time.monotonic()
    event = await reader.next()
    assert 39 * (before - begun) <= event.seconds_left <= 39 * (time.monotonic() - earliest)


async def test_versions_are_made_at_each_half_as_many_passes_more(script):
    one, reader = script()
    one.pass_count = 7
    assert (await reader.next()).pass_count == 7
    assert await reader.nothing()
    assert one.peeks == [], "before there can be a map"
    one.pass_count = 8
    assert isinstance(await reader.next(), ExplanationProgress)
    assert len(one.peeks) == 1
    one.pass_count = 40
    assert isinstance(await reader.next(), ExplanationProgress)
    assert await reader.nothing()
    assert len(one.peeks) == 1, "it is still being worked out"
    version = one.version()
    one.peeks[0].set_result(version)
    event = await reader.next()
    assert isinstance(event, ExplanationVersion)
    assert event.result is version
    one.pass_count = 59  # 1.5 times 40 is 60
    assert (await reader.next()).pass_count == 59
    assert await reader.nothing()
    assert len(one.peeks) == 1
    one.pass_count = 60
    assert (await reader.next()).pass_count == 60
    assert len(one.peeks) == 2
    one.peeks[1].set_result(None)  # there is no map yet, or no more
    assert await reader.nothing()
    one.pass_count = 90
    assert (await reader.next()).pass_count == 90
    assert len(one.peeks) == 3


async def test_a_version_that_the_last_has_overtaken_is_kept_back(script):
    one, other, reader = script(2)
    one.pass_count = 40
    assert isinstance(await reader.next(), ExplanationProgress)
    late = one.version()
    one.finish()
    event = await reader.next()
    assert (event.key, event.result.stage) == (ExplanationKey(0, 0), Stage.COMPLETE)
    one.peeks[0].set_result(late)
    assert await reader.nothing()
    other.pass_count = 50
    event = await reader.next()
    assert (event.key, event.pass_count) == (ExplanationKey(1, 0), 50)
    other.finish()
    assert (await reader.next()).key == ExplanationKey(1, 0)
    assert await reader.ended()


async def test_a_version_goes_before_the_last(script):
    one, reader = script()
    one.pass_count = 40
    assert isinstance(await reader.next(), ExplanationProgress)
    one.finish()
    one.peeks[0].set_result(one.version())
    assert (await reader.next()).result.stage is Stage.PARTIAL
    assert (await reader.next()).result.stage is Stage.COMPLETE
    assert await reader.ended()


@pytest.mark.parametrize(
    ("errors", "told"),
    [([0.2, 0.5, 0.3], 0.5), ([0.2], pytest.approx(0.2)), ([0.2, np.inf], None), (None, None), ([], None)],
)
async def test_the_standard_error_is_the_last_versions_largest(script, errors, told):
    one, reader = script()
    one.pass_count = 40
    assert (await reader.next()).standard_error is None
    one.peeks[0].set_result(one.version(errors=errors))
    assert isinstance(await reader.next(), ExplanationVersion)
    one.pass_count = 41
    assert (await reader.next()).standard_error == told


async def test_a_version_that_fails_ends_the_stream(script, complaints):
    complaints()
    one, other, reader = script(2)
    one.pass_count = other.pass_count = 40
    assert {(await reader.next()).key for _ in range(2)} == {ExplanationKey(0, 0), ExplanationKey(1, 0)}
    one.peeks[0].set_exception(ZeroDivisionError())
    other.peeks[0].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await reader.next()
    assert one.cancelled
    assert other.cancelled
    assert complaints() == []


async def test_one_that_fails_ends_the_stream(script, complaints):
    complaints()
    one, other, third, reader = script(3)
    third.pass_count = 40
    assert isinstance(await reader.next(), ExplanationProgress)
    other.final.set_exception(ZeroDivisionError())
    third.final.set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await reader.next()
    with pytest.raises(StopAsyncIteration):
        await reader.next()
    assert one.cancelled
    await asyncio.sleep(0)
    assert one.final.cancelled()
    assert third.peeks[0].cancelled()
    del other, third
    assert complaints() == []


# ------------------------------------------------------------------------------------------------ on an engine


async def read(events, pause=0.0):
    """All events of a stream, with a pause after each."""
    read = []
    async with aclosing(events):
        async for event in events:
            read.append(event)
            await asyncio.sleep(pause)
    return read


def progress_of(events, place):
    return [event for event in events if isinstance(event, ExplanationProgress) and event.key == place]


def versions_of(events, place):
    return [event.result for event in events if isinstance(event, ExplanationVersion) and event.key == place]


async def still(net):
    """Once what is in flight is over, nothing is launched any more."""
    await asyncio.sleep(0.05)
    launches = len(net.launches)
    await asyncio.sleep(0.05)
    assert len(net.launches) == launches


async def test_a_stream_ends_with_what_predict_answers(start, make_net, picture, predicted, make_plan, complaints):
    complaints()
    net = make_net(0.004)
    predictor = start(net)
    plans = [
        make_plan(name="long", targets=Targets(class_ids=(2, 1)), seed=11, mask_count=320),
        make_plan(Occlusion(), "short"),
        make_plan(RisePlus(), "weighted", seed=12, mask_count=100, estimator="plain"),
    ]
    pictures = [predicted(picture(seed)) for seed in range(2)]
    with capture_logs() as logs:
        events = await read(explanations(predictor, pictures, plans, FOREVER, INTERVAL))
    answer = await predictor.explain(pictures, plans, FOREVER)
    for image_index, row in enumerate(answer):
        for plan_index, expected in enumerate(row):
            place = ExplanationKey(image_index, plan_index)
            *partial, final = versions_of(events, place)
            assert all(one.stage is Stage.PARTIAL for one in partial)
            assert (final.stage, final.plan.name) == (Stage.COMPLETE, expected.plan.name)
            assert final.pass_count == expected.pass_count
            np.testing.assert_array_equal(final.saliency.maps, expected.saliency.maps)
            np.testing.assert_array_equal(final.targets, expected.targets)
            assert final.saliency.statuses == expected.saliency.statuses
            if expected.saliency.standard_errors is not None:
                np.testing.assert_array_equal(final.saliency.standard_errors, expected.saliency.standard_errors)
            told = [one.pass_count for one in progress_of(events, place)]
            assert told == sorted(set(told))
            assert all(0 < count < expected.pass_count for count in told)
            assert all(one.planned_passes == expected.pass_count for one in progress_of(events, place))
            last = max(index for index, event in enumerate(events) if event.key == place)
            assert isinstance(events[last], ExplanationVersion)
            assert events[last].result is final, "nothing follows the final"
    assert len(progress_of(events, ExplanationKey(0, 0))) > 3
    counts = [one.pass_count for one in versions_of(events, ExplanationKey(1, 0))]
    assert len(counts) > 2
    assert counts[0] >= 8
    assert all(later >= 1.5 * former for former, later in pairwise(counts[:-1]))
    assert len(versions_of(events, ExplanationKey(0, 1))) <= 4, "of 25 passes, after 9, 14 and 21 at the soonest"
    assert (complaints(), logs) == ([], [])


async def test_versions_get_better(start, make_net, predicted, make_plan):
    predictor = start(make_net(0.004))
    plan = make_plan(mask_count=800, seed=2)
    events = await read(explanations(predictor, [predicted()], [plan], FOREVER, INTERVAL))
    *partial, final = (one.saliency for one in versions_of(events, ExplanationKey(0, 0)))
    assert len(partial) > 3

    def distance(one):
        return float(np.square(one.maps - final.maps).mean())

    assert distance(partial[0]) > 2 * distance(partial[-1]) > 0
    errors = [float(one.standard_errors[0]) for one in (*partial, final)]
    assert errors[0] > 2 * errors[-1] > 0
    told = [one.standard_error for one in progress_of(events, ExplanationKey(0, 0))]
    assert told[0] is None
    assert told[-1] in [pytest.approx(error) for error in errors[:-1]]


async def test_a_slow_reader_gets_fewer_versions(start, make_net, predicted, make_plan, idle):
    predictor = start(make_net(0.004))
    plan = make_plan(mask_count=600, estimator="plain")
    fast = await read(explanations(predictor, [predicted()], [plan], FOREVER, INTERVAL))
    assert len(versions_of(fast, ExplanationKey(0, 0))) > 3
    assert len(progress_of(fast, ExplanationKey(0, 0))) > 5
    slow = []
    async with aclosing(explanations(predictor, [predicted()], [plan], FOREVER, INTERVAL)) as events:
        async for event in events:
            slow.append(event)
            await idle(predictor.engine)  # reads on when all is done
    assert len(progress_of(slow, ExplanationKey(0, 0))) == 1
    *partial, final = versions_of(slow, ExplanationKey(0, 0))
    assert len(partial) <= 1
    assert slow[-1].result is final
    np.testing.assert_array_equal(final.saliency.maps, fast[-1].result.saliency.maps)


async def test_what_is_not_made_is_told_at_once(start, make_net, predicted, make_plan):
    net = make_net(0.002)
    predictor = start(net)
    plans = [
        make_plan(name="long", mask_count=200),
        make_plan(name="skipped", condition=Condition(top_probability_below=0.5)),
        make_plan(name="targetless", targets=Targets(min_probability=1.0)),
    ]
    events = await read(explanations(predictor, [predicted()], plans, FOREVER, INTERVAL))
    first, second = events[:2]
    assert {first.key, second.key} == {ExplanationKey(0, 1), ExplanationKey(0, 2)}
    skipped, targetless = (versions_of(events, ExplanationKey(0, index)) for index in (1, 2))
    assert [one.stage for one in skipped] == [Stage.SKIPPED]
    assert "not below 0.5" in skipped[0].message
    assert [(one.stage, one.message, len(one.targets)) for one in targetless] == [(Stage.COMPLETE, "", 0)]
    assert progress_of(events, ExplanationKey(0, 1)) == progress_of(events, ExplanationKey(0, 2)) == []
    assert versions_of(events, ExplanationKey(0, 0))[-1].stage is Stage.COMPLETE


async def test_a_class_that_is_not_there_is_not_explained_in_a_stream_either(start, make_net, predicted, make_plan):
    predictor = start(make_net(), "sigmoid", least_positive=0.999)
    plans = [make_plan(mask_count=64), make_plan(mask_count=64, targets=Targets(top_count=1))]
    blank = replace(predicted(), probabilities=np.full(4, 0.25, np.float32))
    events = await read(explanations(predictor, [blank], plans, FOREVER, INTERVAL))
    (skipped,), (*_, asked) = (versions_of(events, ExplanationKey(0, index)) for index in (0, 1))
    assert (skipped.stage, len(skipped.targets), asked.stage) == (Stage.SKIPPED, 0, Stage.COMPLETE)
    assert "No class reaches the probability of 0.999" in skipped.message


async def test_nothing_to_explain(start, make_net, predicted, make_plan):
    predictor = start(make_net())
    assert await read(explanations(predictor, [predicted()], [], FOREVER, INTERVAL)) == []
    assert await read(explanations(predictor, [], [make_plan()], FOREVER, INTERVAL)) == []


async def test_budgets_in_a_stream(start, make_net, predicted, make_plan):
    predictor = start(make_net(0.004))
    some = make_plan(name="some", mask_count=100_000, estimator="plain", budget=0.3)
    none = make_plan(name="none", mask_count=100_000, estimator="plain", budget=0.001)
    deadline = time.monotonic() + 0.8
    late = make_plan(name="late", mask_count=100_000, estimator="plain", budget=60.0)
    events = await read(explanations(predictor, [predicted()], [some, none, late], deadline, INTERVAL))
    assert time.monotonic() < deadline
    for index, maps in enumerate((1, 1, 1)):  # the second one comes late
        *partial, final = versions_of(events, ExplanationKey(0, index))
        assert (final.stage, len(final.saliency.maps)) == (Stage.TRUNCATED, maps)
        assert all(one.pass_count <= final.pass_count for one in partial)
    done = [
        event.key for event in events if isinstance(event, ExplanationVersion) and event.result.stage is Stage.TRUNCATED
    ]
    assert done == [ExplanationKey(0, 1), ExplanationKey(0, 0), ExplanationKey(0, 2)]


async def test_a_stream_ends_with_what_there_is_when_the_server_ends(start, make_net, predicted, make_plan, idle):
    predictor = start(make_net(0.002))
    plan = make_plan(mask_count=100_000)
    updates = []
    async with aclosing(explanations(predictor, [predicted(), predicted()], [plan], FOREVER, INTERVAL)) as events:
        async for event in events:
            if isinstance(event, ExplanationVersion) and not updates:
                predictor.engine.wind_up()
            updates += [event.result] if isinstance(event, ExplanationVersion) else []
    assert [one.stage for one in updates[-2:]] == [Stage.TRUNCATED] * 2
    assert all(len(one.saliency.maps) == 1 and "server's end" in one.message for one in updates[-2:])
    await idle(predictor.engine)


async def test_a_deadline_ends_the_stream(start, make_net, predicted, make_plan, idle, complaints):
    complaints()
    net = make_net(0.004)
    predictor = start(net)
    plans = [make_plan(name=name, mask_count=100_000, estimator="plain") for name in "ab"]
    # Had they not ended before it, they would have failed as those below.
    events = await read(explanations(predictor, [predicted()], plans, time.monotonic() + 1.5, INTERVAL))
    ended = [each.result for each in events if getattr(each, "result", None) and each.result.stage is Stage.TRUNCATED]
    assert [len(result.saliency.maps) for result in ended] == [1, 1]
    assert {result.plan.name for result in ended} == {"a", "b"}
    net.gate.clear()  # no map by then
    with pytest.raises(ExpiredError):
        await read(explanations(predictor, [predicted()], plans, time.monotonic() + 0.2, INTERVAL))
    net.gate.set()
    await idle(predictor.engine)
    assert complaints() == []


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_closing_the_stream_cancels_what_is_not_done(start, make_net, predicted, make_plan, complaints, after):
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    plans = [make_plan(name=name, mask_count=100_000) for name in "ab"]
    events = explanations(predictor, [predicted(), predicted()], plans, FOREVER, INTERVAL)
    for _ in range(after):
        assert (await anext(events)).key in [ExplanationKey(image, plan) for image in (0, 1) for plan in (0, 1)]
    with capture_logs() as logs:
        assert len(predictor.engine._open) == (4 if after else 0)
        await events.aclose()
        assert not predictor.engine._open
        await still(net)
    assert (complaints(), logs) == ([], [])


async def test_cancelling_a_reader_cancels_what_is_not_done(start, make_net, predicted, make_plan, idle, complaints):
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    plans = [make_plan(name=name, mask_count=100_000) for name in "ab"]
    for seconds in (0, 0.001, 0.1):
        reading = asyncio.ensure_future(read(explanations(predictor, [predicted()], plans, FOREVER, INTERVAL)))
        await asyncio.sleep(seconds)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await idle(predictor.engine)
    await still(net)
    assert complaints() == []


async def test_a_version_that_nobody_waits_for_any_more_is_no_failure(
    start, make_net, predicted, make_plan, idle, complaints
):
    """The stream is closed while a map waits to be worked out."""
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    peek, asked, stepper_may = predictor.engine.peek, asyncio.Event(), threading.Event()

    def waiting(job):
        predictor.engine._steppers.call(job, lambda: stepper_may.wait(10))
        asked.set()
        return peek(job)

    predictor.engine.peek = waiting
    with capture_logs() as logs:
        plan = make_plan(mask_count=100_000)
        reading = asyncio.ensure_future(read(explanations(predictor, [predicted()], [plan], FOREVER, INTERVAL)))
        await asyncio.wait_for(asked.wait(), 10)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        stepper_may.set()
        await idle(predictor.engine)
        await still(net)
    assert (complaints(), logs) == ([], [])


async def test_a_failing_explanation_ends_the_stream(start, make_net, picture, predicted, make_plan, idle, complaints):
    complaints()
    net = make_net(0.002)
    predictor = start(net)
    net.poison = np.float32(7)
    bad = picture()
    bad.array[0, 0, 0] = 7
    plans = [make_plan(name=name, mask_count=100_000) for name in "ab"]
    with capture_logs() as logs:
        with pytest.raises(DeviceError, match="RuntimeError: poisoned"):
            await read(explanations(predictor, [predicted(), predicted(bad)], plans, FOREVER, INTERVAL))
        await idle(predictor.engine)
        await still(net)
    assert complaints() == []
    assert {log["event"] for log in logs} <= {"batch_failed"}
