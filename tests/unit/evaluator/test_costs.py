"""What measuring costs, counted by hand, and how that decides on what is measured of a sample."""

import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import drive
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.costs import FLOOR, Costs
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.spending import LOST, SETTLED, SHOWN, Spending
from xai_sidecar.evaluator.weighted import ScoreStatistics

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

SRG, NAIVE, DELETION = "faithfulness/srg", "faithfulness/naive", "faithfulness/deletion_auc"
LOCATED = ["localization/pointing_game", "localization/iosr"]


class Counting:
    """Runs work, and counts the rows by kind."""

    def __init__(self):
        self.rows = {}
        self._run = in_batches(models.Net().run, 16)

    def __call__(self, kind, rows):
        self.rows[kind] = self.rows.get(kind, 0) + len(rows[0])
        return self._run(kind, rows)


def costs_of(model, **settings):
    config = models.config(**settings)
    measurer = Measurer(model, config)
    return measurer, Costs(measurer, model, config)


def test_what_a_sample_costs():
    """28 steps are 56 pictures, of which the whole one is known and the covered one is the same for all maps.

    Deletion has the same pictures. Robustness takes ten maps beside the one that there is; of RISE it would take 704
    passes, and of occlusion it is worth no more passes than the map and its first scores take.
    """
    model = models.make_model("gradient", "occlusion", "rise")
    _, costs = costs_of(model, metrics=[SRG, DELETION, "robustness", *LOCATED], max_passes=275)
    assert costs.lead == (SRG, DELETION)
    assert costs.share("occlusion", "robustness") == (25 + 54) / 250
    assert costs.share("gradient", "robustness") == costs.share("occlusion", SRG) == 1
    assert {kind.name: rows for kind, rows in costs.rows()} == {
        "input_gradient": 1 + 10,
        "masked_forward": 1 + 54 + (25 + 54 + 25 + 54) + (64 + 54),
    }


def test_it_is_what_is_measured():
    """Class sensitivity takes a pass of gradient, and of others none: both maps come from the same passes."""
    model = replace(models.make_model("gradient", "occlusion"), controls=CONTROLS)
    measurer, costs = costs_of(model, metrics=[SRG, NAIVE, DELETION, "class_sensitivity"])
    assert costs.lead == (SRG, DELETION)
    sample, shared, counted = models.make_sample(), {}, Counting()
    drive(measurer.cover(sample, shared), counted)
    assert len(shared) == 2  # the whole picture, and nothing of it
    for name in measurer.explainers(sample):
        measurement = measurer.plan(sample, name)
        measurement.shared.update(shared)
        drive(measurer.make([measurement]), counted)
        drive(measurer.score(measurement, measurement.planned), counted)
    assert counted.rows == dict(costs.rows())
    # Six maps; of 28 pictures of naive, those of the first and the last step are among SRG's.
    assert {kind.name: rows for kind, rows in counted.rows.items()} == {
        "input_gradient": 1 + 1,
        "masked_forward": 1 + 25 + 6 * (54 + 26),
    }


def test_what_counts_is_first_whatever_is_listed_first():
    _, costs = costs_of(models.make_model("gradient"), metrics=[NAIVE, DELETION, SRG])
    assert costs.lead == (SRG, DELETION)
    _, others = costs_of(models.make_model("gradient"), metrics=[NAIVE, DELETION])
    assert others.lead == (NAIVE,)


def test_a_floor_below_which_nothing_is_measured_less_often():
    model = models.make_model("gradient")
    _, costs = costs_of(model, metrics=[SRG, "robustness"], metric_parameters={"robustness": {"draw_count": 1000}})
    assert costs.share("gradient", "robustness") == FLOOR > 55 / 1000


# ------------------------------------------------------------------------------------------------ spending


def statistics(mean, error, count=30):
    return ScoreStatistics(mean, error, count, 0.0)


class Known:
    """Scores and differences as they are given."""

    def __init__(self, scores=(), differences=()):
        self.scores = dict(scores)
        self._differences = dict(differences)

    def statistics(self, explainer, metric, target):
        return self.scores.get((explainer, metric))

    def differences(self, one, other, metric, target):
        return self._differences.get((one, other, metric))


def spending(known, metrics=(SRG, "robustness", "localization/pointing_game"), **settings):
    model = replace(models.make_model("gradient", "occlusion"), controls=CONTROLS)
    measurer, costs = costs_of(model, metrics=list(metrics), **settings)
    weights = {SRG: 1.0, "localization/pointing_game": 0.5}
    vetoes = ["class_sensitivity", "robustness"]
    return Spending(costs, measurer.compared, weights, vetoes, 10, known.statistics, known.differences)


KEYS = [SampleKey(f"request {number}", 0) for number in range(2000)]


def share_of(spending, explainer, metric=None):
    if metric is None:
        return sum(spending.measures(key, explainer) for key in KEYS) / len(KEYS)
    return sum(metric in spending.metrics(key, explainer, [metric]) for key in KEYS) / len(KEYS)


def test_while_little_is_known_everything_is_measured():
    one = spending(Known())
    assert share_of(one, "gradient") == share_of(one, "occlusion") == share_of(one, "gradient", "robustness") == 1
    assert share_of(one, "occlusion", SRG) == 1
    assert share_of(one, "occlusion", "robustness") == pytest.approx((25 + 54) / 250, abs=0.03)


def test_what_is_only_shown_is_measured_less_often():
    """Naive's score counts for nothing; deletion's neither, but it takes no passes of its own."""
    one = spending(Known(), [SRG, NAIVE, DELETION, "robustness"])
    assert share_of(one, "gradient", NAIVE) == pytest.approx(SHOWN, abs=0.03)
    assert share_of(one, "gradient", DELETION) == share_of(one, "gradient", "robustness") == 1
    known = spending(Known({("gradient", NAIVE): statistics(0.5, 1e-3)}), [SRG, NAIVE])
    assert share_of(known, "gradient", NAIVE) == pytest.approx(FLOOR, abs=0.02)


@pytest.mark.parametrize(
    ("difference", "pointing", "lost"),
    [
        (statistics(0.3, 0.05), None, True),
        (statistics(0.3, 0.1), None, False),  # 2.05 standard errors are half an interval
        (statistics(0.3, 0.05, 29), None, False),
        (statistics(0.3, 0.05), statistics(-0.5, 0.1), False),  # it points at the objects
        (statistics(0.3, 0.05), statistics(-0.5, 0.5), True),
        (statistics(-0.3, 0.05), None, False),
    ],
)
def test_who_has_clearly_lost_is_measured_less_often(difference, pointing, lost):
    both = {("occlusion", "gradient", SRG): difference}
    if pointing:
        both["occlusion", "gradient", "localization/pointing_game"] = pointing
    one = spending(Known(differences=both))
    assert one.has_lost("gradient") is lost
    assert not one.has_lost("occlusion")
    assert share_of(one, "gradient") == (pytest.approx(LOST, abs=0.03) if lost else 1)
    assert share_of(one, "occlusion") == share_of(one, "control/blob") == 1


def test_what_is_known_well_enough_is_measured_less_often():
    """Half widths of the intervals are 0.021 and 0.019; what counts for the composite goes on."""
    for error, share in ((0.0102, 1.0), (0.0093, SETTLED)):
        found = {("gradient", "robustness"): statistics(0.5, error), ("gradient", SRG): statistics(0.5, error / 9)}
        one = spending(Known(found))
        assert share_of(one, "gradient", "robustness") == pytest.approx(share, abs=0.03)
        assert share_of(one, "gradient", SRG) == 1
    free = {("control/blob", "robustness"): statistics(0.5, 1e-3)}
    assert share_of(spending(Known(free)), "control/blob", "robustness") == 1  # which takes no passes


def test_explainers_are_measured_on_the_same_pictures():
    """What is measured on fewer pictures is compared on all of these with what is measured on more."""
    lost = {("occlusion", "gradient", SRG): statistics(0.3, 0.01), ("gradient", "occlusion", SRG): None}
    one = spending(Known({("gradient", "robustness"): statistics(0.5, 0.001)}, lost))
    seldom = {key for key in KEYS if one.metrics(key, "gradient", ["robustness"])}
    often = {key for key in KEYS if one.metrics(key, "occlusion", ["robustness"])}
    assert seldom < often
    # And apart from whether an explainer is measured at all.
    measured = {key for key in KEYS if one.measures(key, "gradient")}
    assert len(often & measured) / len(KEYS) == pytest.approx(LOST * (25 + 54) / 250, abs=0.03)
