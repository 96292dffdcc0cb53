"""What callers may have at a time, and that one who asked for much keeps no other out."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.deadlines import Commitment, fits_share
from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import OverloadedError
from xai_sidecar.explainers.base import PassCounts
from xai_sidecar.serving.admission import Admission
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.callers import Caller, calling
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import ExplanationPlan, Targets
from xai_sidecar.serving.promising import Demand
from xai_sidecar.telemetry import Telemetry

SECONDS = 0.1  # a pass
MANY, ONE = Caller("many"), Caller("one")


class Jobs:
    """An engine whose passes take as long as they should, and that has some explanations in progress."""

    explaining = 1
    explain_share = 1.0

    def explaining_seconds(self, label, kind, row_count):
        return SECONDS * row_count

    def seconds(self, kind, row_count):
        return SECONDS * row_count

    def waiting(self, lane):
        return 0


def plan(passes, **fields):
    explainer = SimpleNamespace(name="planned")
    counts = PassCounts(min(passes, 10), passes, passes)
    return ExplanationPlan("a", explainer, None, Targets(), Kind("masked_forward"), counts, **fields)


def within(seconds, *plans, image_count=1):
    return Demand(image_count, plans, deadline=time.monotonic() + seconds)


def admission(**callers):
    limits = ServerConfig(queue_capacity=100, callers=callers)
    return Admission(ExplanationCosts(Jobs()), limits, 600, 200)


def test_a_caller_has_no_more_explanations_than_it_may():
    one = admission(max_explanations=4)
    with calling(MANY), one.admit(within(60, plan(1), image_count=3)) as admitted:
        with pytest.raises(OverloadedError) as caught, one.admit(within(60, plan(1), image_count=2)):
            pass
        text = "3 explanations of 'many' are in progress, and 2 more would be over the 4 "
        assert caught.value.message.startswith(text)
        assert caught.value.retry_seconds is not None
        with one.admit(within(60, image_count=50)):
            pass
        with calling(ONE), one.admit(within(60, plan(1), image_count=4)):
            pass
        admitted.explained()
        with one.admit(within(60, plan(1), image_count=2)):
            pass
    assert one._of_callers == {}
    with calling(MANY), one.admit(within(60, plan(1), image_count=9)):
        pass  # who has nothing in progress may have anything


def test_who_asked_for_much_keeps_no_other_out():
    """95 s of 100 s are promised; half of the next 20 s is 10 s."""
    one = admission()
    with calling(MANY), one.admit(within(106, plan(950))):
        with pytest.raises(OverloadedError), one.admit(within(20, plan(80))):
            pass
        with calling(ONE):
            with pytest.raises(OverloadedError), one.admit(within(20, plan(120))):
                pass
            with one.admit(within(20, plan(80))), pytest.raises(OverloadedError), one.admit(within(20, plan(20))):
                pass


def test_first_maps_of_one_caller_are_waited_for_by_its_own_budgets_alone():
    """Eight of a second each."""
    one, hurried = admission(), plan(1000, budget_seconds=9.0)
    short = plan(1000, budget_seconds=3.0)
    with calling(MANY), one.admit(within(200, hurried, image_count=8)):
        with pytest.raises(OverloadedError), one.admit(within(200, short)):
            pass
        with calling(ONE):
            with one.admit(within(200, short)):
                pass
            with pytest.raises(OverloadedError), one.admit(within(200, short, image_count=2)):
                pass


def test_who_wants_little_is_no_reason_to_refuse_another():
    """3 s, and nine tenths of the rest."""
    one = admission()
    with calling(MANY), one.admit(within(106, plan(30))), calling(ONE):
        with one.admit(within(20, plan(150))):
            pass
        with pytest.raises(OverloadedError), one.admit(within(20, plan(156))):
            pass


def test_a_share_of_the_time():
    """Ten seconds, of which FAIR_SHARE is left to others: 9 s alone, 4.5 s of two, 3 s of three, 7.2 s beside 2 s."""
    ever = float("inf")
    for others, fitting in (((), 9.0), ((ever,), 4.5), ((ever, 80.0), 3.0), ((2.0,), 7.2), ((ever, 1.0), 5.1)):
        for seconds in (fitting - 0.1, fitting + 0.1):
            fits = fits_share([], [Commitment(10.0, seconds)], 0.0, others)
            assert fits == (seconds < fitting), (others, seconds)
    own = [Commitment(10.0, 2.0)]
    assert fits_share(own, [Commitment(10.0, 2.4)], 0.0, [ever])
    assert not fits_share(own, [Commitment(10.0, 2.6)], 0.0, [ever])
    assert not fits_share(own, [Commitment(5.0, 2.4)], 0.0, [ever])


async def test_a_caller_has_no_more_calls_than_it_may():
    records = CallRecords(Telemetry(CollectorRegistry(), []), ServerConfig(callers={"max_calls": 2}))

    def begun(caller):
        with calling(caller):
            return records.record(records.receive(), "Predict", 1, "id")

    first, second, third = begun(MANY), begun(MANY), begun(MANY)
    with pytest.raises(OverloadedError, match="2 calls of 'many' are in progress"), third:
        pass
    with begun(ONE):
        pass
    third.close()
    await asyncio.sleep(0)
    with second:
        pass
    for each in (first, second):
        each.close()
