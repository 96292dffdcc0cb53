"""What is taken on: by count, by bytes, and by what can be done before a deadline."""

import time
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import DeadlineTooShortError, OverloadedError
from xai_sidecar.explainers.base import PassCounts
from xai_sidecar.serving.admission import Admission, Demand
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.plan import Condition, ExplanationPlan, Targets
from xai_sidecar.serving.predictor import Predictor
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
        job = SimpleNamespace(pass_count=0, ended=False)
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
        assert hint() == 30
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
        with admission.admit(within(0.9, budgeted, conditioned, sure)):  # nor of others
            pass
    with pytest.raises(DeadlineTooShortError, match="at least 800 ms, most of it sure") as caught:
        admission.admit(within(0.7, budgeted, conditioned, sure)).__enter__()
    assert caught.value.field == "explanations[2]"


def test_with_a_tolerance_it_may_be_done_early(admission):
    with admission.admit(within(0.9, plan(100, most=100_000))):
        pass


def test_without_a_deadline_it_waits_as_long_as_it_takes(admission):
    with admission.admit(Demand(1, [plan(10**6)])), admission.admit(Demand(1, [plan(10**6)])):
        assert taken(admission)[:2] == (2, 2)


# ------------------------------------------------------------------------------------------------ the backlog


def refused(admission, *demand):
    """Why a demand is refused."""
    with pytest.raises(OverloadedError) as caught:
        admission.admit(within(*demand)).__enter__()
    return caught.value


def accepted(admission, *demand):
    """Whether it is taken; raises otherwise."""
    with admission.admit(within(*demand)):
        return True


def test_others_get_as_much_of_the_device(admission):
    with admission.admit(Demand(1, [plan(1000)])):  # of which 8 s are certain
        error = refused(admission, 7.0, plan(500))  # 4 s, and as much for the other
        assert "With what else is in progress, the explanations take at least 8 s" in error.message
        assert "deadline is in 7 s" in error.message
        assert error.retry_seconds == pytest.approx(1, abs=0.1)
        assert (error.field, taken(admission)[:2]) == ("", (1, 1))
        assert accepted(admission, 8.4, plan(500))
    assert accepted(admission, 4.4, plan(500))


def test_others_that_are_nearly_done_take_no_more_than_that(admission, begin):
    long = plan(1000)
    with admission.admit(Demand(1, [long])) as admitted:
        job = begin(admitted, long)
        refused(admission, 4.5, plan(500))
        job.pass_count = 900  # 0.8 s are left
        refused(admission, 4.5, plan(500))
        assert accepted(admission, 5.1, plan(500))
        job.pass_count = 1000
        assert accepted(admission, 4.3, plan(500))
        job.pass_count, job.ended = 900, True  # it failed, say
        assert accepted(admission, 4.3, plan(500))


def test_explanations_that_are_not_begun_count_in_full(admission, begin):
    one = plan(100, "one")
    with admission.admit(Demand(3, [one])) as admitted:
        begin(admitted, one).pass_count = 100
        # Of three pictures one is done: 0.8 s of each of the others are left, and 0.8 s are its own.
        refused(admission, 2.2, plan(100))
        assert accepted(admission, 2.6, plan(100))


def test_the_device_is_shared_by_explanation_not_by_request(admission):
    with admission.admit(Demand(1, [plan(10_000)])):
        # Its longest is done after 0.8 s for each of its four, and 0.8 s for the other.
        assert accepted(admission, 4.4, *(plan(100, str(index)) for index in range(4)))
        refused(admission, 3.8, *(plan(100, str(index)) for index in range(4)))
    with admission.admit(Demand(1, [plan(10_000, str(index)) for index in range(4)])):
        refused(admission, 3.8, plan(100))
        assert accepted(admission, 4.4, plan(100))


def test_passes_of_what_does_not_count_are_not_taken_for_others(admission, begin):
    sure = plan(500, "sure")
    budgeted = plan(10_000, "budgeted", budget_seconds=60.0)
    with admission.admit(Demand(1, [sure, budgeted])) as admitted:
        begin(admitted, sure)
        begin(admitted, budgeted).pass_count = 9000
        refused(admission, 7.5, plan(500))
        assert accepted(admission, 8.5, plan(500))


def test_passes_beyond_the_least_are_not_taken_for_others(admission, begin):
    tolerant, sure = plan(100, "tolerant", most=2000), plan(500, "sure")
    with admission.admit(Demand(1, [tolerant, sure])) as admitted:
        begin(admitted, sure)
        begin(admitted, tolerant).pass_count = 600
        refused(admission, 7.5, plan(500))
        assert accepted(admission, 8.5, plan(500))


def test_an_explanation_without_targets_leaves_nothing_to_do(admission, begin):
    none = plan(500, targets=Targets(min_probability=1.0))
    with admission.admit(Demand(1, [none])) as admitted:
        assert begin(admitted, none) is None
        assert accepted(admission, 4.4, plan(500))


def test_the_hint_has_bounds(admission):
    with admission.admit(Demand(1, [plan(100_000)])):
        assert refused(admission, 7.98, plan(500)).retry_seconds == 0.1
        # 80 s, and 80 s for the other: 60 s more than there are.
        assert refused(admission, 100, plan(10_000)).retry_seconds == 30


def test_kinds_have_their_own_costs(admission):
    with admission.admit(Demand(1, [plan(10, "slow", "layer_gradient")])):  # 0.8 s
        refused(admission, 1.4, plan(100))
        assert accepted(admission, 1.9, plan(100))
        assert accepted(admission, 1.0, plan(10)), "0.08 s for each"


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
    """A hundred masks are 1 s of passes and 2 s as a whole: 1.6 s of it certain, and 3.2 s with the predictions."""
    with pytest.raises(DeadlineTooShortError, match=r"at least 1\.6 s"):
        costly.admit(within(1.5, plan())).__enter__()
    with pytest.raises(OverloadedError, match=r"at least 3\.2 s") as caught:
        costly.admit(within(2.7, plan())).__enter__()
    assert caught.value.retry_seconds == pytest.approx(0.5, abs=0.1)
    with costly.admit(within(3.4, plan())):
        # Beside another one of 2 s: 2 * 1.6 s, and with the predictions 6.4 s.
        with pytest.raises(OverloadedError, match=r"at least 6\.4 s"):
            costly.admit(within(6.2, plan())).__enter__()
        with costly.admit(within(6.6, plan())):
            pass


def test_room_comes_as_late_as_explanations_end(costly):
    """Six of 2 s, and the shortest, of 1 s: seven share the device for 7 s until it ends, with predictions for 14 s."""
    with costly.admit(Demand(6, [plan()])), costly.admit(Demand(1, [plan(50)])):
        with pytest.raises(OverloadedError, match="pictures for explanations are in progress") as caught:
            costly.admit(Demand(1, [plan()])).__enter__()
        assert caught.value.retry_seconds == pytest.approx(14)
