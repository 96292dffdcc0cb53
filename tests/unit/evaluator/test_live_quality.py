"""Live quality: statistics, the quality table, states and notes, and the same on /metrics."""

import math
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.choice import Candidate, Reason
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.live_quality import State, shown_classes
from xai_sidecar.evaluator.records import SampleKey, ScoreRecord
from xai_sidecar.metrics.base import ScoreStatus

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

DELETION, NAIVE, SRG = "faithfulness/deletion_auc", "faithfulness/naive", "faithfulness/srg"
START = 1_700_000_000.0


def key(number):
    return SampleKey(f"request-{number}", 0)


def record(value, target=0, explainer="rise", metric=DELETION, time=START + 5):
    status = ScoreStatus.OK if value is not None else ScoreStatus.MAP_CONSTANT
    return ScoreRecord(explainer, metric, target, value, status, time, 0.1, 7)


@pytest.fixture
def clock():
    return models.Clock(START + 10)


@pytest.fixture
def make(clock):
    """Makes a `Quality` and its telemetry; takes keys of the config."""

    def make(model=None, **settings):
        return models.make_quality(model or models.make_model(), models.config(**settings), clock)

    return make


def shown(telemetry, name, **labels):
    return models.value_of(telemetry, f"xai_{name}", **labels)


# ------------------------------------------------------------------------------------------------ controls


def test_controls_are_shown_beside_the_explainers_and_have_to_be_beaten(make):
    """Of 12 pictures: RISE beats noise on each by 0.3 to 0.5, occlusion is as good as it."""
    model = replace(models.make_model(), controls=CONTROLS)
    quality, telemetry = make(model, metrics=[SRG], auto={"min_samples": 12})
    noise = "control/random"
    for number in range(12):
        quality.add_sample(key(number), START + number)
        for name in CONTROLS:
            quality.put_score(key(number), START + number, record(0.1 * (number % 3) - 0.1, 0, name, SRG))
        higher = 0.1 * (number % 3) + 0.2 + 0.2 * (number % 2)
        quality.put_score(key(number), START + number, record(higher, 0, "rise", SRG))
        quality.put_score(key(number), START + number, record(0.1 * (number % 2) - 0.1, 0, "occlusion", SRG))
    # Differences of 0.3 and 0.5 in turn: their deviation is 0.1 · √(12 / 11).
    found = quality.differences("rise", noise, SRG)
    assert (found.count, found.mean, found.standard_error) == (
        12,
        pytest.approx(0.4),
        pytest.approx(0.1 / math.sqrt(11)),
    )
    summary = quality.summary()
    assert summary.composites == {
        "gradient": None,
        "occlusion": pytest.approx(0.475),
        "rise": pytest.approx(0.7),
        **dict.fromkeys(CONTROLS, pytest.approx(0.5)),
    }
    assert {name: verdict.eligible for name, verdict in summary.verdicts.items()} == {"rise": True, "occlusion": False}
    assert summary.controls == {name: control.description for name, (control, _) in CONTROLS.items()}
    skills = {row.explainer: row.skill for row in summary.table.rows}
    assert skills["rise"].value == pytest.approx(0.4)  # 0.2 of goodness, where 0.5 were left
    assert skills[noise] is None
    both = [Candidate("rise", 1.0), Candidate("occlusion", 0.1)]
    choice = quality.choose(both, None, 0)
    assert (choice.explainer, choice.advantage.mean) == ("rise", pytest.approx(0.2))
    choice = quality.choose(both, 0.5, 0)
    assert choice.reason is Reason.FALLBACK
    assert choice.explanation.startswith("No explainer beats the controls: occlusion, the best, does not beat control/")
    of = {"explainer": "rise", "metric": SRG}
    assert shown(telemetry, "quality_skill", **of) == pytest.approx(0.4)
    assert shown(telemetry, "quality_skill_half_width", **of) == pytest.approx(2.201 * 0.1 / math.sqrt(11), rel=1e-3)
    for name, value in (("rise", 1), ("occlusion", 0), ("gradient", None), (noise, None)):
        assert shown(telemetry, "quality_beats_controls", explainer=name) == value
    assert shown(telemetry, "quality_composite", explainer=noise) == pytest.approx(0.5)
    assert shown(telemetry, "quality_score", explainer=noise, metric=SRG) == pytest.approx(0)


# ------------------------------------------------------------------------------------------------ scores


def test_scores_as_the_table_and_metrics_have_them(make):
    quality, telemetry = make(metrics=[NAIVE, DELETION])
    for number, (value, target) in enumerate([(0.1, 0), (0.3, 0), (0.8, 1)]):
        quality.put_score(key(number), START + number, record(value, target, time=START + 20 + number))
    quality.put_score(key(0), START, record(-0.5, metric=NAIVE))
    quality.put_score(key(1), START, record(None, metric=NAIVE))
    # Mean 0.4; deviations -0.3, -0.1, 0.4: variance 0.26 / 2, and of the mean a third of it.
    error = math.sqrt(0.26 / 2 / 3)
    estimate = quality.statistics("rise", DELETION)
    assert (estimate.mean, estimate.count, estimate.updated) == (pytest.approx(0.4), 3, START + 22)
    assert estimate.standard_error == pytest.approx(error)
    assert quality.statistics("rise", DELETION, 0).mean == pytest.approx(0.2)
    assert quality.statistics("rise", DELETION, 2) is None
    assert quality.statistics("occlusion", DELETION) is None
    rows = quality.summary().table.rows
    assert [(row.explainer, row.metric, row.statistics.count) for row in rows] == [
        ("rise", NAIVE, 1),
        ("rise", DELETION, 3),
    ]
    of = {"explainer": "rise", "metric": DELETION}
    assert shown(telemetry, "quality_score", **of) == pytest.approx(0.4)
    assert shown(telemetry, "quality_score_standard_error", **of) == pytest.approx(error)
    assert shown(telemetry, "quality_goodness", **of) == pytest.approx(0.6)  # 0 to 1, lower is better
    assert shown(telemetry, "quality_goodness_standard_error", **of) == pytest.approx(error)
    assert shown(telemetry, "quality_samples", **of) == 3
    assert shown(telemetry, "quality_last_success_timestamp_seconds", **of) == START + 22
    naive = {"explainer": "rise", "metric": NAIVE}
    assert shown(telemetry, "quality_goodness", **naive) == pytest.approx(0.25)  # -1 to 1
    assert shown(telemetry, "quality_score_standard_error", **naive) is None
    for label, mean, count in (("cat", 0.2, 2), ("dog", 0.8, 1)):
        assert shown(telemetry, "quality_class_score", **of, **{"class": label}) == pytest.approx(mean)
        assert shown(telemetry, "quality_class_samples", **of, **{"class": label}) == count
    for label in ("owl", "other"):
        assert shown(telemetry, "quality_class_score", **of, **{"class": label}) is None
        assert shown(telemetry, "quality_class_samples", **of, **{"class": label}) is None
    other = {"explainer": "occlusion", "metric": DELETION}
    assert shown(telemetry, "quality_score", **other) is None
    assert shown(telemetry, "quality_samples", **other) == 0


def test_classes_without_series_of_their_own_share_one(make):
    quality, telemetry = make(classes=["dog"], metrics=[DELETION])
    for number, (value, target) in enumerate([(0.1, 0), (0.3, 2), (0.8, 1)]):
        quality.put_score(key(number), START, record(value, target))
    of = {"explainer": "rise", "metric": DELETION}
    assert shown(telemetry, "quality_class_score", **of, **{"class": "dog"}) == pytest.approx(0.8)
    assert shown(telemetry, "quality_class_score", **of, **{"class": "other"}) == pytest.approx(0.2)
    assert shown(telemetry, "quality_class_samples", **of, **{"class": "other"}) == 2
    assert shown(telemetry, "quality_class_score", **of, **{"class": "cat"}) is None


def test_a_score_replaces_the_former_one_and_may_be_forgotten(make):
    quality, telemetry = make()
    quality.put_score(key(0), START, record(0.1))
    quality.put_score(key(0), START, record(0.5))
    quality.put_score(key(0), START, record(-0.25, metric=NAIVE))
    assert (quality.statistics("rise", DELETION).mean, quality.statistics("rise", DELETION).count) == (0.5, 1)
    quality.remove_scores(key(0), [DELETION])
    assert quality.statistics("rise", DELETION) is None
    assert quality.statistics("rise", NAIVE).mean == -0.25
    assert shown(telemetry, "quality_score", explainer="rise", metric=DELETION) is None
    assert shown(telemetry, "quality_samples", explainer="rise", metric=DELETION) == 0


def test_scores_become_too_old(make, clock):
    quality, telemetry = make(window_seconds=100, window_samples=3, metrics=[DELETION])
    for number in range(5):
        quality.add_sample(key(number), START + number)
        quality.put_score(key(number), START + number, record(number / 10))
    assert quality.statistics("rise", DELETION).mean == pytest.approx(0.3)
    assert quality.summary().sample_count == 3
    clock.now = START + 103.5
    assert (quality.statistics("rise", DELETION).mean, quality.summary().sample_count) == (0.4, 1)
    clock.now = START + 105
    assert (quality.statistics("rise", DELETION), quality.summary().sample_count) == (None, 0)
    assert shown(telemetry, "quality_samples", explainer="rise", metric=DELETION) == 0


# ------------------------------------------------------------------------------------------------ states


def test_off(make):
    quality, telemetry = make(sample_rate=0)
    assert quality.state is quality.summary().state is State.OFF
    assert shown(telemetry, "evaluator_state", state="off") == 1


def test_states(make, clock):
    quality, telemetry = make(quiet_seconds=600)

    def told():
        states = {state: shown(telemetry, "evaluator_state", state=state.value) for state in State}
        assert sorted(states.values()) == [0, 0, 0, 1]
        (state,) = (state for state, value in states.items() if value)
        assert state is quality.state is quality.summary().state
        return state, quality.summary().note

    assert told() == (State.NO_TRAFFIC, "No picture has been sampled yet.")
    assert quality.summary().last_sample is None
    quality.add_sample(key(0), START)
    assert told() == (State.UP_TO_DATE, "")
    assert shown(telemetry, "evaluator_last_sample_timestamp_seconds") == START
    quality.set_busy(True)
    assert told() == (State.WORKING, "")
    quality.set_busy(False)
    clock.now = START + 600
    assert told() == (State.UP_TO_DATE, "")
    clock.now = START + 601
    assert told() == (
        State.NO_TRAFFIC,
        "No picture has been sampled for 10 minutes; the scores are of pictures before that.",
    )
    assert quality.summary().last_sample == START
    quality.set_busy(True)
    assert told() == (State.WORKING, "Pictures wait to be scored, but no new one has come for a while.")
    quality.set_busy(False)
    quality.add_sample(key(1), START + 600.5)
    assert told() == (State.UP_TO_DATE, "")
    quality.add_sample(key(2), START + 1)  # older ones may come later
    assert quality.summary().last_sample == START + 600.5
    quality.note("Something is not measured.")
    assert told()[1] == "Something is not measured."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (61, "61 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_how_long_ago(make, clock, seconds, words):
    quality, _ = make(quiet_seconds=60)
    quality.note("More.")
    quality.add_sample(key(0), START)
    clock.now = START + seconds
    note = quality.summary().note
    assert note == f"No picture has been sampled for {words}; the scores are of pictures before that. More."


# ------------------------------------------------------------------------------------------------ classes


def test_classes_with_figures_of_their_own():
    twenty = [f"class {number}" for number in range(20)]
    assert shown_classes(twenty, []) == dict(enumerate(twenty))
    assert shown_classes([*twenty, "one more"], []) == {}
    assert shown_classes([*twenty, "one more"], ["one more", "class 3"]) == {3: "class 3", 20: "one more"}
    assert shown_classes(["a", "b"], ["b"]) == {1: "b"}


def test_a_class_that_there_is_not(make):
    with pytest.raises(ConfigError, match="'horse'") as caught:
        make(classes=["cat", "horse"])
    assert caught.value.field == "evaluator.classes"


@pytest.mark.parametrize(
    ("labels", "listed"),
    [
        (["crane", "owl", "crane"], []),
        (["crane", "owl", "crane"], ["crane"]),
        (["crane", "crane", shown_classes(["crane"] * 2, [])[0]], []),  # what tells them apart is a label itself
        (["other", "crane", "crane"], []),
        (["other", '"other"', "other"], []),
    ],
)
def test_labels_that_classes_share(make, labels, listed):
    found = shown_classes(labels, listed)
    assert set(found) == {number for number, label in enumerate(labels) if not listed or label in listed}
    assert len(set(found.values())) == len(found), "each has a name of its own"
    assert all(labels[number] in name for number, name in found.items())
    assert "other" not in found.values(), "that is all the rest"
    quality, telemetry = make(models.make_model(labels=labels), classes=listed, metrics=[DELETION])
    for number in range(3):
        quality.put_score(key(number), START, record(number / 4, number))
    for number, name in found.items():
        of = {"explainer": "rise", "metric": DELETION, "class": name}
        assert shown(telemetry, "quality_class_score", **of) == number / 4


# ------------------------------------------------------------------------------------------------ outcomes


def test_figures_go_by_what_samples_weigh(make):
    quality, telemetry = make(metrics=[DELETION], classes=["cat"])
    for number, (value, weight) in enumerate([(0.2, 1.5), (0.6, 0.5)]):
        quality.add_sample(key(number), START, weight)
        quality.put_score(key(number), START, record(value), weight)
        quality.put_ood(key(number), START, (0.5, 1.0 if number else 50.0), weight)
        quality.put_truth(key(number), [0], [number], weight)
    labels = {"explainer": "rise", "metric": DELETION}
    assert shown(telemetry, "quality_score", **labels) == pytest.approx(0.3)
    assert shown(telemetry, "quality_samples", **labels) == 2
    assert shown(telemetry, "quality_class_score", **labels, **{"class": "cat"}) == pytest.approx(0.3)
    assert shown(telemetry, "ood_outlier_share") == 0.25
    assert outcomes(telemetry, "cat") == (1.5, 0.5, 0, 0)
    summary = quality.summary()
    assert (summary.accuracy.share, summary.sample_count) == (0.75, 2)
    assert "2 pictures say as much as 1.6 that" in summary.note


def test_nothing_is_said_of_weights_where_all_count_alike(make):
    quality, _ = make()
    quality.add_sample(key(0), START)
    quality.add_sample(key(1), START)
    assert "as much as" not in quality.summary().note


def outcomes(telemetry, label):
    return tuple(shown(telemetry, "outcomes", **{"class": label}, outcome=each) for each in ("tp", "fp", "fn", "tn"))


def test_outcomes(make):
    quality, telemetry = make(classes=["cat"])
    assert outcomes(telemetry, "cat") == (None,) * 4, "nothing is known yet"
    quality.put_truth(key(0), [0], [0])
    quality.put_truth(key(1), [0], [1])
    quality.put_truth(key(2), [1], [0])
    quality.put_truth(key(3), [2], [2])
    quality.put_truth(key(4), [2], [])  # nothing is known of it
    assert outcomes(telemetry, "cat") == (1, 1, 1, 1)
    # Of dog and owl in four samples: owl in 3 is right, dog in 1 was missed, in 2 said wrongly.
    assert outcomes(telemetry, "other") == (1, 1, 1, 5)
    quality.put_truth(key(1), [0], [0])  # instead of the former
    assert outcomes(telemetry, "cat") == (2, 0, 1, 1)
    accuracy = quality.summary().accuracy
    assert (accuracy.picture_count, accuracy.share) == (4, 3 / 4)
    assert accuracy.classes[0] == (0, (2, 0, 1, 1))
    for number in range(4):  # not kept any more
        quality.remove_truth(key(number))
    quality.put_truth(key(9), [1], [0])
    assert outcomes(telemetry, "cat") == (0, 0, 1, 0)


def test_outcomes_of_several_classes_at_a_time(make):
    quality, telemetry = make(models.make_model(one_class=False))
    quality.put_truth(key(0), [0, 1], [1, 2])
    quality.put_truth(key(1), [], [2])
    assert {label: outcomes(telemetry, label) for label in ("cat", "dog", "owl")} == {
        "cat": (0, 1, 0, 1),
        "dog": (1, 0, 0, 1),
        "owl": (0, 0, 2, 0),
    }
    assert outcomes(telemetry, "other") == (None,) * 4, "there are no other classes"


# ------------------------------------------------------------------------------------------------ OoD


def test_unusual_pictures(make, clock):
    quality, telemetry = make(ood_percentile=5, window_seconds=100)
    assert shown(telemetry, "ood_outlier_share") is None
    for number, percentile in enumerate([4.9, 5.0, 60.0, 0.0]):
        quality.put_ood(key(number), START + 10 * number, (0.1, percentile))
    quality.put_ood(key(4), START + 40, (0.3, 99.0), new=False)  # known from before a restart
    assert shown(telemetry, "ood_outlier_share") == pytest.approx(2 / 5)
    assert shown(telemetry, "ood_scored_total") == 4
    assert shown(telemetry, "ood_beyond_threshold_total") == 2
    assert shown(telemetry, "ood_percentile_bucket", le="5.0") == 3
    assert shown(telemetry, "ood_score_bucket", le="0.0") == 0
    assert shown(telemetry, "ood_score_bucket", le="0.1") == 4
    quality.put_ood(key(4), START + 40, (0.3, 1.0))  # one sample is one
    assert shown(telemetry, "ood_outlier_share") == pytest.approx(3 / 5)
    clock.now = START + 135
    assert shown(telemetry, "ood_outlier_share") == 1
    clock.now = START + 1000
    assert shown(telemetry, "ood_outlier_share") is None


# ------------------------------------------------------------------------------------------------ auto


@pytest.mark.parametrize(("rate", "told"), [(0.5, "Too little is measured yet"), (0.0, "Nothing is measured, since")])
def test_auto_says_whether_more_may_be_known_later(make, rate, told):
    quality, _ = make(sample_rate=rate)
    assert quality.choose([Candidate("gradient", 0.1)], None, 0).explanation.startswith(told)


def test_what_auto_means(make):
    auto = {"weights": {DELETION: 1.0}, "min_samples": 2, "fallback": "gradient"}
    quality, telemetry = make(auto=auto, metrics=[DELETION])
    candidates = [Candidate("rise", 2.0), Candidate("occlusion", 1.0), Candidate("gradient", 0.1)]
    choice = quality.choose(candidates, None, 0)
    assert (choice.explainer, choice.reason, choice.composite) == ("gradient", Reason.FALLBACK, None)
    assert set(quality.summary().composites.values()) == {None}
    # Of class 0 occlusion is better, of all classes RISE; less is better.
    for name, scores in (("rise", {0: (0.5, 0.5), 1: (0.0, 0.0)}), ("occlusion", {0: (0.25, 0.25), 1: (0.5, 0.75)})):
        for target, values in scores.items():
            for number, value in enumerate(values):
                quality.put_score(key(10 * target + number), START, record(value, target, name))
    choice = quality.choose(candidates, None, 0)
    assert (choice.explainer, choice.reason, choice.composite) == ("occlusion", Reason.BEST_OF_CLASS, 0.75)
    choice = quality.choose(candidates, None, 2)
    assert (choice.explainer, choice.reason, choice.composite) == ("rise", Reason.BEST, 0.75)
    assert quality.choose(candidates, 1.5, 2).explainer == "occlusion"
    assert quality.choose(candidates, 0.5, 2).reason is Reason.FALLBACK
    assert quality.summary().composites == {"gradient": None, "occlusion": 0.5625, "rise": 0.75}
    assert shown(telemetry, "quality_composite", explainer="rise") == 0.75
    assert shown(telemetry, "quality_composite", explainer="gradient") is None
    for (explainer, reason), count in {
        ("gradient", "fallback"): 2,
        ("occlusion", "best_of_class"): 1,
        ("occlusion", "best"): 1,
        ("rise", "best"): 1,
        ("rise", "fallback"): 0,
    }.items():
        assert shown(telemetry, "auto_choices_total", explainer=explainer, reason=reason) == count
