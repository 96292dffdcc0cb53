"""What calls bring in: which requests are sampled, what becomes of samples, and ground truth."""

import io
import runpy
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.errors import (
    InvalidRequestError,
    NotFoundError,
    PictureError,
    PictureTooLargeError,
    ShuttingDownError,
    SidecarError,
    StoreError,
)
from xai_sidecar.evaluator import ingest as ingesting
from xai_sidecar.evaluator import sampling
from xai_sidecar.evaluator.ingest import Ingest
from xai_sidecar.evaluator.preference import Seen
from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    Frame,
    GroundTruth,
    MaskAnnotation,
    PolygonAnnotation,
    SampleKey,
    SampleState,
    Served,
    TruthObject,
)
from xai_sidecar.evaluator.store import Reported, Store
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

NOW = 1_700_000_000.0
EVENTS = ("sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive")


@pytest.fixture
def clock():
    return models.Clock(NOW)


@pytest.fixture
def make(tmp_path, clock):
    """Makes an `Ingest` with all around it; takes keys of the config. All of them have the same store's file."""
    made = []

    def make(model=None, max_pixels=10_000, **settings):
        model, settings = model or models.make_model(), models.config(**settings)
        quality, telemetry = models.make_quality(model, settings, clock)
        store = Store.open(f"sqlite:///{tmp_path}/store.db", max_bytes=1 << 30, retention_seconds=1e12)
        told = []
        store_errors = StoreErrors(store, telemetry)
        ingest = Ingest(store_errors, model, settings, quality, telemetry, max_pixels, lambda: told.append(1), clock)
        made.append(SimpleNamespace(
            ingest=ingest, store=store, quality=quality, telemetry=telemetry, store_errors=store_errors, told=told,
        ))  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.ingest.close()
        one.store.close()


@pytest.fixture
def one(make):
    return make()


def events(made):
    """What happened to samples, without what did not."""
    counts = {event: models.value_of(made.telemetry, "xai_samples_total", event=event) for event in EVENTS}
    return {event: count for event, count in counts.items() if count}


def stored(made):
    """Once all that came in is written: by request, what became of it."""
    made.ingest._writer.submit(int).result(10)
    with made.store._database.read() as connection:
        rows = connection.exec_driver_sql("SELECT request_id, image_index, state FROM samples").all()
    return {SampleKey(*row[:2]): row[2] for row in rows}


def truth(*objects, class_ids=(1,), time=NOW):
    return GroundTruth(tuple(class_ids), tuple(TruthObject(shape) for shape in objects), time)


# ------------------------------------------------------------------------------------------------ sampling


def sampled(made, ids):
    """The requests that are sampled of some."""
    return {name for name in ids if made.ingest.draw(name, lambda: [Seen(0, 0.5)]) is not None}


def test_which_requests_are_sampled(make):
    ids = [f"request-{number}" for number in range(2000)]
    rates = (0.1, 0.3, 0.0, 1.0)
    some, more, none, all_of_them = (make(sample_rate=rate, sampling="uniform") for rate in rates)
    chosen = sampled(some, ids)
    assert 140 <= len(chosen) <= 260  # 200 on average, with a standard deviation of 13
    again = make(sample_rate=0.1, sampling="uniform")
    assert chosen == sampled(again, reversed(ids))
    assert chosen <= sampled(more, ids)
    assert not sampled(none, ids)
    assert sampled(all_of_them, ids) == set(ids)


def test_a_sample_is_stored_and_waits(one):
    sample = models.make_sample("a", 2, time=NOW - 5, ood=(0.5, 60.0))
    one.ingest.offer([sample])
    assert stored(one) == {sample.key: "pending"}
    record = one.store.sample(sample.key)
    assert (record.time, record.model_version, record.ood) == (NOW - 5, "m", (0.5, 60.0))
    assert vars(record.frame) == vars(models.FRAME)
    assert (record.target, record.probability) == (sample.target, float(sample.probabilities.max()))
    assert record.positives == (sample.target,)
    assert one.ingest.waiting.take(NOW) is sample
    assert events(one) == {"sampled": 1}
    assert one.quality.summary().last_sample == NOW - 5
    assert one.quality.summary().sample_count == 1


@pytest.mark.parametrize("positives", [(0, 2), ()])
def test_all_classes_that_were_predicted_are_kept(make, positives):
    made = make(models.make_model(one_class=False), keep_pictures=True)
    sample = models.make_sample(positives=positives, activation=sigmoid)
    made.ingest.offer([sample])
    stored(made)
    assert made.store.sample(sample.key).positives == positives
    assert restarted(make, made, keep_pictures=True).ingest.waiting.take(NOW).positives == positives


def test_the_target_of_saturated_probabilities_is_that_of_the_highest_logit(make):
    made = make(models.make_model(one_class=False))
    sample = models.make_sample(logits=np.array([18, 40, -5], np.float32), activation=sigmoid)
    assert sample.probabilities.tolist()[:2] == [1, 1]
    made.ingest.offer([sample])
    stored(made)
    record = made.store.sample(sample.key)
    assert (record.target, record.positives) == (1, (0, 1))


def test_a_request_that_comes_again(one):
    first, again = models.make_sample("a", seed=1), models.make_sample("a", seed=1)
    one.ingest.offer([first])
    one.ingest.offer([again, models.make_sample("a", 1)])
    assert stored(one) == {first.key: "pending", SampleKey("a", 1): "pending"}
    assert events(one) == {"sampled": 3, "repeated": 1}
    assert [one.ingest.waiting.take(NOW) is each for each in (first, again)] == [True, False]
    assert one.ingest.waiting.count == 0


def test_one_id_for_several_pictures(one):
    """A trace's id, say: whose truth would it be? The scores of the first picture count all the same."""
    first = models.make_sample("trace", seed=1)
    one.ingest.offer([first])
    one.ingest.report(first.key, truth()).result(10)
    one.ingest.offer([models.make_sample("trace", seed=2)])
    with pytest.raises(NotFoundError, match="an id of its own"):
        one.ingest.report(first.key, truth()).result(10)
    one.ingest.offer([models.make_sample("trace", seed=1)])
    one.store.set_state(first.key, SampleState.SCORED)
    assert stored(one) == {first.key: "ambiguous"}
    assert one.ingest.waiting.take(NOW) is first


def test_fewer_requests_are_sampled_where_more_wait_than_are_measured(make, clock):
    one = make(sample_rate=0.8, max_age_seconds=100, sampling="uniform")
    ids = [f"request {number}" for number in range(500)]
    before = sampled(one, ids)
    one.ingest.offer([models.make_sample("a", time=NOW)])
    stored(one)
    clock.now += 75  # half way from where less is sampled to where it would expire
    after = sampled(one, ids)
    assert after < before
    assert len(after) == pytest.approx(200, abs=50)
    clock.now += 25
    assert not sampled(one, ids)
    clock.now += 1
    one.ingest.expire()
    assert sampled(one, ids) == before
    assert "1 expired before" in one.ingest.unscored.text(clock.now)


@pytest.mark.parametrize("early", [True, False])
def test_a_sample_with_ground_truth_is_measured_first(make, early):
    one = make()
    first, second = models.make_sample("a", time=NOW - 5), models.make_sample("b", time=NOW)
    one.ingest.offer([first])
    if early:  # before it waits, as where its callers are quick
        one.ingest._writer.submit(lambda: one.store.add_sample(second.record())).result(10)
        one.store.put_truth(second.key, truth())
        one.ingest._queue(second)
    else:
        one.ingest.offer([second])
        stored(one)
        one.ingest.report(second.key, truth()).result(10)
    assert [one.ingest.waiting.take(NOW).key.request_id for _ in range(2)] == ["b", "a"]


def test_reports_that_the_store_does_not_keep_up_with(make):
    made = make(pending_bytes=2**16)
    gate, put = threading.Event(), made.store.put_truth
    made.store.put_truth = lambda *arguments, **named: gate.wait(10) and put(*arguments, **named)
    sample = models.make_sample("a")
    made.ingest.offer([sample])
    large = GroundTruth((1,), (TruthObject(BoxAnnotation(0, 0, 1, 1)),) * 200, NOW)  # 200 bytes each, taken roughly
    waiting = [made.ingest.report(sample.key, large)]
    with pytest.raises(SidecarError) as caught:
        for _ in range(10):
            waiting.append(made.ingest.report(sample.key, large))
    assert (caught.value.code, caught.value.retry_seconds) == ("RESOURCE_EXHAUSTED", 1.0)
    gate.set()
    for each in waiting:
        each.result(10)
    made.ingest.report(sample.key, large).result(10)  # there is room again


# ------------------------------------------------------------------------------------------------ no room


def test_what_a_sample_takes():
    served = Served(np.zeros((6, 8), np.float32), MapStatus.OK, 1, 64)
    assert models.make_sample(served={"rise": served}).byte_count == 4 * (2 * 6 * 8 + 3 + 3 + 6 * 8)


def test_the_store_does_not_keep_up(make):
    """Of samples of 408 bytes, 160 fit into 65,536."""
    made = make(pending_bytes=2**16)
    gate, add = threading.Event(), made.store.add_sample
    made.store.add_sample = lambda *arguments: gate.wait(10) and add(*arguments)
    samples = [models.make_sample(f"r{number}") for number in range(165)]
    assert {sample.byte_count for sample in samples} == {408}
    began = time.monotonic()
    made.ingest.offer(samples)
    assert time.monotonic() - began < 1  # whoever offers does not wait
    assert events(made) == {"sampled": 165, "dropped": 5}
    gate.set()
    assert set(stored(made)) == {sample.key for sample in samples[:160]}
    assert made.ingest.waiting.count == 160
    while made.ingest.waiting.take(NOW):
        pass
    made.ingest.offer([models.make_sample("later")])  # there is room again
    assert stored(made)[SampleKey("later", 0)] == "pending"
    assert events(made) == {"sampled": 166, "dropped": 5}


def test_no_room_to_wait(make):
    made = make(pending_bytes=2**16)
    samples = [models.make_sample(f"r{number}") for number in range(162)]
    for sample in samples:
        made.ingest.offer([sample])
        states = stored(made)
    assert events(made) == {"sampled": 162, "dropped": 2}
    assert [key for key, state in states.items() if state == "dropped"] == [sample.key for sample in samples[160:]]
    assert made.ingest.waiting.byte_count == 160 * 408


def test_those_too_old_make_room(make, clock):
    made = make(pending_bytes=2**16, max_age_seconds=60)
    made.ingest.offer([models.make_sample(f"old{number}", time=NOW) for number in range(160)])
    stored(made)
    clock.now = NOW + 61
    new = models.make_sample("new", time=clock.now)
    made.ingest.offer([new])
    states = stored(made)
    assert (states.pop(new.key), set(states.values())) == ("pending", {"expired"})
    assert events(made) == {"sampled": 161, "expired": 160}


def test_those_that_waited_too_long(make, clock):
    made = make(max_age_seconds=60)
    for name, age in (("old", 50), ("young", 10)):
        made.ingest.offer([models.make_sample(name, time=NOW - age)])
    stored(made)
    clock.now = NOW + 20
    made.ingest.expire()
    assert {key.request_id: state for key, state in stored(made).items()} == {"old": "expired", "young": "pending"}
    assert events(made) == {"sampled": 2, "expired": 1}
    assert made.ingest.waiting.count == 1


# ------------------------------------------------------------------------------------------------ restarts


def restarted(make, made, **settings):
    made.ingest.close()
    made.store.close()
    again = make(**settings)
    again.ingest.restore()
    return again


def test_what_waited_is_lost_with_the_server(make):
    made = make()
    made.ingest.offer([models.make_sample("a"), models.make_sample("b")])
    made.ingest._writer.submit(made.store_errors.end, SampleKey("a", 0), SampleState.SCORED)
    again = restarted(make, made)
    assert {key.request_id: state for key, state in stored(again).items()} == {"a": "scored", "b": "lost"}
    assert (events(again), again.ingest.waiting.count) == ({"lost": 1}, 0)


def test_what_waited_goes_on_if_its_picture_was_kept(make):
    made = make(keep_pictures=True)
    served = Served(np.zeros((6, 8), np.float32), MapStatus.OK, 1, 64)
    frame = Frame(6, 8, (80, 60), Region(10.0, 0.5, 70.0, 45.25))
    late = models.make_sample("late", seed=1, time=NOW + 1, ood=(0.5, 60.0))
    early = models.make_sample("early", 3, seed=2, time=NOW, served={"rise": served}, frame=frame)
    made.ingest.offer([late, early])
    again = restarted(make, made, keep_pictures=True)
    for sample in (early, late):
        found = again.ingest.waiting.take(NOW)
        assert (found.key, found.time, found.model_version, found.ood) == (sample.key, sample.time, "m", sample.ood)
        assert vars(found.frame) == vars(sample.frame)
        np.testing.assert_array_equal(found.image, sample.image)
        np.testing.assert_array_equal(found.logits, sample.logits)
        np.testing.assert_array_equal(found.probabilities, sample.probabilities)
        assert (found.image.dtype, found.served) == (np.float32, {})
    assert again.ingest.waiting.take(NOW) is None
    assert events(again) == {}
    assert set(stored(again).values()) == {"pending"}


def test_what_a_sample_weighs_outlasts_a_restart(make):
    made = make(keep_pictures=True)
    made.ingest.offer([models.make_sample("a", time=NOW, inclusion=0.5, weight=0.75, typical=True)])
    again = restarted(make, made, keep_pictures=True)
    found, record = again.ingest.waiting.take(NOW), again.store.sample(SampleKey("a", 0))
    assert (found.inclusion, found.weight, record.inclusion, record.weight) == (0.5, 0.75, 0.5, 0.75)
    place = sampling.place("a", again.store.sampling_salt())
    assert found.typical == (place < 0.1875 / (0.625 + 0.1875)), "half the odds of 0.375 to 0.625"


def test_rare_and_doubtful_requests_are_sampled_more_often(make):
    made = make(sample_rate=0.2)
    made.ingest._salt = b""
    common, rare = (
        [f"{what} {number}" for number in range(count)] for what, count in (("common", 2000), ("rare", 100))
    )
    draws = {}
    for name in sorted([*common, *rare], key=sampling.place):
        is_rare = name.startswith("rare")
        draws[name] = made.ingest.draw(name, lambda is_rare=is_rare: [Seen(int(is_rare), 0.5 * is_rare)])
    shares = [sum(draws[name] is not None for name in names) / len(names) for names in (common, rare)]
    assert shares[0] == pytest.approx(0.18, abs=0.04)
    assert shares[1] > 0.3
    weights = [[draws[name].weight for name in names if draws[name] is not None][-9:] for names in (common, rare)]
    assert min(weights[0]) > 1 > 0.6 > max(weights[1])


def test_those_that_go_on_count_as_sampled(make):
    made = make(keep_pictures=True)
    made.ingest.offer([models.make_sample("a", time=NOW - 5)])
    again = restarted(make, made, keep_pictures=True)
    again.quality.set_busy(True)
    summary = again.quality.summary()
    assert (summary.last_sample, summary.sample_count, summary.note) == (NOW - 5, 1, "")


def test_pictures_of_another_model_are_of_no_use(make):
    made = make(keep_pictures=True)
    made.ingest.offer([models.make_sample("a")])
    again = restarted(make, made, model=models.make_model(version="other"), keep_pictures=True)
    assert (stored(again), events(again)) == ({SampleKey("a", 0): "lost"}, {"lost": 1})


def test_no_picture_is_kept_unless_it_is_to_be(make):
    made = make()
    made.ingest.offer([models.make_sample("a")])
    stored(made)
    assert [kept for _, kept in made.store.pending()] == [None]


def test_less_room_than_before(make):
    made = make(keep_pictures=True)
    made.ingest.offer([models.make_sample(f"r{number:03}", time=NOW + number) for number in range(165)])
    again = restarted(make, made, keep_pictures=True, pending_bytes=2**16)
    assert (events(again), again.ingest.waiting.count) == ({"dropped": 5}, 160)
    dropped = {key.request_id for key, state in stored(again).items() if state == "dropped"}
    assert dropped == {f"r{number:03}" for number in range(160, 165)}


# ------------------------------------------------------------------------------------------------ ground truth


def reports(made):
    counts = {
        result: models.value_of(made.telemetry, "xai_ground_truth_reports_total", result=result)
        for result in ("new", "replaced", "repeated")
    }
    return {result: count for result, count in counts.items() if count}


def test_reports(one):
    sample = models.make_sample("a")
    one.ingest.offer([sample])
    first = truth(BoxAnnotation(0, 0, 4, 4), time=NOW + 1)
    assert one.ingest.report(sample.key, first).result(10).reported is Reported.NEW
    assert one.store.truth(sample.key) == first
    assert one.told == [1]
    again = one.ingest.report(sample.key, truth(BoxAnnotation(0, 0, 4, 4), time=NOW + 2)).result(10)
    assert again.reported is Reported.REPEATED
    second = truth(class_ids=(0, 2), time=NOW + 3)
    assert one.ingest.report(sample.key, second).result(10).reported is Reported.REPLACED
    assert one.store.truth(sample.key) == second
    assert reports(one) == {"new": 1, "repeated": 1, "replaced": 1}


@pytest.mark.parametrize("key", [SampleKey("b", 0), SampleKey("a", 1)])
def test_no_such_sample(one, key):
    one.ingest.offer([models.make_sample("a")])
    with pytest.raises(NotFoundError, match=r"PredictResponse\.sampled") as caught:
        one.ingest.report(key, truth()).result(10)
    assert caught.value.field == "request_id"
    assert f"Picture {key.image_index} of request {key.request_id}" in caught.value.message
    assert (reports(one), one.told) == ({}, [])


def test_a_report_finds_what_was_offered_before(make):
    """However slow the store is: it is in the queue behind its sample."""
    made = make()
    add = made.store.add_sample
    made.store.add_sample = lambda *arguments: (time.sleep(0.002), add(*arguments))[1]
    futures = []
    for number in range(50):
        sample = models.make_sample(f"r{number}")
        made.ingest.offer([sample])
        futures.append(made.ingest.report(sample.key, truth()))
    wait(futures, 20)
    assert {future.result(0).reported for future in futures} == {Reported.NEW}


def test_reports_from_many_threads(make):
    made = make()
    results = []

    def call(caller):
        for number in range(10):
            sample = models.make_sample(f"{caller}-{number}")
            made.ingest.offer([sample])
            results.append(made.ingest.report(sample.key, truth()).result(20).reported)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [Reported.NEW] * 80
    assert (len(stored(made)), made.ingest.waiting.count) == (80, 80)


def png(width, height, value=255):
    file = io.BytesIO()
    Image.new("L", (width, height), value).save(file, "PNG")
    return file.getvalue()


SHAPES = [
    (BoxAnnotation(4, 0, 4, 4), "box", InvalidRequestError),
    (BoxAnnotation(20, 0, 24, 4), "box", InvalidRequestError),  # the picture is 16 x 12
    (BoxAnnotation(0, 0, float("nan"), 4), "box", InvalidRequestError),
    (PolygonAnnotation(((0, 0), (4, 4))), "polygon", InvalidRequestError),
    (PolygonAnnotation(((0, 0), (4, 4), (8, 8))), "polygon", InvalidRequestError),
    (MaskAnnotation(b"GIF89a"), "mask_png", PictureError),
    (MaskAnnotation(png(8, 6)), "mask_png", InvalidRequestError),
    (MaskAnnotation(png(16, 12, 0)), "mask_png", InvalidRequestError),
    (MaskAnnotation(png(200, 200)), "mask_png", PictureTooLargeError),
]


@pytest.mark.parametrize(("shape", "field", "kind"), SHAPES)
def test_shapes_that_do_not_fit_the_picture(one, shape, field, kind):
    sample = models.make_sample("a")
    one.ingest.offer([sample])
    with pytest.raises(kind) as caught:
        one.ingest.report(sample.key, truth(BoxAnnotation(0, 0, 4, 4), shape)).result(10)
    assert type(caught.value) is kind
    assert caught.value.field == f"objects[1].{field}"
    assert (one.store.truth(sample.key), reports(one), one.told) == (None, {}, [])


def test_shapes_that_do(one):
    sample = models.make_sample("a")
    one.ingest.offer([sample])
    shapes = (
        BoxAnnotation(-4, -4, 1, 1),
        PolygonAnnotation(((0, 0), (16, 0), (16, 12))),
        MaskAnnotation(png(16, 12)),
    )
    receipt = one.ingest.report(sample.key, truth(*shapes)).result(10)
    assert receipt.reported is Reported.NEW
    assert [number for number, _ in receipt.warnings] == [0]  # the box reaches beyond the picture
    assert tuple(thing.annotation for thing in one.store.truth(sample.key).objects) == shapes


@pytest.mark.parametrize("slow", [MaskAnnotation(png(16, 12)), PolygonAnnotation(((0, 0), (16, 0), (16, 12)) * 3333)])
def test_others_do_not_wait_for_shapes_that_take_long_to_check(one, monkeypatch, slow):
    samples = [models.make_sample(name) for name in "ab"]
    one.ingest.offer(samples)
    go_on, check = threading.Event(), ingesting.check_annotation

    def check_slowly(shape, *rest):
        if shape is slow:
            go_on.wait(30)
        return check(shape, *rest)

    monkeypatch.setattr(ingesting, "check_annotation", check_slowly)
    waiting = one.ingest.report(samples[0].key, truth(slow, slow))
    assert one.ingest.report(samples[1].key, truth(BoxAnnotation(0, 0, 4, 4))).result(10).reported is Reported.NEW
    assert not waiting.done()
    go_on.set()
    assert waiting.result(10).reported is Reported.NEW
    assert one.store.truth(samples[0].key) is not None


def test_slow_shapes_are_stored_before_it_closes_and_refused_then(one):
    sample = models.make_sample("a")
    one.ingest.offer([sample])
    report = one.ingest.report(sample.key, truth(MaskAnnotation(png(16, 12))))
    one.ingest.close()
    assert report.result(10).reported is Reported.NEW
    with pytest.raises(ShuttingDownError):
        one.ingest.report(sample.key, truth(MaskAnnotation(png(16, 12))))


def test_a_mask_with_broken_metadata(one):
    sample = models.make_sample("a")
    one.ingest.offer([sample])
    mask = png(16, 12)
    text = b"\0\0\0\x04zTXtjunkjunk"
    assert one.ingest.report(sample.key, truth(MaskAnnotation(mask[:33] + text + mask[33:]))).result(10).warnings == []


# ------------------------------------------------------------------------------------------------ a store that fails


def failing(*_, **__):
    raise StoreError("The disk is full.")


def failures(made):
    return models.value_of(made.telemetry, "xai_store_failures_total")


def test_the_store_fails(one):
    one.ingest.offer([models.make_sample("a")])
    stored(one)
    add, put, set_state = one.store.add_sample, one.store.put_truth, one.store.set_state
    one.store.add_sample = one.store.put_truth = one.store.set_state = failing
    one.ingest.offer([models.make_sample("b")])
    with pytest.raises(StoreError, match="disk is full"):
        one.ingest.report(SampleKey("a", 0), truth()).result(10)
    one.store_errors.end(SampleKey("a", 0), SampleState.SCORED)
    assert failures(one) == 3
    assert events(one) == {"sampled": 2, "dropped": 1, "scored": 1}
    assert (one.ingest.waiting.count, reports(one), one.told) == (1, {}, [])
    one.store.add_sample, one.store.put_truth, one.store.set_state = add, put, set_state
    one.ingest.offer([models.make_sample("c")])
    assert one.ingest.report(SampleKey("c", 0), truth()).result(10).reported is Reported.NEW
    assert one.ingest.report(SampleKey("a", 0), truth()).result(10).reported is Reported.NEW
    assert (failures(one), one.ingest.waiting.count) == (3, 2)


def test_room_is_given_back_by_what_cannot_be_stored(make):
    made = make(pending_bytes=2**16)
    add, made.store.add_sample = made.store.add_sample, failing
    for number in range(200):
        made.ingest.offer([models.make_sample(f"r{number}")])
        made.ingest._writer.submit(int).result(10)
    made.store.add_sample = add
    made.ingest.offer([models.make_sample("a")])
    assert stored(made) == {SampleKey("a", 0): "pending"}
    assert events(made) == {"sampled": 201, "dropped": 200}


def test_what_came_in_is_stored_before_it_closes(make):
    made = make()
    add = made.store.add_sample
    made.store.add_sample = lambda *arguments: (time.sleep(0.005), add(*arguments))[1]
    made.ingest.offer([models.make_sample(f"r{number}") for number in range(20)])
    reported = made.ingest.report(SampleKey("r19", 0), truth())
    made.ingest.close()
    assert reported.result(0).reported is Reported.NEW
    assert len(made.store.states()) == 20


def test_calls_that_come_too_late(one):
    """Calls that the server did not wait for when it drained: nothing of theirs is taken, and nothing breaks."""
    one.ingest.close()
    one.ingest.offer([models.make_sample("a")])
    with pytest.raises(SidecarError) as caught:
        one.ingest.report(SampleKey("a", 0), truth()).result(10)
    assert caught.value.code == "UNAVAILABLE"
    assert len(one.store.states()) == 0
