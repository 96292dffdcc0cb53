"""What is taken on: by count, by bytes, and by what can be done before a deadline."""

import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import DeadlineTooShortError, OverloadedError
from xai_sidecar.explainers.base import PassCounts
from xai_sidecar.serving import promising
from xai_sidecar.serving.admission import Admission
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import Condition, ExplanationPlan, Targets
from xai_sidecar.serving.predictor import Predictor
from xai_sidecar.serving.promising import Demand
from xai_sidecar.telemetry import Telemetry

MIB = 2**20

PER_ROW = {"masked_forward": 0.01, "layer_gradient": 0.1}
"""Seconds. What is certain of it is four fifths, so that a hundred masks are 0.8 s."""


class Jobs:
    """An engine that runs nothing; its jobs are as far as they are set to be."""

    ratio = 1.0

    def explaining_seconds(self, label, kind, row_count):
        return self.ratio * PER_ROW[kind.name] * row_count

    def seconds(self, kind, row_count):
        return PER_ROW[kind.name] * row_count

    def waiting(self, lane):
        return 0

    explaining = 0
    explain_share = 1.0

    def submit(self, steps, lane, **times):
        job = SimpleNamespace(pass_count=0, ended=False, times=times)
        job.done = lambda: job.ended
        job.add_done_callback = lambda act: None
        return job


class Planned:
    """An explainer that is never run."""

    name = "planned"

    def explain(self, image, targets, parameters, context):
        return None


def plan(rows=100, name="a", kind="masked_forward", most=None, targets=None, **fields):
    """A plan that takes `rows` passes at the least."""
    counts = PassCounts(min(rows, 32), rows, most or rows)
    return ExplanationPlan(name, Planned(), None, targets or Targets(), Kind(kind), counts, **fields)


def within(seconds, *plans, image_count=1):
    """What a caller asks for who waits some seconds."""
    return Demand(image_count, plans, deadline=time.monotonic() + seconds)


@pytest.fixture
def admission():
    return Admission(
        ExplanationCosts(Jobs()), ServerConfig(queue_capacity=10, queue_bytes=100 * MIB, max_targets=5), 600, 200
    )


@pytest.fixture
def begin(predicted, make_quality):
    """Begins an explanation of an admitted request; returns its job."""
    predictor = Predictor(Jobs(), "softmax", 5, Telemetry(CollectorRegistry(), ["planned"]), make_quality())

    def begin(admitted, plan):
        return predictor.begin(predicted(), plan, float("inf"), admitted)._job

    return begin


def taken(admission):
    return admission.images.taken, admission.explanations.taken, admission.bytes.taken


# ------------------------------------------------------------------------------------------------ count and bytes


def test_what_a_request_takes(admission):
    demand = Demand(2, [plan(name="a"), plan(name="b", targets=Targets(top_count=3))], byte_count=1000)
    with admission.admit(demand):
        # For each picture its input, four maps, and the masks of two explanations.
        assert taken(admission) == (2, 4, 1000 + 2 * (600 + 4 * 200 + 2 * 3 * MIB))
        with admission.admit(Demand(3, byte_count=50)):
            assert taken(admission)[:2] == (5, 4)
            assert taken(admission)[2] == 1000 + 2 * (600 + 4 * 200 + 2 * 3 * MIB) + 50 + 3 * 600
    assert taken(admission) == (0, 0, 0)


@pytest.mark.parametrize(
    ("targets", "maps"),
    [(Targets(), 1), (Targets(class_ids=(0, 3)), 2), (Targets(min_probability=0.5), 5)],
)
def test_maps_are_counted_at_their_most(admission, targets, maps):
    with admission.admit(Demand(1, [plan(targets=targets)])):
        assert admission.bytes.taken == 600 + maps * 200 + 3 * MIB


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, GeneratorExit])
def test_what_fails_takes_nothing_any_more(admission, error):
    with pytest.raises(error), admission.admit(Demand(10, [plan()])):
        raise error
    assert taken(admission) == (0, 0, 0)
    with admission.admit(within(0.9, plan())):  # nor does it stand in anybody's way
        pass


def test_an_idle_server_takes_anything(admission):
    with admission.admit(Demand(1000, [plan()] * 20, byte_count=2**40)):
        assert taken(admission)[:2] == (1000, 20_000)


def test_pictures_are_counted(admission):
    with admission.admit(Demand(8)):
        with admission.admit(Demand(2)):
            with pytest.raises(OverloadedError, match=r"10 pictures are in progress, and 1 more .* the 10 that"):
                admission.admit(Demand(1)).__enter__()
            assert admission.images.taken == 10
        with pytest.raises(OverloadedError, match="8 pictures are in progress, and 3 more"):
            admission.admit(Demand(3)).__enter__()
        assert taken(admission) == (8, 0, 8 * 600)
        with admission.admit(Demand(2)):
            assert admission.images.taken == 10


def test_explanations_do_not_crowd_out_predictions(admission):
    with admission.admit(Demand(1, [plan(name=str(index)) for index in range(10)])):
        with pytest.raises(OverloadedError, match="10 explanations are in progress, and 1 more"):
            admission.admit(Demand(1, [plan()])).__enter__()
        assert taken(admission)[:2] == (1, 10), "its picture is not kept, either"
        with admission.admit(Demand(9)):
            assert taken(admission)[:2] == (10, 10)


def test_explanations_do_not_crowd_out_predictions_by_their_pictures_or_bytes(admission):
    """A quarter of both is kept for requests without."""
    with admission.admit(Demand(7, [plan()])):  # 7 of 10 pictures, 28 of 100 MiB and some
        with pytest.raises(
            OverloadedError, match=r"7 pictures for explanations are in progress, and 1 more .* the 7 that"
        ):
            admission.admit(Demand(1, [plan()])).__enter__()
        with admission.admit(Demand(2)), admission.admit(Demand(1)):
            assert taken(admission)[:2] == (10, 7)
            with pytest.raises(OverloadedError, match="10 pictures are in progress"):
                admission.admit(Demand(1)).__enter__()
    with admission.admit(Demand(1, [plan()], byte_count=71 * MIB)):
        with pytest.raises(OverloadedError, match="bytes for explanations are in progress"):
            admission.admit(Demand(1, [plan()], byte_count=MIB)).__enter__()
        with pytest.raises(OverloadedError, match="bytes for explanations are in progress"):
            admission.holding(2 * MIB).__enter__()
        with (
            admission.admit(Demand(1, byte_count=20 * MIB)),
            admission.admit(Demand(1, byte_count=6 * MIB - 2000)),
            pytest.raises(OverloadedError, match="bytes are in progress"),
        ):
            assert admission.bytes.taken == 100 * MIB
            admission.admit(Demand(1)).__enter__()
    assert taken(admission) == (0, 0, 0)


def test_what_explanations_took_of_the_reserve_is_not_held_against_predictions(admission):
    with admission.admit(Demand(1000, [plan()])):  # taken on by an idle server
        with admission.admit(Demand(1)), admission.admit(Demand(2)):  # 7 of 10 are theirs
            assert admission.images.taken == 1003
            with pytest.raises(OverloadedError):
                admission.admit(Demand(1)).__enter__()
        with admission.admit(Demand(8)):  # a single one, however large
            pass


def test_predictions_may_have_all_of_it(admission):
    with admission.admit(Demand(10)), pytest.raises(OverloadedError, match="10 pictures are in progress"):
        admission.admit(Demand(1, [plan()])).__enter__()


def test_parts_are_given_back_as_they_are_used_up(admission):
    with admission.admit(Demand(2, [plan(name="a"), plan(name="b")], byte_count=1000)) as admitted:
        held = 1000 + 2 * (600 + 2 * 200)
        assert taken(admission) == (2, 4, held + 4 * 3 * MIB)
        admitted.predicted()
        assert taken(admission) == (0, 4, held + 4 * 3 * MIB)
        admitted.predicted()  # nothing comes of saying it twice
        admitted.explained()
        assert taken(admission) == (0, 3, held + 3 * 3 * MIB)
        for _ in range(3):
            admitted.explained()
        assert taken(admission) == (0, 0, held), "the maps wait to be sent"
        admitted.explained()
        assert admission.explanations.taken == 0
    assert taken(admission) == (0, 0, 0)


def test_calls_that_are_no_predictions(admission):
    with admission.holding(60 * MIB):
        assert taken(admission) == (0, 0, 60 * MIB)
        with pytest.raises(OverloadedError, match="over the 78,643,200"):
            admission.holding(20 * MIB).__enter__()
        with admission.admit(Demand(1, byte_count=30 * MIB)):
            pass
    assert taken(admission) == (0, 0, 0)


def test_the_longest_time_that_a_call_may_take_is_named(admission):
    demand = Demand(1, [plan(10_000)], deadline=time.monotonic() + 60, capped=True)
    with pytest.raises(DeadlineTooShortError, match=r"no call may take longer than 60 s \(server.max_call_seconds\)"):
        admission.admit(demand).__enter__()


def test_bytes_are_counted(admission):
    with admission.admit(Demand(1, byte_count=60 * MIB)):
        with pytest.raises(OverloadedError, match="bytes are in progress") as caught:
            admission.admit(Demand(1, byte_count=40 * MIB)).__enter__()
        assert "62,915,160 bytes" in caught.value.message  # 60 MiB and the input
        assert "104,857,600" in caught.value.message
        with admission.admit(Demand(1, byte_count=40 * MIB - 1200)):  # to the byte
            assert admission.bytes.taken == 100 * MIB
            assert admission.images.taken == 2
        assert taken(admission) == (1, 0, 60 * MIB + 600), "what was refused for its bytes has taken no pictures either"


def test_when_to_come_back(admission, begin):
    """As soon as the shortest of what is in progress is done, but for the bounds."""

    def hint():
        with pytest.raises(OverloadedError) as caught:
            admission.admit(Demand(11, [plan(1)])).__enter__()
        return caught.value.retry_seconds

    with admission.admit(Demand(1)):
        assert hint() == 0.1, "predictions only"
    masks, slopes = plan(300, "masks"), plan(20, "slopes", "layer_gradient")
    with admission.admit(Demand(1, [masks, slopes])) as admitted:
        assert hint() == pytest.approx(2 * 2.0)  # the slopes, with the masks by turns
        job = begin(admitted, masks)
        job.pass_count = 250
        assert hint() == pytest.approx(2 * 0.5)
        job.pass_count = 300
        assert hint() == pytest.approx(1 * 2.0)
    with admission.admit(Demand(1, [plan(100_000)])):
        assert hint() == pytest.approx(1000)
    with admission.admit(Demand(1, [plan(1)])):
        assert hint() == 0.1


# ------------------------------------------------------------------------------------------------ deadlines


def test_a_deadline_that_would_not_do_on_an_idle_device(admission):
    cheap, dear = plan(100, "cheap"), plan(30, "dear", "layer_gradient")  # certainly 0.8 s and 2.4 s
    with admission.admit(within(3.4, cheap, dear)):
        pass
    with pytest.raises(DeadlineTooShortError) as caught:
        admission.admit(within(3.0, cheap, dear)).__enter__()
    assert caught.value.field == "explanations[1]"
    assert "take at least 3.2 s, most of it dear, but the call's deadline is in 3 s" in caught.value.message
    assert caught.value.retry_seconds is None, "trying again would not help"
    assert taken(admission) == (0, 0, 0)


def test_every_picture_takes_its_time(admission):
    with admission.admit(within(2.6, plan(), image_count=3)):
        pass
    with pytest.raises(DeadlineTooShortError, match=r"at least 2\.4 s"):
        admission.admit(within(2.2, plan(), image_count=3)).__enter__()


def test_one_that_has_passed_already(admission):
    with pytest.raises(DeadlineTooShortError):
        admission.admit(within(-1, plan())).__enter__()
    with admission.admit(within(-1)):  # the engine says so, of a prediction
        pass


def test_what_may_take_less_time_or_none_does_not_count(admission):
    sure = plan(100, "sure")
    budgeted = plan(100_000, "budgeted", budget_seconds=0.5)
    conditioned = plan(100_000, "conditioned", condition=Condition(top_probability_below=0.5))
    with admission.admit(within(0.01, budgeted, conditioned)):
        assert taken(admission)[:2] == (1, 2)
    with pytest.raises(DeadlineTooShortError, match="at least 800 ms, most of it sure") as caught:
        admission.admit(within(0.7, budgeted, conditioned, sure)).__enter__()
    assert caught.value.field == "explanations[2]"


def test_with_a_tolerance_it_may_be_done_early(admission):
    with admission.admit(within(0.9, plan(100, most=100_000))):
        pass


def test_without_a_deadline_it_waits_as_long_as_it_takes(admission):
    with admission.admit(Demand(1, [plan(10**6)])), admission.admit(Demand(1, [plan(10**6)])):
        assert taken(admission)[:2] == (2, 2)


# ------------------------------------------------------------------------------------------------ what is promised


def refused(admission, *demand, **fields):
    """Why a demand is refused."""
    with pytest.raises(OverloadedError) as caught:
        admission.admit(within(*demand, **fields)).__enter__()
    return caught.value


def accepted(admission, *demand, **fields):
    """Whether it is taken; raises otherwise."""
    with admission.admit(within(*demand, **fields)):
        return True


def test_promises_add_up(admission):
    """Nine tenths of the time may be promised, less a tenth of a second that is set aside for each answer."""
    with admission.admit(within(10.1, plan(500))):  # 5 s
        error = refused(admission, 10.1, plan(410))  # 9.1 s of 10
        assert "With what else is in progress, the explanations take about 10.1 s" in error.message
        assert "deadline is in 10.1 s" in error.message
        assert (error.field, taken(admission)[:2]) == ("", (1, 1))
        assert accepted(admission, 10.1, plan(390))
        with admission.admit(within(10.1, plan(390))):
            refused(admission, 10.1, plan(20))
            assert accepted(admission, 20.1, plan(890))  # 17.8 s of 20
            refused(admission, 20.1, plan(930))


def test_what_would_make_others_late_is_refused(admission):
    with admission.admit(within(10.1, plan(800))):
        error = refused(admission, 5.1, plan(200))
        assert "the explanations would make others late" in error.message
        assert accepted(admission, 5.1, plan(90))
        assert accepted(admission, 20.1, plan(900)), "it comes after that"


def test_it_is_said_when_to_come_back(admission, monkeypatch):
    """With 8 s of 10 promised, 9 s of 10 can be had as soon as all else is done: after 8 s, at nine tenths 8.9 s."""
    monkeypatch.setattr(promising, "_BURST_SECONDS", 0.0)
    with admission.admit(within(10.1, plan(800))):
        assert refused(admission, 10.1, plan(890)).retry_seconds == pytest.approx(1.05 * 8.9, abs=0.4)
        # 4 s fit into 10 s as soon as 5 s of the other are left.
        assert refused(admission, 10.1, plan(400)).retry_seconds == pytest.approx(1.05 * 3.3, abs=0.4)
        assert refused(admission, 10.1, plan(105)).retry_seconds == pytest.approx(0.1, abs=0.3)
        assert not refused(admission, 10.1, plan(400)).repeatable, "less time would be left of its own"
    assert OverloadedError("full", retry_seconds=1).repeatable


def test_everyone_of_a_burst_is_told_a_time_of_their_own(admission, monkeypatch):
    def told():
        return refused(admission, 10.1, plan(400)).retry_seconds

    with admission.admit(within(10.1, plan(800))):
        times = [told() for _ in range(4)]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([1.05 * 4 / 0.9] * 3, abs=0.6)
        monkeypatch.setattr(promising, "_BURST_SECONDS", 0.0)  # nobody knows whether they come back
        assert told() == pytest.approx(times[0], abs=0.2)


def test_who_has_no_deadline_is_in_nobodys_way(admission):
    """Nor who has that of the server: they are done by turns."""
    capped = Demand(1, [plan(5000)], deadline=time.monotonic() + 3600, capped=True)
    with admission.admit(Demand(1, [plan(1000)])), admission.admit(capped):
        assert accepted(admission, 10.1, plan(890))
        with admission.admit(within(10.1, plan(890))):
            refused(admission, 10.1, plan(20))
            with admission.admit(Demand(1, [plan(1000)])):
                pass


def test_others_that_are_nearly_done_take_no_more_than_that(admission, begin):
    long = plan(1500)
    with admission.admit(within(20.1, long)) as admitted:
        job = begin(admitted, long)
        refused(admission, 5.1, plan(420))  # or the other one, which has 18 s, is late
        refused(admission, 20.1, plan(350))
        job.pass_count = 1000  # 5 s are left
        assert accepted(admission, 20.1, plan(1250))
        refused(admission, 20.1, plan(1350))
        job.pass_count = 1500
        assert accepted(admission, 20.1, plan(1750))
        job.pass_count, job.ended = 500, True  # it failed, say
        assert accepted(admission, 20.1, plan(1750))


def test_explanations_that_are_not_begun_count_in_full(admission, begin):
    one = plan(100, "one")
    with admission.admit(within(4.1, one, image_count=3)) as admitted:
        refused(admission, 4.1, plan(80))
        begin(admitted, one).pass_count = 100
        # Of three pictures one is done: 2 s are left.
        assert accepted(admission, 4.1, plan(150))
        refused(admission, 4.1, plan(170))


def test_every_explanation_of_every_picture_counts(admission):
    with admission.admit(within(10.1, plan(100, "a"), plan(200, "b"), image_count=2)):  # 6 s
        assert accepted(admission, 10.1, plan(140, "a"), plan(140, "b"))
        refused(admission, 10.1, plan(140, "a"), plan(180, "b"))
        refused(admission, 10.1, plan(80, "a"), plan(80, "b"), image_count=2)


def test_first_maps_of_budgets_count_until_they_are_there(admission, begin):
    """32 masks, of two pictures, and 0.64 s of the 0.9 that may be promised within a second."""
    budgeted = plan(10_000, "budgeted", budget_seconds=1.0)
    with admission.admit(within(20.1, budgeted, image_count=2)) as admitted:
        refused(admission, 1.1, plan(40))
        assert accepted(admission, 1.1, plan(20))
        begin(admitted, budgeted).pass_count = 32
        assert accepted(admission, 1.1, plan(50))
        begin(admitted, budgeted).pass_count = 9000
        assert accepted(admission, 1.1, plan(100))


def test_a_budget_whose_first_map_would_make_others_late_is_refused(admission):
    with admission.admit(within(1.1, plan(70))):
        error = refused(admission, 20.1, plan(10_000, budget_seconds=0.9))
        assert "would make others late" in error.message
        assert error.retry_seconds < 2
        assert accepted(admission, 20.1, plan(10_000, budget_seconds=2.0))


def test_passes_beyond_the_least_are_not_promised(admission, begin):
    tolerant, sure = plan(100, "tolerant", most=2000), plan(500, "sure")
    with admission.admit(within(10.1, tolerant, sure)) as admitted:
        refused(admission, 10.1, plan(320))
        assert accepted(admission, 10.1, plan(280))
        begin(admitted, sure)
        begin(admitted, tolerant).pass_count = 600
        assert accepted(admission, 10.1, plan(380))


def test_an_explanation_without_targets_leaves_nothing_to_do(admission, begin):
    none = plan(500, targets=Targets(min_probability=1.0))
    with admission.admit(within(6.1, none)) as admitted:
        refused(admission, 6.1, plan(100))
        assert begin(admitted, none) is None
        assert accepted(admission, 6.1, plan(100))


def test_what_is_promised_goes_with_the_computation(admission, begin):
    """When it has to be done, less what answering takes, and how many passes that takes."""
    sure, budgeted = plan(100, "sure"), plan(100, "budgeted", budget_seconds=2.0)
    capped = Demand(1, [sure], deadline=time.monotonic() + 60, capped=True)
    now = time.monotonic()
    with admission.admit(within(10, sure, budgeted)) as admitted:
        promise = begin(admitted, sure).times["flow"].promise
        assert (promise.by, promise.rows, promise.first_rows) == (pytest.approx(now + 9.9, abs=0.1), 100, 32)
        promise = begin(admitted, budgeted).times["flow"].promise
        assert (promise.by, promise.rows, promise.first_rows) == (pytest.approx(now + 2, abs=0.1), 32, 32)
    with admission.admit(capped) as admitted:
        assert begin(admitted, sure).times["flow"].promise is None


def test_kinds_have_their_own_costs(admission):
    with admission.admit(within(2.1, plan(10, "slow", "layer_gradient"))):  # 1 s
        refused(admission, 2.1, plan(90))
        assert accepted(admission, 2.1, plan(70))


def test_what_the_server_chooses_must_make_nobody_late(admission):
    quick, long = plan(20, "auto"), plan(500, "long")
    with admission.admit(within(10.1, plan(800))), admission.admit(within(10.1, quick)) as admitted:
        assert admitted.can_have(quick, plan(80, "other"))
        assert not admitted.can_have(quick, long)
    with admission.admit(within(10.1, quick)) as admitted:
        assert admitted.can_have(quick, long)


# ------------------------------------------------------------------------------------------------ whole costs


class Shared(Jobs):
    """Predictions take half of the device."""

    explain_share = 0.5
    ratio = 2.0


@pytest.fixture
def costly():
    """What `planned` takes on top of its passes is as much again, and predictions take half of the device."""
    costs = ExplanationCosts(Shared())
    return Admission(costs, ServerConfig(queue_capacity=10, queue_bytes=100 * MIB, max_targets=5), 600, 200)


def test_what_comes_on_top_of_passes_counts(costly):
    """A hundred masks are 1 s of passes, 2 s as a whole, of which 1.6 s are certain, and 4 s with the predictions."""
    with pytest.raises(DeadlineTooShortError, match=r"at least 1\.6 s"):
        costly.admit(within(1.5, plan())).__enter__()
    with pytest.raises(OverloadedError, match="With what else is in progress") as caught:
        costly.admit(within(3.1, plan())).__enter__()
    assert 0.1 <= caught.value.retry_seconds < 1
    with costly.admit(within(4.6, plan())):
        refused(costly, 8.6, plan())  # 8 s of 8.5
        assert accepted(costly, 9.2, plan())


def test_room_comes_as_late_as_explanations_end(costly):
    """Six of 2 s, and the shortest, of 1 s: seven share the device for 7 s until it ends, with predictions for 14 s."""
    with costly.admit(Demand(6, [plan()])), costly.admit(Demand(1, [plan(50)])):
        with pytest.raises(OverloadedError, match="pictures for explanations are in progress") as caught:
            costly.admit(Demand(1, [plan()])).__enter__()
        assert caught.value.retry_seconds == pytest.approx(14)
