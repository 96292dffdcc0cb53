"""The evaluator's thread on a real engine and a real store."""

import itertools
import math
import runpy
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.threads import MOST_STUCK
from xai_sidecar.engine.work import Kind, drive, forward
from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.agenda import MOST_MASKED
from xai_sidecar.evaluator.evaluator import Evaluator
from xai_sidecar.evaluator.live_quality import State
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    GroundTruth,
    PolygonAnnotation,
    SampleState,
    Served,
    TruthObject,
)
from xai_sidecar.evaluator.store import Reported, Store
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.explainers.gradient import Gradient
from xai_sidecar.metrics.robustness import Robustness

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

DELETION, INSERTION, NAIVE = "faithfulness/deletion_auc", "faithfulness/insertion_auc", "faithfulness/naive"
POINTING, IOSR = "localization/pointing_game", "localization/iosr"
QUICK = [DELETION, NAIVE, IOSR]
COUNTING = {"vetoes": ["class_sensitivity", "robustness", NAIVE, DELETION]}
"""What counts for nothing would not be measured of every sample."""
EVENTS = ("sampled", "repeated", "dropped", "expired", "lost", "scored", "failed", "no_positive")


class Recorder:
    """Remembers what the engine tells."""

    def __init__(self):
        self.launches = []
        self.ends = []

    def batch_ran(self, record):
        self.launches.append(record)

    def ended(self, lane, outcome):
        self.ends.append((lane, outcome.value))


class Running(SimpleNamespace):
    """An evaluator with all around it."""

    def events(self):
        counts = {event: models.value_of(self.telemetry, "xai_samples_total", event=event) for event in EVENTS}
        return {event: count for event, count in counts.items() if count}

    def shown(self, name, **labels):
        return models.value_of(self.telemetry, f"xai_{name}", **labels)

    def offer(self, *samples):
        self.evaluator.ingest.offer(samples)

    def measured(self, count):
        """Waits until so many samples came to an end."""
        models.until(lambda: sum(self.events().get(event, 0) for event in ("scored", "failed")) >= count)

    def became(self, sample, state):
        """Waits until the store says so, which it does a moment after the metrics."""
        models.until(lambda: self.store.sample(sample.key).state is state)

    def report(self, key, *objects, class_ids=(), time=1.0):
        truth = GroundTruth(tuple(class_ids), tuple(objects), time)
        return self.evaluator.ingest.report(key, truth).result(10).reported

    def applied(self):
        models.until(lambda: not self.store.unapplied_truths(self.model.version))

    def scores(self, key, metric):
        """By explainer."""
        return {one.explainer: one.value for one in self.store.scores(key) if one.metric == metric}

    def outcomes(self, label):
        return tuple(self.shown("outcomes", **{"class": label}, outcome=each) or 0 for each in ("tp", "fp", "fn", "tn"))

    def close(self, timeout=5.0):
        self.net.gate.set()
        self.evaluator.close(timeout)
        self.engine.close(10)


@pytest.fixture
def make(tmp_path):
    """Makes evaluators, which are closed in the end; takes keys of the config. They have one store's file."""
    made = []

    def make(*names, net=None, model=None, clock=time.time, retention=1e12, hang_seconds=60.0, **settings):
        net = net or models.Net()
        model = model or models.make_model(*(names or ("gradient", "occlusion")))
        settings = models.config(**{"interval_seconds": 0.03, "metrics": QUICK, "auto": COUNTING, **settings})
        quality, telemetry = models.make_quality(model, settings, clock)
        recorder = Recorder()
        engine = Engine(lambda: net, observer=recorder, hang_seconds=hang_seconds)
        engine.start(lambda _: [Kind("forward")]).result(10)
        store = Store.open(f"sqlite:///{tmp_path}/store.db", max_bytes=1 << 30, retention_seconds=retention)
        evaluator = Evaluator(engine, store, model, settings, quality, telemetry, 10_000, clock)
        made.append(
            Running(
                net=net, model=model, settings=settings, quality=quality, telemetry=telemetry, recorder=recorder,
                engine=engine, store=store, evaluator=evaluator,
            )
        )  # fmt: skip
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def start(make):
    """As `make`, and starts them."""

    def start(*names, **options):
        made = make(*names, **options)
        made.evaluator.start()
        return made

    return start


@pytest.fixture
def pruned_often(monkeypatch):
    """Has what is to be pruned looked for in each round, even after one that a busy machine held up for long."""
    monkeypatch.setattr("xai_sidecar.evaluator.evaluator._PRUNING_SHARE", 1.0)


@pytest.fixture
def waiting(make):
    """Has a sample wait in the store, as a server leaves it that ends: the next one's first round is its turn."""

    def waiting(name, **fields):
        sample = now_sample(name, **fields)
        made = make(keep_pictures=True)
        made.offer(sample)
        made.close()
        return sample

    return waiting


def now_sample(name, **fields):
    return models.make_sample(name, **{"time": time.time(), **fields})


def by_hand(running, sample, explainer):
    """The measurement of a sample without engine and thread."""
    measurement, steps = Measurer(running.model, running.settings).begin(sample, explainer)
    drive(steps, in_batches(models.Net().run, 16))
    return measurement


# ------------------------------------------------------------------------------------------------ measuring


def test_what_is_offered_is_measured_and_kept(start):
    metrics = [DELETION, NAIVE, "class_sensitivity", "robustness"]
    # Of fewer masks some map would be unreliable, and without a score.
    running = start(model=models.make_model("gradient", "occlusion", "rise", masks=256), metrics=metrics)
    samples = [now_sample(f"r{number}", seed=number) for number in range(3)]
    for count, sample in enumerate(samples, start=1):  # of more at once, what waits for too long is left out
        running.offer(sample)
        running.measured(count)
    assert running.events() == {"sampled": 3, "scored": 3}
    values = {}
    for sample in samples:
        running.became(sample, SampleState.SCORED)
        maps = {one.explainer: one for one in running.store.maps(sample.key)}
        scores = {(one.explainer, one.metric): one.value for one in running.store.scores(sample.key)}
        assert list(maps) == ["gradient", "occlusion", "rise"]
        # Ten maps of them may not be worth their passes on every picture.
        seldom = {("occlusion", "robustness"), ("rise", "robustness")}
        assert set(scores) | seldom == set(itertools.product(maps, metrics))
        for name, found in maps.items():
            expected = by_hand(running, sample, name)
            np.testing.assert_array_equal(found.saliency, expected.map.saliency)
            assert (found.seed, found.pass_count, found.target) == (
                sample.key.seed, expected.map.pass_count, sample.target,
            )  # fmt: skip
            for score in expected.scores:
                if (name, score.metric) not in scores:
                    continue
                assert scores[name, score.metric] == score.value
                values.setdefault((name, score.metric), []).append(score.value)
    models.until(lambda: running.quality.state is State.UP_TO_DATE)
    for (name, metric), found in values.items():
        of = {"explainer": name, "metric": metric}
        assert running.shown("quality_score", **of) == pytest.approx(np.mean(found), rel=1e-12)
        if len(found) > 1:
            error = np.std(found, ddof=1) / math.sqrt(len(found))
            assert running.shown("quality_score_standard_error", **of) == pytest.approx(error, rel=1e-9)
        done = running.shown("evaluations_total", **of, result="done")
        assert running.shown("quality_samples", **of) == done == len(found)
    assert running.shown("evaluation_passes_total", explainer="rise", metric="explain") == 3 * 256
    robust = len(values.get(("rise", "robustness"), ()))
    assert (running.shown("evaluation_passes_total", explainer="rise", metric="robustness") or 0) == robust * 11 * 256
    assert running.shown("evaluator_pending_samples") == running.shown("evaluator_pending_bytes") == 0
    assert running.shown("evaluator_interval_seconds") == 0.03
    assert abs(running.shown("evaluator_last_round_timestamp_seconds") - time.time()) < 5
    assert running.shown("store_bytes") > 0


def test_it_keeps_to_its_lane(start):
    running = start("gradient", "occlusion")
    running.offer(*(now_sample(f"r{number}") for number in range(3)))
    running.measured(3)
    # Of each sample what all maps need, and of each explainer the map, its first score, and the other.
    models.until(lambda: len(running.recorder.ends) == 3 * (1 + 2 * 3))
    assert set(running.recorder.ends) == {(Lane.EVALUATE, "done")}
    assert {record.lane for record in running.recorder.launches} == {Lane.EVALUATE}


def test_predictions_go_first(start):
    running = start("occlusion")
    running.net.gate.clear()
    running.offer(now_sample("a"))
    assert running.net.entered.acquire(timeout=10)
    predicted = running.engine.submit(forward(now_sample("b").image[np.newaxis]), Lane.PREDICT)
    before = len(running.net.launches)
    running.net.gate.set()
    predicted.result(10)
    names = [name for name, _ in running.net.launches[before:]]
    assert "forward" in names[:2]


def test_batches_are_filled_and_no_more_is_begun(start):
    """Masked passes are asked for by eight at a time: of each sample a map, and what all of its maps need."""
    running = start("occlusion")
    running.net.gate.clear()
    samples = [now_sample(f"r{number}", seed=number) for number in range(20)]
    running.offer(*samples)
    models.until(lambda: len(running.engine._open) == MOST_MASKED)
    models.until(lambda: running.evaluator.ingest.waiting.count == 20 - MOST_MASKED // 2)
    time.sleep(0.1)
    assert len(running.engine._open) == MOST_MASKED
    assert running.evaluator.ingest.waiting.count == 20 - MOST_MASKED // 2
    running.net.gate.set()
    running.measured(20)
    assert running.events() == {"sampled": 20, "scored": 20}


def test_the_oldest_goes_first(make):
    running = make("gradient")
    ages = {"young": 10, "oldest": 40, "old": 30, "newest": 0, "older": 20}
    running.offer(*(now_sample(name, time=time.time() - age) for name, age in ages.items()))
    models.until(lambda: running.evaluator.ingest.waiting.count == 5)
    order, begin = [], running.evaluator._progress.begin
    running.evaluator._progress.begin = lambda sample: order.append(sample.key.request_id) or begin(sample)
    running.evaluator.start()
    running.measured(5)
    assert order == sorted(ages, key=ages.get, reverse=True)


def test_nothing_is_measured_before_the_next_round(make):
    running = make("gradient", interval_seconds=0.8)
    began = time.monotonic()
    running.evaluator.start()
    models.until(lambda: running.shown("evaluator_last_round_timestamp_seconds") > 0)
    running.offer(now_sample("a"), now_sample("b"), now_sample("c"))
    running.measured(3)
    assert 0.75 < time.monotonic() - began < 3
    assert running.net.launches


def test_samples_that_wait_for_the_next_round_are_told_of(make):
    """The contract's WORKING: samples are being measured, or wait for it."""
    running = make("gradient", interval_seconds=3600)
    running.evaluator.start()
    models.until(lambda: running.shown("evaluator_last_round_timestamp_seconds") > 0)
    time.sleep(0.05)
    sample = now_sample("a")
    running.offer(sample)
    models.until(lambda: running.evaluator.ingest.waiting.count == 1)
    models.until(lambda: running.quality.state is State.WORKING, 3)
    models.until(lambda: running.shown("evaluator_pending_samples") == 1, 3)
    assert running.shown("evaluator_pending_bytes") == sample.byte_count
    assert running.shown("evaluator_state", state="working") == 1


def test_what_waited_too_long_is_not_measured(start):
    running = start("gradient", max_age_seconds=60)
    running.offer(now_sample("old", time=time.time() - 61), now_sample("new"))
    running.measured(1)
    models.until(lambda: running.events() == {"sampled": 2, "expired": 1, "scored": 1})
    running.became(models.make_sample("old"), SampleState.EXPIRED)


def test_what_is_not_scored_is_told_with_what_helps(start):
    with capture_logs() as logs:
        running = start("gradient", max_age_seconds=60)
        running.offer(now_sample("old", time=time.time() - 61), now_sample("new"))
        models.until(lambda: "1 expired before" in running.quality.summary().note)
        running.offer(now_sample("older", time=time.time() - 61))
        models.until(lambda: "2 expired before" in running.quality.summary().note)
    assert "1 expired" not in running.quality.summary().note
    assert "lower evaluator.sample_rate" in running.quality.summary().note
    assert [entry["event"] for entry in logs].count("samples_not_scored") == 1


def test_what_is_too_costly_is_told(start):
    running = start("gradient", "occlusion", max_passes=24, protocol="mindspore_xai", metrics=[DELETION, "robustness"])
    running.offer(now_sample("a"))
    running.measured(1)
    assert [one.explainer for one in running.store.maps(now_sample("a").key)] == ["gradient"]
    assert "Not measured, for evaluator.max_passes: occlusion (25 passes)." in running.quality.summary().note


# ------------------------------------------------------------------------------------------------ failing


def test_one_that_fails_does_not_stop_the_others(start):
    net = models.Net()
    net.broken.add("input_gradient")
    running = start("gradient", "occlusion", net=net)
    sample = now_sample("a")
    running.offer(sample)
    running.measured(1)
    assert running.events() == {"sampled": 1, "scored": 1}
    assert [one.explainer for one in running.store.maps(sample.key)] == ["occlusion"]
    assert set(running.scores(sample.key, DELETION)) == {"occlusion"}
    for metric in ("explain", DELETION, NAIVE):
        of = {"explainer": "gradient", "metric": metric}
        assert running.shown("evaluation_failures_total", **of, reason="error") == 1
        assert running.shown("evaluations_total", **of, result="failed") == 1
    assert running.shown("evaluations_total", explainer="occlusion", metric=DELETION, result="failed") == 0


def test_one_sample_that_fails_does_not_stop_the_others(start):
    net = models.Net()
    net.poison = np.float32(77)
    running = start("occlusion", net=net)
    bad = now_sample("bad")
    bad.image[0, 0, 0] = 77
    running.offer(bad, now_sample("good"))
    running.measured(2)
    assert running.events() == {"sampled": 2, "scored": 1, "failed": 1}
    running.became(bad, SampleState.FAILED)
    assert running.store.maps(bad.key) == []


def test_a_picture_without_a_positive_class_is_not_scored(start):
    """A map of a class that is not there; the truth, and how unlike it is, count all the same."""
    running = start(model=models.make_model("occlusion", one_class=False, has_ood=True))
    blank = now_sample("blank", logits=np.array([-3, -0.5, -2], np.float32), activation=sigmoid)
    served = Served(np.ones((models.HEIGHT, models.WIDTH), np.float32), MapStatus.OK, 1, 64)
    asked = now_sample("asked", logits=blank.logits, activation=sigmoid, served={"occlusion": served})
    assert blank.positives == asked.positives == ()
    running.offer(blank, asked, now_sample("other", activation=sigmoid, positives=(1,)))
    models.until(lambda: running.events() == {"sampled": 3, "no_positive": 2, "scored": 1})
    running.became(blank, SampleState.NO_POSITIVE)
    for sample in (blank, asked):
        assert running.store.maps(sample.key) == running.store.scores(sample.key) == []
        assert running.store.sample(sample.key).ood is not None
    running.report(blank.key, class_ids=[2])
    running.applied()


def test_a_metric_that_hangs(start, monkeypatch):
    """Its measurements fail, the others go on, and when too many hang measuring ends and says so."""
    woken, entered = threading.Event(), []

    def hangs(self, *arguments):
        entered.append(threading.current_thread())
        woken.wait(30)
        yield from ()

    monkeypatch.setattr(Robustness, "_measure", hangs)
    one = start("gradient", metrics=[DELETION, "robustness"], hang_seconds=0.2)
    try:
        first = now_sample("first")
        one.offer(first)
        one.measured(1)
        one.became(first, SampleState.SCORED)
        assert one.scores(first.key, DELETION).keys() == {"gradient"}
        assert one.shown("evaluation_failures_total", explainer="gradient", metric="robustness", reason="error") == 1
        one.offer(*(now_sample(f"later {number}") for number in range(6)))
        models.until(lambda: "Nothing is measured any more" in one.quality.summary().note)
        assert len({*entered}) == MOST_STUCK + 1
        assert one.engine.submit(forward(first.image[None]), Lane.PREDICT).result(10)
    finally:
        woken.set()
    models.until(lambda: "Nothing is measured any more" not in one.quality.summary().note)


def test_what_there_was_before_a_failure_is_kept(start):
    """Occlusion of the picture itself works, and so do deletion and naive; the noise of robustness does not."""
    net, run = models.Net(), models.Net().run
    seen = []

    def failing(kind, rows):
        seen.append(kind.name)
        return run(kind, rows)

    net.run = failing
    running = start("gradient", net=net, metrics=[NAIVE, DELETION, "class_sensitivity"])
    sample = now_sample("a")
    known = {(one.metric, one.value) for one in by_hand(running, sample, "gradient").scores}
    gradients = iter([True, False])

    def late(kind, rows):
        if kind.name == "input_gradient" and not next(gradients):
            raise RuntimeError("later")
        return run(kind, rows)

    net.run = late
    running.offer(sample)
    running.measured(1)
    assert running.events() == {"sampled": 1, "scored": 1}
    found = {(one.metric, one.value) for one in running.store.scores(sample.key)}
    assert {metric for metric, _ in found} == {NAIVE, DELETION}
    assert found < known
    of = {"explainer": "gradient", "metric": "class_sensitivity"}
    assert running.shown("evaluation_failures_total", **of, reason="error") == 1


def test_the_store_fails_for_a_while(start):
    running = start("gradient")
    names = ("add_map", "set_state", "unapplied_truths", "prune", "byte_count")
    whole = {name: getattr(running.store, name) for name in names}

    def failing(*_, **__):
        raise StoreError("The disk is full.")

    with capture_logs() as logs:
        for name in names:
            setattr(running.store, name, failing)
        running.offer(now_sample("a"))
        running.measured(1)
        models.until(lambda: running.shown("store_failures_total") >= 6)
        for name, method in whole.items():
            setattr(running.store, name, method)
        running.offer(now_sample("b", seed=1))
        running.measured(2)
    assert {entry["event"] for entry in logs} == {"store_failed"}
    assert running.events() == {"sampled": 2, "scored": 2}
    assert running.store.maps(now_sample("a").key) == []
    assert len(running.store.maps(now_sample("b").key)) == 1
    assert running.quality.statistics("gradient", DELETION).count == 2
    failures = running.shown("store_failures_total")
    time.sleep(0.1)
    assert running.shown("store_failures_total") == failures


def test_a_lost_device(start):
    net = models.Net()
    running = start("gradient", net=net)

    def dead(kind, rows):
        raise SystemExit("lost")

    net.run = dead
    running.offer(now_sample("a"))
    running.evaluator._thread.join(10)
    assert not running.evaluator._thread.is_alive()
    assert running.events() == {"sampled": 1}, "it may be measured by the next server"
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 2


# ------------------------------------------------------------------------------------------------ closing


def test_closing_gives_up_what_is_measured(start):
    running = start("gradient", "occlusion", keep_pictures=True)
    running.net.gate.clear()
    samples = [now_sample(f"r{number}", seed=number) for number in range(4)]
    running.offer(*samples)
    models.until(lambda: len(running.engine._open) >= 4)
    began = time.monotonic()
    running.evaluator.close()
    assert time.monotonic() - began < 2
    assert not running.evaluator._thread.is_alive()
    assert not running.engine._open
    with pytest.raises(StoreError):
        running.store.sample(samples[0].key)
    running.close()
    again = start("gradient", "occlusion", keep_pictures=True)
    again.measured(4)
    assert again.events() == {"scored": 4}
    for sample in samples:
        for found in again.store.maps(sample.key):
            np.testing.assert_array_equal(found.saliency, by_hand(again, sample, found.explainer).map.saliency)
    assert again.quality.statistics("occlusion", DELETION).count == 4


def test_closing_at_any_time(start):
    """Whatever was under way: what is stored is whole, and what is not can be made up for."""
    samples = [now_sample(f"r{number}", seed=number) for number in range(12)]
    first = start("occlusion", keep_pictures=True)
    first.offer(*samples)
    first.measured(2)
    first.close()
    second = start("occlusion", keep_pictures=True)
    models.until(lambda: {second.store.sample(one.key).state for one in samples} == {SampleState.SCORED})
    assert first.events()["scored"] + second.events().get("scored", 0) == 12
    for sample in samples:
        assert second.scores(sample.key, DELETION) == {
            "occlusion": next(
                one.value for one in by_hand(second, sample, "occlusion").scores if one.metric == DELETION
            )
        }
    models.until(lambda: second.quality.statistics("occlusion", DELETION).count == 12)


def test_it_is_closed_before_it_is_started(make):
    running = make()
    running.offer(now_sample("a"))
    running.evaluator.close()
    assert running.events() == {"sampled": 1}


class Meddling(threading.Event):
    """An event at which something happens just after somebody has looked at it, once."""

    def __init__(self):
        super().__init__()
        self.then = None

    def is_set(self):
        answer = super().is_set()
        if self.then is not None and not answer:
            then, self.then = self.then, None
            then()
        return answer


def test_no_call_to_wake_up_is_missed_when_it_closes(make):
    running = make("gradient", interval_seconds=3600)
    running.evaluator._woken = woken = Meddling()
    woken.then = lambda: (running.evaluator._stopped.set(), woken.set())
    running.evaluator.start()
    running.evaluator._thread.join(2)
    alive = running.evaluator._thread.is_alive()
    woken.set()
    assert not alive


def test_no_call_to_wake_up_is_missed_when_truth_comes(make, waiting):
    """Between two rounds, when it looks after a job that is done."""
    sample = waiting("a")
    running = make("gradient", interval_seconds=3600, keep_pictures=True)
    running.evaluator._woken = woken = Meddling()
    running.evaluator.ingest._on_report = woken.set
    running.net.gate.clear()
    running.evaluator.start()
    models.until(lambda: running.engine._open)
    reported = []
    woken.then = lambda: reported.append(running.report(sample.key, class_ids=[0]))
    running.net.gate.set()
    models.until(lambda: reported)
    models.until(lambda: not running.store.unapplied_truths(running.model.version), 3)


# ------------------------------------------------------------------------------------------------ ground truth


def left_half(class_id=None):
    """Columns 0 to 3 of the model input of 6 x 8, on a picture of twice its size."""
    return TruthObject(BoxAnnotation(0, 0, 8, 12), class_id)


def right_half(class_id=None):
    return TruthObject(PolygonAnnotation(((8, 0), (16, 0), (16, 12), (8, 12))), class_id)


def iosr(saliency, columns):
    """The part of what is above half of the largest value that lies in some columns."""
    salient = saliency > 0.5 * saliency.max()
    return salient[:, columns].sum() / salient.sum()


LEFT, RIGHT = slice(0, 4), slice(4, 8)


def expected_iosr(running, sample, columns):
    return {one.explainer: pytest.approx(iosr(one.saliency, columns)) for one in running.store.maps(sample.key)}


def located(running, sample):
    return running.scores(sample.key, IOSR)


@pytest.mark.parametrize("early", [True, False])
def test_truth_before_and_after_measuring(start, early):
    running = start("gradient", "occlusion", interval_seconds=0.5 if early else 0.03)
    models.until(lambda: running.shown("evaluator_last_round_timestamp_seconds") > 0)
    sample = now_sample("a")
    running.offer(sample)
    if early:
        assert running.report(sample.key, left_half(), class_ids=[sample.target]) is Reported.NEW
        assert running.store.maps(sample.key) == []
    running.measured(1)
    if not early:
        assert located(running, sample) == {}
        assert running.report(sample.key, left_half(), class_ids=[sample.target]) is Reported.NEW
    running.applied()
    found = located(running, sample)
    assert found == expected_iosr(running, sample, LEFT)
    assert set(found) == {"gradient", "occlusion"}
    for name, value in found.items():
        estimate = running.quality.statistics(name, IOSR)
        assert (estimate.mean, estimate.count) == (value, 1)
        assert running.quality.statistics(name, IOSR, sample.target).count == 1
    label = running.model.labels[sample.target]
    assert running.outcomes(label) == (1, 0, 0, 0)
    assert running.shown("evaluations_total", explainer="occlusion", metric=IOSR, result="done") == 1


def test_truth_comes_while_it_is_measured(start):
    running = start("gradient", "occlusion")
    running.net.gate.clear()
    sample = now_sample("a")
    running.offer(sample)
    models.until(lambda: len(running.engine._open) >= 2)
    running.report(sample.key, left_half())
    running.applied()
    assert located(running, sample) == {}
    running.net.gate.set()
    running.measured(1)
    assert located(running, sample) == expected_iosr(running, sample, LEFT) != {}
    assert {name: running.quality.statistics(name, IOSR).count for name in ("gradient", "occlusion")} == {
        "gradient": 1, "occlusion": 1,
    }  # fmt: skip


def test_truth_is_applied_between_rounds(make):
    running = make("gradient", interval_seconds=3600)
    sample = now_sample("a")
    running.offer(sample)
    running.evaluator.start()
    running.measured(1)
    running.report(sample.key, left_half())
    running.applied()
    assert running.quality.statistics("gradient", IOSR).count == 1


def test_truth_counts_within_a_second_while_a_sample_is_measured(start, allowance):
    """Whatever the device does: a batch that takes its time holds up no ground truth."""
    running = start("gradient", "occlusion")
    first = now_sample("a")
    running.offer(first)
    running.measured(1)
    running.net.gate.clear()
    running.offer(now_sample("b", seed=1))
    assert running.net.entered.acquire(timeout=10)
    models.until(lambda: running.engine._open)
    began = time.monotonic()
    running.report(first.key, left_half(), class_ids=[first.target])
    models.until(lambda: running.quality.statistics("occlusion", IOSR) is not None)
    assert running.outcomes(running.model.labels[first.target]) == (1, 0, 0, 0)
    assert time.monotonic() - began < allowance(1.0)


def test_the_last_report_counts(start):
    running = start("gradient", "occlusion")
    sample = now_sample("a")
    other = (sample.target + 1) % 3
    running.offer(sample)
    running.measured(1)
    running.report(sample.key, left_half(), class_ids=[sample.target], time=1.0)
    running.applied()
    labels = [running.model.labels[number] for number in (sample.target, other)]
    assert running.report(sample.key, right_half(), class_ids=[sample.target], time=2.0) is Reported.REPLACED
    running.applied()
    assert located(running, sample) == expected_iosr(running, sample, RIGHT)
    assert located(running, sample) != expected_iosr(running, sample, LEFT)
    for name, value in located(running, sample).items():
        estimate = running.quality.statistics(name, IOSR)
        assert (estimate.mean, estimate.count) == (value, 1)
    # What is told of another class says nothing of where the target is.
    assert running.report(sample.key, left_half(), class_ids=[other], time=3.0) is Reported.REPLACED
    running.applied()
    assert located(running, sample) == {}
    assert running.quality.statistics("gradient", IOSR) is None
    assert [running.outcomes(label) for label in labels] == [(0, 1, 0, 0), (0, 0, 1, 0)]
    assert running.quality.statistics("gradient", DELETION).count == 1
    assert running.report(sample.key, left_half(), class_ids=[other], time=4.0) is Reported.REPEATED
    running.report(sample.key, class_ids=[sample.target], time=5.0)
    running.applied()
    assert [running.outcomes(label) for label in labels] == [(1, 0, 0, 0), (0, 0, 0, 1)]
    assert running.shown("ground_truth_reports_total", result="replaced") == 3


def test_objects_that_are_not_reported_any_more(start):
    running = start("occlusion")
    sample = now_sample("a")
    running.offer(sample)
    running.measured(1)
    running.report(sample.key, left_half(), class_ids=[sample.target], time=1.0)
    running.applied()
    assert located(running, sample)
    running.report(sample.key, class_ids=[sample.target], time=2.0)
    running.applied()
    assert located(running, sample) == {}
    assert running.quality.statistics("occlusion", IOSR) is None
    assert set(running.scores(sample.key, DELETION)) == {"occlusion"}
    assert running.shown("quality_samples", explainer="occlusion", metric=IOSR) == 0


def test_only_objects_of_the_class_count(start):
    running = start("gradient")
    sample = now_sample("a")
    target, other = sample.target, (sample.target + 1) % 3
    running.offer(sample)
    running.measured(1)
    for number, (objects, columns) in enumerate(
        [
            ([left_half(target), right_half(other)], LEFT),
            ([left_half(other), right_half(target)], RIGHT),
            ([left_half(other), right_half(None)], RIGHT),
            ([left_half(target), right_half(None)], slice(0, 8)),
        ]
    ):
        running.report(sample.key, *objects, class_ids=[target, other], time=1.0 + number)
        running.applied()
        assert located(running, sample) == expected_iosr(running, sample, columns)
    running.report(sample.key, right_half(target), time=9.0)  # without any class reported
    running.applied()
    assert located(running, sample) == expected_iosr(running, sample, RIGHT)
    assert running.outcomes("cat") == running.outcomes("dog") == (0, 0, 0, 0)


def test_objects_outside_of_what_the_model_saw(start):
    running = start("gradient")
    frame = models.Frame(6, 8, (32, 12), models.Region(0, 0, 16, 12))
    sample = now_sample("a", frame=frame)
    running.offer(sample)
    running.measured(1)
    running.report(sample.key, TruthObject(BoxAnnotation(20, 0, 30, 12)))
    running.applied()
    assert located(running, sample) == {"gradient": None}
    assert running.quality.statistics("gradient", IOSR) is None
    of = {"explainer": "gradient", "metric": IOSR}
    assert running.shown("evaluation_failures_total", **of, reason="objects_outside") == 1


def test_maps_of_an_explainer_that_is_switched_off_since(start):
    first = start("gradient", "occlusion")
    sample = now_sample("a")
    first.offer(sample)
    first.measured(1)
    first.close()
    second = start("gradient")
    second.report(sample.key, left_half(), class_ids=[sample.target])
    models.until(lambda: not second.store.unapplied_truths(second.model.version), 3)
    second.offer(now_sample("b", seed=1))
    second.measured(1)  # truth of what is gone is in nobody's way
    assert located(second, sample)["gradient"] == expected_iosr(second, sample, LEFT)["gradient"]


# ------------------------------------------------------------------------------------------------ OoD


def test_ood_scores(start):
    running = start(model=models.make_model("gradient", has_ood=True))
    known, unknown = now_sample("known", ood=(0.25, 60.0)), now_sample("unknown", seed=1)
    running.offer(known, unknown)
    running.measured(2)
    assert running.store.sample(known.key).ood == (0.25, 60.0)
    score, percentile = running.store.sample(unknown.key).ood
    assert (score, percentile) == (pytest.approx(unknown.image.mean(), rel=1e-6), 2.5)
    assert sum(rows for name, rows in running.net.launches if name == "ood_score") == 1
    assert running.shown("ood_scored_total") == 2
    assert running.shown("ood_outlier_share") == 0.5
    assert running.events() == {"sampled": 2, "scored": 2}


def test_an_ood_net_that_fails(start):
    net = models.Net()
    net.broken.add("ood_score")
    running = start(net=net, model=models.make_model("gradient", has_ood=True))
    running.offer(now_sample("a"))
    running.measured(1)
    assert running.events() == {"sampled": 1, "scored": 1}
    assert running.store.sample(now_sample("a").key).ood is None
    assert running.shown("ood_scored_total") == 0


# ------------------------------------------------------------------------------------------------ restarts


def test_a_restart_changes_nothing(start):
    first = start(model=models.make_model("gradient", "occlusion", has_ood=True))
    samples = [now_sample(f"r{number}", seed=number) for number in range(4)]
    first.offer(*samples)
    first.measured(4)
    for sample in samples[:3]:
        first.report(sample.key, left_half(), class_ids=[0])
    first.applied()
    models.until(lambda: first.quality.state is State.UP_TO_DATE)
    names = ("quality_score", "quality_samples", "quality_class_score", "outcomes", "ood_outlier_share",
             "quality_composite", "quality_last_success_timestamp_seconds",
             "evaluator_last_sample_timestamp_seconds")  # fmt: skip

    def series(running):
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in running.telemetry.registry.collect()
            for sample in family.samples
            if sample.name.removeprefix("xai_") in names
        }

    before, summary = series(first), first.quality.summary()
    assert first.outcomes("cat")[0] + first.outcomes("cat")[2] == 3
    first.close()
    second = start(model=models.make_model("gradient", "occlusion", has_ood=True))
    after = series(second)
    assert after == {key: pytest.approx(value, nan_ok=True) for key, value in before.items()}
    told, expected = (
        [(row.explainer, row.metric, row.statistics.count, row.statistics.updated, row.goodness) for row in table.rows]
        for table in (second.quality.summary().table, summary.table)
    )
    assert told == [(*row[:4], pytest.approx(row[4])) for row in expected]
    assert second.quality.summary().sample_count == 4
    assert second.events() == {}
    assert second.shown("ood_scored_total") == 0


def test_maps_that_must_not_be_believed_count_even_after_a_restart(start):
    """Callers got maps that were noise: the explainer is judged by those, too, not by its other maps alone."""
    served = {"occlusion": Served(np.ones((6, 8), np.float32), MapStatus.UNRELIABLE, 1, 25)}
    weights = {"auto": {"weights": {DELETION: 1.0}}}
    first = start("gradient", "occlusion", **weights)
    good, unsure = (
        [now_sample(f"{kind}{number}", seed=number, served=given) for number in range(20)]
        for kind, given in (("good", {}), ("unsure", served))
    )
    first.offer(*good, *unsure)
    first.measured(40)
    composite = first.quality.summary().composites
    assert first.shown("evaluation_failures_total", explainer="occlusion", metric="explain", reason="unreliable") == 20
    rows = {(row.explainer, row.metric): row for row in first.quality.summary().table.rows}
    deletion = rows["occlusion", DELETION]
    assert deletion.statistics.count == 20
    assert composite["occlusion"] == pytest.approx(deletion.goodness / 2)
    assert composite["gradient"] == pytest.approx(rows["gradient", DELETION].goodness)
    first.close()
    assert start("gradient", "occlusion", **weights).quality.summary().composites == pytest.approx(composite)


def test_another_model_begins_anew(start):
    first = start("gradient")
    sample = now_sample("a")
    first.offer(sample)
    first.measured(1)
    first.report(sample.key, left_half(), class_ids=[0])
    first.applied()
    first.close()
    second = start(model=models.make_model("gradient", version="other"))
    assert second.quality.statistics("gradient", DELETION) is None
    assert second.outcomes("cat") == (0, 0, 0, 0)
    # Truth that comes late for a sample of the former model is kept, and changes nothing here.
    assert second.report(sample.key, right_half(), class_ids=[1], time=2.0) is Reported.REPLACED
    second.applied()
    assert second.outcomes("dog") == (0, 0, 0, 0)
    assert second.quality.statistics("gradient", IOSR) is None
    second.close()
    third = start("gradient")
    assert third.quality.statistics("gradient", DELETION).count == 1
    assert third.outcomes("dog")[2] + third.outcomes("dog")[0] == 1


def test_an_explainer_that_computes_something_else_begins_anew_alone(start, monkeypatch):
    """The scores of the others stay, and so does ground truth; its old maps are compared with nothing."""
    first = start("gradient", "occlusion")
    sample = now_sample("a")
    first.offer(sample)
    first.measured(1)
    first.report(sample.key, left_half(), class_ids=[sample.target])
    first.applied()
    first.close()
    monkeypatch.setattr(Gradient, "version", Gradient.version + 1)
    second = start("gradient", "occlusion")
    label = second.model.labels[sample.target]
    assert second.outcomes(label) == (1, 0, 0, 0)
    assert second.quality.statistics("gradient", DELETION) is None
    assert second.quality.statistics("gradient", IOSR) is None
    assert second.quality.statistics("occlusion", DELETION).count == 1
    assert second.quality.statistics("occlusion", IOSR).count == 1
    second.report(sample.key, right_half(), class_ids=[sample.target], time=2e9)
    second.applied()
    assert second.quality.statistics("gradient", IOSR) is None
    assert second.quality.statistics("occlusion", IOSR).count == 1
    second.close()
    monkeypatch.undo()
    third = start("gradient", "occlusion")
    assert third.quality.statistics("gradient", DELETION).count == 1


def test_truth_that_was_not_applied_when_the_server_ended(start, waiting):
    sample = waiting("a")
    first = start("gradient", interval_seconds=3600, keep_pictures=True)
    first.measured(1)
    first.store.unapplied_truths = list  # it ends before it gets to it
    first.report(sample.key, left_half(), class_ids=[sample.target])
    first.close()
    second = start("gradient")
    second.applied()
    assert located(second, sample) == expected_iosr(second, sample, LEFT)
    assert second.quality.statistics("gradient", IOSR).count == 1
    assert second.outcomes(second.model.labels[sample.target]) == (1, 0, 0, 0)


@pytest.mark.usefixtures("pruned_often")
def test_samples_that_the_store_has_removed(start):
    clock = models.Clock(time.time())
    running = start("gradient", clock=clock, retention=100, max_age_seconds=1e5)
    old, new = now_sample("old", time=clock.now - 90), now_sample("new", seed=1, time=clock.now)
    running.offer(old, new)
    running.report(old.key, class_ids=[0])
    running.report(new.key, class_ids=[0])
    running.measured(2)
    running.applied()
    assert sum(running.outcomes("cat")) == 2
    clock.now += 20
    models.until(lambda: len(running.store.states()) == 1)  # a hundred times what looking last took
    models.until(lambda: sum(running.outcomes("cat")) == 1)
    running.offer(now_sample("c", seed=2))
    running.measured(3)


@pytest.mark.usefixtures("pruned_often")
def test_a_sample_that_is_removed_while_it_is_measured(start):
    clock = models.Clock(time.time())
    running = start("gradient", clock=clock, retention=100)
    running.net.gate.clear()
    running.offer(now_sample("a", time=clock.now))
    models.until(lambda: running.engine._open)
    clock.now += 200
    models.until(lambda: len(running.store.states()) == 0)
    running.net.gate.set()
    running.measured(1)
    assert running.events() == {"sampled": 1, "scored": 1}
    assert running.shown("store_failures_total") == 0
    running.offer(now_sample("b", seed=1, time=clock.now))
    running.measured(2)
