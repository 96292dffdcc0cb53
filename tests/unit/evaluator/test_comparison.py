"""Explainers against controls: by hand, and what `auto` makes of it."""

import math

import pytest
from scipy.stats import t

from xai_sidecar.evaluator.choice import Candidate, Reason, choose, composites, verdicts
from xai_sidecar.evaluator.comparison import Advantage, Verdict, Yardstick
from xai_sidecar.evaluator.quality_table import quality_table
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.evaluator.windows import Windows

SRG, DELETION, POINTING = "faithfulness/srg", "faithfulness/deletion_auc", "localization/pointing_game"
SENSITIVITY, ROBUSTNESS = "class_sensitivity", "robustness"
NOISE, BLOB = "control/random", "control/blob"
WEIGHTS = {SRG: 1.0, POINTING: 0.5}
T20 = t.ppf(0.975, 19)


class Scored:
    """Statistics of made-up scores: means by name and metric; differences have these standard errors.

    A triple is of one class.
    """

    def __init__(self, means, errors=None, count=20):
        self.means, self.errors, self.count = means, errors or {}, count

    def statistics(self, name, metric, target):
        mean = self.means.get((name, metric) if target is None else (name, metric, target))
        return None if mean is None else ScoreStatistics(mean, 0.01, self.count, 0.0)

    def differences(self, name, other, metric, target):
        one, two = (self.statistics(each, metric, target) for each in (name, other))
        if one is None or two is None:
            return None
        return ScoreStatistics(one.mean - two.mean, self.errors.get((name, metric), 0.01), self.count, 0.0)

    def yardstick(self, *controls, vetoes=(SENSITIVITY, ROBUSTNESS)):
        return Yardstick(controls or (NOISE, BLOB), self.differences, vetoes, NOISE)

    def auto(self, *names, weights=None, min_samples=20, target=0, fallback="gradcam", **seconds):
        candidates = [Candidate(name, seconds.get(name, 0.1)) for name in names or ("gradcam", "rise")]
        known = (self.statistics, weights or {SRG: 1.0}, min_samples)
        return choose(candidates, *known, None, fallback, target, True, self.yardstick())


CONTROLS = {(NOISE, SRG): 0.0, (BLOB, SRG): 0.24}
"""As measured on photographs."""


def test_an_advantage_by_hand():
    # SRG of -1 to 1 makes goodness half of it; deletion is the better the lower.
    scored = Scored(
        {("a", SRG): 0.4, (BLOB, SRG): 0.2, ("a", DELETION): 0.1, (BLOB, DELETION): 0.4},
        {("a", SRG): 0.08, ("a", DELETION): 0.02},
    )
    one = scored.yardstick().advantage("a", BLOB, [SRG], {SRG: 1.0}, 20)
    assert (one.over, one.mean, one.half_width) == (BLOB, pytest.approx(0.1), pytest.approx(T20 * 0.04))
    both = scored.yardstick().advantage("a", BLOB, [SRG, DELETION], {SRG: 3.0, DELETION: 1.0}, 20)
    assert both.mean == pytest.approx((3 * 0.1 + 0.3) / 4)
    assert both.half_width == pytest.approx(T20 * (3 * 0.04 + 0.02) / 4)
    assert scored.yardstick().advantage("a", BLOB, [SRG], {SRG: 1.0}, 21) is None
    assert scored.yardstick().advantage("a", NOISE, [SRG], {SRG: 1.0}, 20) is None


def test_a_metric_that_all_pictures_are_equal_by_adds_no_doubt():
    """Where all hit, what SRG tells apart stays apart; equal by every metric, few pictures tell nothing."""
    means = {("a", SRG): 0.4, (BLOB, SRG): 0.2, ("a", POINTING): 1.0, (BLOB, POINTING): 1.0}
    errors = {("a", SRG): 0.03, ("a", POINTING): 0.0}
    scored = Scored(means, errors, count=15)
    one = scored.yardstick().advantage("a", BLOB, [SRG, POINTING], WEIGHTS, 10)
    assert (one.mean, one.half_width) == (pytest.approx(0.1 / 1.5), pytest.approx(t.ppf(0.975, 14) * 0.015 / 1.5))
    assert one.sure
    equal = scored.yardstick().advantage("a", BLOB, [POINTING], WEIGHTS, 10)
    assert math.isnan(equal.half_width)


@pytest.mark.parametrize(
    ("mean", "half", "sure", "worse"),
    [
        (0.1, 0.09, True, False),
        (0.1, 0.11, False, False),
        (-0.1, 0.09, False, True),
        (-0.1, 0.11, False, False),
        (0.1, math.nan, False, False),
        (-0.1, math.nan, False, False),
    ],
)
def test_what_is_beyond_chance(mean, half, sure, worse):
    assert (Advantage("x", mean, half).sure, Advantage("x", mean, half).surely_worse) == (sure, worse)


def test_the_control_that_is_beaten_by_the_least_counts():
    scored = Scored({**CONTROLS, ("a", SRG): 0.5, ("b", SRG): 0.2})
    found = verdicts(["a", "b", "c"], scored.statistics, WEIGHTS, 20, scored.yardstick())
    assert set(found) == {"a", "b"}
    assert (found["a"].least.over, found["a"].least.mean, found["a"].eligible) == (BLOB, pytest.approx(0.13), True)
    assert (found["b"].least.over, found["b"].eligible) == (BLOB, False)
    assert found["b"].objection == "does not beat control/blob beyond chance (-0.020 ± 0.010)"
    assert found["a"].objection == ""


@pytest.mark.parametrize("metric", [SENSITIVITY, ROBUSTNESS])
def test_a_veto(metric):
    """Worse than noise: out, whatever else; better than noise earns nothing."""
    means = {**CONTROLS, ("rise", SRG): 0.5, ("gradcam", SRG): 0.4, (NOISE, metric): 0.5, (BLOB, metric): 0.0}
    bad = Scored({**means, ("rise", metric): 0.3, ("gradcam", metric): 0.9})
    choice = bad.auto()
    assert choice.explainer == "gradcam"
    assert f"rise scores higher, but is worse than {NOISE} by {metric} (0.200 ± 0.021)." in choice.explanation
    unsure = Scored({**means, ("rise", metric): 0.3, ("gradcam", metric): 0.9}, {("rise", metric): 0.1})
    assert unsure.auto().explainer == "rise"
    assert Scored({**means, ("rise", metric): 0.51, ("gradcam", metric): 1.0}).auto().explainer == "rise"
    assert composites(["rise"], bad.statistics, WEIGHTS, 20)["rise"] == 0.75


def test_auto_says_by_how_much_and_how_surely():
    scored = Scored({**CONTROLS, ("rise", SRG): 0.5, ("gradcam", SRG): 0.4})
    choice = scored.auto()
    assert (choice.explainer, choice.reason, choice.composite) == ("rise", Reason.BEST, 0.75)
    assert choice.advantage == Advantage(BLOB, pytest.approx(0.13), pytest.approx(T20 * 0.005))
    assert choice.explanation == (
        "rise has the best composite score, 0.75 of 1 (srg 0.75; 20 samples or more), of the 2 explainers. It beats "
        "control/blob, its closest control, by 0.130 ± 0.010, and gradcam, the next, by 0.050 ± 0.010 (with 95 % "
        "confidence)."
    )
    close = Scored({**CONTROLS, ("rise", SRG): 0.41, ("gradcam", SRG): 0.4})
    assert "and gradcam, the next, by 0.005 ± 0.010, which may be chance" in close.auto().explanation


def test_whoever_does_not_beat_the_controls_is_not_chosen():
    scored = Scored({**CONTROLS, ("rise", SRG): 0.25, ("gradcam", SRG): 0.2})
    choice = scored.auto(fallback="rise")
    assert (choice.explainer, choice.reason, choice.composite) == ("rise", Reason.FALLBACK, None)
    assert choice.explanation == (
        "No explainer beats the controls: rise, the best, does not beat control/blob beyond chance (0.005 ± 0.010): "
        "the configured default."
    )


def test_one_that_is_not_compared_waits():
    """Scores from before there were controls."""
    choice = Scored({("rise", SRG): 0.5, ("gradcam", SRG): 0.2}).auto()
    assert choice.explanation.startswith("Too few pictures have been compared with the controls yet (20 are needed)")
    assert choice.reason is Reason.FALLBACK


def test_a_class_of_its_own_has_controls_of_its_own():
    means = {**CONTROLS, ("rise", SRG): 0.5, ("gradcam", SRG): 0.4, ("rise", SRG, 7): 0.3, ("gradcam", SRG, 7): 0.4}
    of_class = {**means, (NOISE, SRG, 7): 0.0, (BLOB, SRG, 7): 0.1}
    choice = Scored(of_class).auto(target=7)
    assert (choice.explainer, choice.reason) == ("gradcam", Reason.BEST_OF_CLASS)
    assert choice.advantage.mean == pytest.approx(0.15)


def test_localization_counts_where_truth_is_known():
    means = {**CONTROLS, ("rise", SRG): 0.5, ("gradcam", SRG): 0.4}
    truth = {("rise", POINTING): 0.4, ("gradcam", POINTING): 0.9, (NOISE, POINTING): 0.2, (BLOB, POINTING): 0.3}
    assert Scored(means).auto(weights=WEIGHTS).explainer == "rise"
    assert Scored({**means, **truth}).auto(weights=WEIGHTS).explainer == "gradcam"


def test_controls_have_composites_by_the_explainers_metrics():
    scored = Scored({**CONTROLS, ("rise", SRG): 0.5, (BLOB, POINTING): 1.0})
    found = composites(["rise", "gradcam"], scored.statistics, WEIGHTS, 20, [NOISE, BLOB, "control/edges"])
    assert found == {"rise": 0.75, "gradcam": None, NOISE: 0.5, BLOB: 0.62, "control/edges": None}


def test_skill_by_hand():
    # SRG of 0.4 over the blob's 0.24, of the 0.76 up to 1; deletion of 0.1 under the noise's 0.25.
    means = {**CONTROLS, ("a", SRG): 0.4, ("a", DELETION): 0.1, (NOISE, DELETION): 0.25, (BLOB, DELETION): 0.3}
    scored = Scored({**means, ("a", ROBUSTNESS): 0.7, (BLOB, ROBUSTNESS): 1.0}, {("a", SRG): 0.038})
    rows = quality_table(["a", BLOB], [SRG, DELETION, ROBUSTNESS], scored.statistics, scored.yardstick()).rows
    found = {(row.explainer, row.metric): row.skill for row in rows}
    assert (found["a", SRG].control, found["a", SRG].value) == (BLOB, pytest.approx(0.16 / 0.76))
    assert found["a", SRG].half_width == pytest.approx(T20 * 0.038 / 0.76)
    assert (found["a", DELETION].control, found["a", DELETION].value) == (NOISE, pytest.approx(0.15 / 0.25))
    assert found["a", ROBUSTNESS] is None  # nobody beats a map that never changes
    assert found[BLOB, SRG] is None


def test_a_verdict_of_one_that_is_as_good_as_it_gets():
    assert Verdict(Advantage(BLOB, 0.5, 0.1)).eligible
    assert not Verdict(Advantage(BLOB, 0.5, math.nan)).eligible


# ------------------------------------------------------------------------------------------------ paired windows


def windows_of(**scores):
    """By name with "_" for "/": the scores of some pictures, of class 0 and 1 in turn."""
    windows = Windows(100, 1000.0)
    for name, values in scores.items():
        for number, value in enumerate(values):
            if value is not None:
                windows.put(name, SRG, SampleKey(str(number), 0), 10.0 * number, value, number % 2, 5.0)
    return windows


def test_differences_are_of_the_same_pictures():
    windows = windows_of(a=[0.5, 0.9, None, 0.7], b=[0.1, 0.6, 0.9, None])
    found = windows.differences("a", "b", SRG, 0.0)
    assert (found.count, found.mean) == (2, pytest.approx(0.35))
    assert found.standard_error == pytest.approx(0.05)
    assert windows.differences("b", "a", SRG, 0.0).mean == pytest.approx(-0.35)
    assert windows.differences("a", "b", SRG, 0.0, 1).mean == pytest.approx(0.3)
    assert windows.differences("a", "c", SRG, 0.0) is None


def test_differences_follow_what_is_put_removed_and_forgotten():
    windows = windows_of(a=[0.5, 0.9], b=[0.1, 0.6])
    assert windows.differences("a", "b", SRG, 0.0).mean == pytest.approx(0.35)
    windows.put("b", SRG, SampleKey("1", 0), 10.0, 0.8, 1, 5.0)
    assert windows.differences("a", "b", SRG, 0.0).mean == pytest.approx(0.25)
    assert windows.differences("a", "b", SRG, 1005.0).mean == pytest.approx(0.1)  # the first is too old
    windows.remove(SampleKey("1", 0), [SRG])
    assert windows.differences("a", "b", SRG, 1005.0) is None
