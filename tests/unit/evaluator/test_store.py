"""What goes into the store comes out as it was, in both databases."""

import math
import struct
from dataclasses import fields, replace

import numpy as np
import pytest

from xai_sidecar.errors import InvalidRequestError, NotFoundError
from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    Frame,
    GroundTruth,
    MapRecord,
    MaskAnnotation,
    PolygonAnnotation,
    SampleKey,
    SampleRecord,
    SampleState,
    TruthObject,
)
from xai_sidecar.evaluator.store import KeptPicture, Reported, truths
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.metrics.base import ScoreStatus

THIRD = 1 / 3  # no short decimal
ODD = struct.pack("<8I", 0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 1, 0x3F800001, 0x00800000)
"""Two NaNs with payloads, both infinities, -0, the smallest number, 1 and a bit, the smallest normal one."""


def plain(value):
    """A value that can be compared, arrays by their bits."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, [plain(getattr(value, each.name)) for each in fields(value)]
    return repr(value)


def odd(*shape):
    """An array of numbers of all sorts."""
    return np.resize(np.frombuffer(ODD, "<f4"), shape)


TRUTH = GroundTruth(
    class_ids=(0, 7, 999),
    objects=(
        TruthObject(BoxAnnotation(0.1, THIRD, 20.0, 1e-300), 7),
        TruthObject(PolygonAnnotation(((0.0, THIRD), (5.5, 0.0), (2.0, 9.0))), None),
        TruthObject(MaskAnnotation(bytes(range(256))), 0),
        TruthObject(BoxAnnotation(1, 2, 3, 4), 7),
    ),
    time=THIRD,
)


@pytest.mark.parametrize(
    "record",
    [
        SampleRecord(SampleKey("a", 0), THIRD, "v1", Frame(5, 6), 3, THIRD, (3,)),
        SampleRecord(
            SampleKey("Ünïcödé / 'quoted'; --", 31), 1.7e9 + THIRD, "v2",
            Frame(224, 320, (4000, 3000), Region(0.5, THIRD, 3999.5, 3000.0)), 999, 1.0, (1, 17, 999), (0.25, 99.5),
            SampleState.SCORED,
        ),
        SampleRecord(SampleKey("none", 1), 0.0, "", Frame(1, 1), 0, 1e-300, (), (THIRD, 0.0), SampleState.LOST),
        SampleRecord(SampleKey("nan", 0), 0.0, "v", Frame(1, 1), 0, math.nan, (0,), (math.nan, 0.0)),
        SampleRecord(SampleKey("picture", 0), 0.0, "v", Frame(1, 1, (2, 2), None), 0, math.inf, (0,)),
    ],
    ids=lambda record: record.key.request_id,
)  # fmt: skip
def test_samples_come_back(store, open_store, url, record):
    assert store.sample(record.key) is None
    assert store.add_sample(record) is True
    assert plain(store.sample(record.key)) == plain(record)
    assert plain(open_store(url).sample(record.key)) == plain(record)
    assert store.sample(SampleKey(record.key.request_id, record.key.image_index + 1)) is None


@pytest.mark.parametrize("state", SampleState)
def test_every_state_comes_back(store, make_sample, state):
    record = make_sample()
    store.add_sample(record)
    store.set_state(record.key, state)
    assert store.sample(record.key).state is state


def test_a_sample_is_kept_once(store, make_sample):
    record = make_sample(ood=(0.5, 1.0))
    assert store.add_sample(record)
    store.set_state(record.key, SampleState.SCORED)
    again = replace(record, time=9.0, positives=(1, 2), probability=0.1)
    assert not store.add_sample(again, KeptPicture(odd(3, 4, 5), odd(10), odd(10)))
    assert plain(store.sample(record.key)) == plain(replace(record, state=SampleState.SCORED))
    assert len(store.states()) == 1
    assert store.add_sample(replace(record, key=SampleKey(record.key.request_id, 1)))
    assert len(store.states()) == 2
    assert [record.key.image_index for record, _ in store.pending()] == [1]


def test_the_ood_score_may_come_later(store, make_sample):
    record = make_sample()
    store.add_sample(record)
    store.set_ood(record.key, (THIRD, 2.5))
    assert store.sample(record.key).ood == (THIRD, 2.5)


def test_maps_and_scores_come_back(store, make_sample, make_score):
    record = make_sample()
    store.add_sample(record)
    made = [
        MapRecord("rise", 3, {"mask_count": 8, "p": THIRD, "deep": {"a": [1, None, "x"]}}, 2**64 - 1,
                  MapStatus.NO_OOD_RANGE, odd(7, 9), 2**40),
        MapRecord("gradcam", 0, {}, 0, MapStatus.OK, odd(9, 7).T, 0),
    ]  # fmt: skip
    measured = [
        make_score("rise", "faithfulness/naive", THIRD),
        make_score("rise", "robustness", None, ScoreStatus.OUTPUT_NOT_FINITE),
        make_score("gradcam", "class_sensitivity", None, None),
    ]
    for each in made:
        store.add_map(record.key, each, [score for score in measured if score.explainer == each.explainer])
    assert [plain(each) for each in store.maps(record.key)] == [plain(made[1]), plain(made[0])]
    assert store.scores(record.key) == [measured[2], measured[0], measured[1]]
    assert store.maps(record.key)[0].saliency.flags.writeable


@pytest.mark.parametrize("status", MapStatus)
def test_every_map_status_comes_back(store, make_sample, make_map, status):
    record = make_sample()
    store.add_sample(record)
    store.add_map(record.key, replace(make_map(), status=status), [])
    assert store.maps(record.key)[0].status is status


def test_every_score_status_comes_back(store, make_sample, make_score):
    record = make_sample()
    store.add_sample(record)
    measured = [
        make_score(metric=status.name, value=1.0 if status is ScoreStatus.OK else None, status=status)
        for status in ScoreStatus
    ]
    store.put_scores(record.key, measured)
    assert {score.metric: score for score in store.scores(record.key)} == {score.metric: score for score in measured}


def test_a_map_replaces_all_that_was_there_of_its_explainer(store, make_sample, make_map, make_score):
    one, other = make_sample(), make_sample()
    for record in (one, other):
        store.add_sample(record)
        store.add_map(record.key, make_map(), [make_score(metric="a"), make_score(metric="b")])
        store.add_map(record.key, make_map("rise"), [make_score("rise", "a")])
    untouched = [plain(each) for each in store.maps(other.key)], store.scores(other.key)
    store.add_map(one.key, make_map(random=1), [make_score(metric="c")])
    assert [plain(each) for each in store.maps(one.key)] == [plain(make_map(random=1)), plain(make_map("rise"))]
    assert store.scores(one.key) == [make_score(metric="c"), make_score("rise", "a")]
    assert ([plain(each) for each in store.maps(other.key)], store.scores(other.key)) == untouched


def test_scores_replace_those_of_the_same_metric_only(store, make_sample, make_score):
    record = make_sample()
    store.add_sample(record)
    store.put_scores(record.key, [make_score(metric="a"), make_score(metric="b"), make_score("rise", "a")])
    store.put_scores(record.key, [])
    store.put_scores(record.key, [make_score(metric="a", value=0.125), make_score("rise", "b")])
    expected = [make_score(metric="a", value=0.125), make_score(metric="b")]
    expected += [make_score("rise", "a"), make_score("rise", "b")]
    assert store.scores(record.key) == expected
    store.remove_scores(record.key, {"a", "never measured"})
    assert store.scores(record.key) == [make_score(metric="b"), make_score("rise", "b")]
    store.remove_scores(record.key, [])
    assert len(store.scores(record.key)) == 2


def test_truths_come_back(store, make_sample):
    records = [make_sample() for _ in range(4)]
    truths = [TRUTH, replace(TRUTH, class_ids=()), replace(TRUTH, objects=())]
    for record in records:
        store.add_sample(record)
    for record, truth in zip(records[:3], truths, strict=True):
        assert store.put_truth(record.key, truth) is Reported.NEW
    assert [store.truth(record.key) for record in records] == [*truths, None]


def test_a_truth_is_replaced_whole_and_not_repeated(store, make_sample):
    record = make_sample()
    store.add_sample(record)
    store.put_truth(record.key, TRUTH)
    store.mark_applied(record.key, TRUTH.time)
    assert store.put_truth(record.key, replace(TRUTH, time=50.0)) is Reported.REPEATED
    assert store.truth(record.key) == TRUTH
    assert store.unapplied_truths("m") == []
    changes = [
        replace(TRUTH, class_ids=(0, 7), time=2.0),
        GroundTruth((4,), (), 3.0),
        GroundTruth((), (TruthObject(MaskAnnotation(b"1"), 4),), 4.0),
        GroundTruth((), (TruthObject(MaskAnnotation(b"2"), 4),), 5.0),
        GroundTruth((), (TruthObject(MaskAnnotation(b"2"), None),), 6.0),
    ]
    for change in changes:
        assert store.put_truth(record.key, change) is Reported.REPLACED
        assert store.truth(record.key) == change
        assert store.unapplied_truths("m") == [record.key]
        store.mark_applied(record.key, change.time)
        assert store.unapplied_truths("m") == []


BOX, OTHER = (TruthObject(BoxAnnotation(*corners)) for corners in ((0.0, 0.0, 4.0, 4.0), (1.0, 2.0, 3.0, 4.0)))
OF_SEVEN = replace(BOX, class_id=7)


@pytest.mark.parametrize(
    ("former", "report", "both"),
    [
        ((None, None), ((3,), ()), ((3,), ())),
        (((3,), (BOX,)), ((4,), ()), ((4,), (BOX,))),  # a label alone loses no box
        (((3,), (BOX,)), ((), (OTHER,)), ((3,), (OTHER,))),  # nor a box alone a label
        (((3,), (BOX,)), ((4,), (OTHER,)), ((4,), (OTHER,))),
        (((), (BOX,)), ((4, 5), ()), ((4, 5), (BOX,))),
        (((7,), (OF_SEVEN,)), ((6, 7), ()), ((6, 7), (OF_SEVEN,))),
        (((3,), ()), ((), (OF_SEVEN,)), "objects"),
        (((7,), (OF_SEVEN,)), ((3,), ()), "class_ids"),
    ],
)
def test_what_a_report_says_nothing_of_can_stay(store, make_sample, former, report, both):
    record = make_sample()
    store.add_sample(record)
    before = None
    if former != (None, None):
        before = GroundTruth(*former, 1.0)
        store.put_truth(record.key, before, keep_unmentioned=True)
    truth = GroundTruth(*report, 2.0)
    if isinstance(both, str):
        with pytest.raises(InvalidRequestError, match="of class 7, and the picture of 3 alone") as caught:
            store.put_truth(record.key, truth, keep_unmentioned=True)
        assert caught.value.field == both
        assert store.truth(record.key) == before
        return
    store.put_truth(record.key, truth, keep_unmentioned=True)
    assert store.truth(record.key) == GroundTruth(*both, 2.0)
    assert store.put_truth(record.key, replace(truth, time=3.0), keep_unmentioned=True) is Reported.REPEATED
    store.put_truth(record.key, replace(truth, time=4.0))  # otherwise it replaces the former one whole
    assert store.truth(record.key) == replace(truth, time=2.0 if both == report else 4.0)


def test_a_truth_is_applied_only_if_it_is_still_there(store, make_sample):
    one, other = make_sample(), make_sample()
    for record, time in ((one, 2.0 + THIRD), (other, 1.0)):
        store.add_sample(record)
        store.put_truth(record.key, replace(TRUTH, time=time))
    assert store.unapplied_truths("m") == [other.key, one.key]
    store.put_truth(other.key, GroundTruth((1,), (), 3.0))
    store.mark_applied(other.key, 1.0)
    assert store.unapplied_truths("m") == [one.key, other.key]
    store.mark_applied(one.key, 2.0 + THIRD)
    assert store.unapplied_truths("m") == [other.key]


def test_only_samples_take_truths(store, make_sample):
    store.add_sample(make_sample(key=SampleKey("there", 0)))
    for key in (SampleKey("there", 1), SampleKey("elsewhere", 0)):
        with pytest.raises(NotFoundError, match=r"no sample.*PredictResponse\.sampled") as caught:
            store.put_truth(key, TRUTH)
        assert (caught.value.code, caught.value.reason, caught.value.field) == ("NOT_FOUND", "NOT_FOUND", "request_id")
        assert store.truth(key) is None


def test_what_is_said_of_a_sample_that_is_gone_is_dropped(store, make_map, make_score):
    key = SampleKey("gone", 0)
    store.set_state(key, SampleState.SCORED)
    store.set_ood(key, (0.5, 1.0))
    store.add_map(key, make_map(), [make_score()])
    store.put_scores(key, [make_score()])
    store.remove_scores(key, ["robustness"])
    store.mark_applied(key, 1.0)
    assert (store.sample(key), store.maps(key), store.scores(key), store.truth(key)) == (None, [], [], None)
    assert len(store.states()) == 0


def test_the_classes_of_truths(store, make_sample, monkeypatch):
    monkeypatch.setattr(truths, "_AT_A_TIME", 50)  # fewer than there are
    records = [make_sample(positives=(number, number + 1)) for number in range(110)]
    other = make_sample(model_version="other")
    for record in (*records[:3], other, *records[3:]):
        store.add_sample(record)
    for number, record in enumerate(records):
        if number % 2:
            class_ids = () if number == 1 else (5, number + 10)
            store.put_truth(record.key, GroundTruth(class_ids, (TruthObject(MaskAnnotation(b"x")),), 1.0))
    store.put_truth(other.key, TRUTH)
    expected = [
        (record.key, record.positives, () if number == 1 else (5, number + 10), 1.0)
        for number, record in enumerate(records)
        if number % 2
    ]
    assert [tuple(each) for each in store.truths("m")] == expected
    assert [tuple(each) for each in store.truths("other")] == [(other.key, (3,), (0, 7, 999), 1.0)]
    assert list(store.truths("none")) == []


def test_recent_scores(store, make_sample, make_score):
    times = {"e": 5.0, "a": 1.0, "c": 3.0, "d": 4.0, "b": 2.0, "none": 9.0, "failed": 8.0}
    for name, time in times.items():
        store.add_sample(make_sample(time, SampleKey(name, 0)))
        if name not in ("none", "failed"):
            store.put_scores(SampleKey(name, 0), [make_score(value=time / 10), make_score("rise", "a", value=0.0)])
    store.put_scores(SampleKey("failed", 0), [make_score(metric="a", value=None, status=None)])
    store.put_scores(SampleKey("d", 0), [make_score(metric="x", value=None, status=ScoreStatus.MAP_ZERO)])
    other = make_sample(10.0, model_version="other")
    store.add_sample(other)
    store.put_scores(other.key, [make_score()])

    def recent(since, limit):
        return [(key.request_id, time, score) for key, time, _, score in store.recent_scores("m", since, limit)]

    def expected(*names):
        pairs = [(name, make_score(value=times[name] / 10), make_score("rise", "a", value=0.0)) for name in names]
        return [(name, times[name], score) for name, *both in pairs for score in both]

    assert recent(0.0, 100) == expected("a", "b", "c", "d", "e")
    assert recent(3.0, 100) == expected("c", "d", "e")
    assert recent(0.0, 2) == expected("d", "e")
    assert recent(0.0, 0) == []
    assert [key for key, *_ in store.recent_scores("other", 0.0, 9)] == [other.key]


def test_recent_scores_of_some_definitions(store, make_sample, make_score):
    """The newest of each of these, however many newer ones there are of others."""
    for time, definition in enumerate(("old", "old", "new", "newest", ""), start=1):
        store.add_sample(make_sample(float(time), SampleKey(str(time), 0)))
        store.put_scores(SampleKey(str(time), 0), [replace(make_score(), definition=definition)])

    def recent(*definitions):
        return [(key.request_id, score.definition) for key, *_, score in store.recent_scores("m", 0.0, 1, definitions)]

    assert recent("old") == [("2", "old")]
    assert recent("old", "new") == [("3", "new")]
    assert recent("none") == recent() == []
    assert [score.definition for *_, score in store.recent_scores("m", 0.0, 9)] == ["old", "old", "new", "newest", ""]


def test_recent_ood(store, make_sample):
    for name, time in {"c": 3.0, "a": 1.0, "b": 2.0}.items():
        store.add_sample(make_sample(time, SampleKey(name, 0), ood=(time / 10, time)))
    store.add_sample(make_sample(4.0))
    store.add_sample(make_sample(5.0, model_version="other", ood=(0.5, 0.5)))
    store.set_ood(SampleKey("b", 0), (0.75, 8.0))
    everything = [("a", 1.0, 1.0, (0.1, 1.0)), ("b", 2.0, 1.0, (0.75, 8.0)), ("c", 3.0, 1.0, (3.0 / 10, 3.0))]
    for since, limit, expected in [(0.0, 9, everything), (2.0, 9, everything[1:]), (0.0, 2, everything[1:])]:
        assert [(key.request_id, *rest) for key, *rest in store.recent_ood("m", since, limit)] == expected


def test_what_samples_weigh_comes_with_what_is_read_of_them(store, make_sample, make_score):
    record = make_sample(1.0, ood=(0.5, 4.0), inclusion=0.125, weight=0.75)
    store.add_sample(record)
    store.put_scores(record.key, [make_score()])
    store.put_truth(record.key, GroundTruth((1,), (), 2.0))
    found = store.sample(record.key)
    assert (found.inclusion, found.weight) == (0.125, 0.75)
    assert [weight for _, _, weight, _ in store.recent_scores("m", 0.0, 9)] == [0.75]
    assert [weight for _, _, weight, _ in store.recent_ood("m", 0.0, 9)] == [0.75]
    assert [each.weight for each in store.truths("m")] == [0.75]


def test_pending_samples_come_with_their_pictures(store, open_store, url, make_sample):
    late, early, bare = make_sample(3.0), make_sample(1.0), make_sample(2.0)
    pictures = {
        late.key: KeptPicture(odd(3, 5, 6), odd(1000), odd(1000)),
        early.key: KeptPicture(odd(1, 2, 2), odd(2), odd(2)),
    }
    for record in (late, early, bare):
        store.add_sample(record, pictures.get(record.key))
    store.add_sample(make_sample(state=SampleState.DROPPED))
    store.close()
    again = open_store(url)
    waiting = list(again.pending())
    assert [plain(record) for record, _ in waiting] == [plain(early), plain(bare), plain(late)]
    assert [plain(kept) for _, kept in waiting] == [plain(pictures.get(each.key)) for each in (early, bare, late)]


def test_pending_leaves_out_what_was_done_meanwhile(store, make_sample):
    records = [make_sample(float(number)) for number in range(4)]
    for record in records:
        store.add_sample(record)
    waiting = store.pending()
    assert next(waiting)[0].key == records[0].key
    store.set_state(records[1].key, SampleState.SCORED)
    store.add_sample(make_sample(9.0))
    assert [record.key for record, _ in waiting] == [records[2].key, records[3].key]


def test_a_picture_goes_when_its_sample_is_done(store, make_sample):
    record = make_sample()
    store.add_sample(record, KeptPicture(odd(3, 64, 64), odd(10), odd(10)))
    store.set_state(record.key, SampleState.PENDING)
    assert next(store.pending())[1] is not None
    store.set_state(record.key, SampleState.SCORED)
    store.set_state(record.key, SampleState.PENDING)
    assert next(store.pending())[1] is None


def test_memory_is_a_store_too(open_store, make_sample, make_map, make_score):
    record, store = make_sample(), open_store("sqlite:///:memory:")
    store.add_sample(record)
    store.add_map(record.key, make_map(), [make_score()])
    for waiting, _ in store.pending():
        store.put_truth(waiting.key, TRUTH)
    assert store.truth(record.key) == TRUTH
    assert store.scores(record.key) == [make_score()]
    assert len(store.prune(0.0)) == 0
    assert len(open_store("sqlite://").states()) == 0
