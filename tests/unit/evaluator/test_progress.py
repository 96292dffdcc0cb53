"""In which order samples get on, and what is kept of each as soon as it is there."""

import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.job import Completed
from xai_sidecar.engine.work import Forward, Kind, MaskedForward, MaskedOodScore, Partial, drive
from xai_sidecar.evaluator.agenda import COSTLY, FIRST, LATER, MOST_MASKED, MOST_OTHERS, Agenda, Run
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.making import until_good
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.progress import Progress
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts, Saliency
from xai_sidecar.explainers.rise import Rise, RisePlus

models = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("models.py"))))

SRG, NAIVE = "faithfulness/srg", "faithfulness/naive"
FORWARD, MASKED = Kind("forward"), MaskedForward.kind


class Kept(list):
    """What was kept, in order: of maps the explainer, of scores explainer and metrics, and of samples the end."""

    def keep_map(self, measurement):
        self.append((measurement.sample.key.request_id, measurement.explainer))
        return False

    def keep_scores(self, measurement, metrics):
        self.append((measurement.sample.key.request_id, measurement.explainer, *metrics))
        return True

    def end(self, key, state):
        self.append((key.request_id, state.value))


def progress_of(model, kept, *, thorough=False, **settings):
    config = models.config(**settings)
    quality, _ = models.make_quality(model, config)
    return Progress(Measurer(model, config), model, config, kept, quality, thorough=thorough)


def run_all(progress, run=None):
    """Runs all that there is, one at a time; returns the runs."""
    run = run or in_batches(models.Net().run, 16)
    done = []
    while (one := progress.next(FIRST) or progress.next(LATER)) is not None:
        progress.ended(one, Completed(drive(progress.steps(one), run), 1, 0.0))
        done.append(one)
    return done


def test_first_scores_of_all_come_before_second_ones_of_any():
    kept = Kept()
    model = replace(models.make_model("gradient", "occlusion"), controls=CONTROLS)
    vetoes = [NAIVE, "class_sensitivity"]  # what counts for nothing would not be measured of every sample
    progress = progress_of(model, kept, metrics=[SRG, *vetoes], auto={"vetoes": vetoes})
    for name in "ab":
        progress.begin(models.make_sample(name))
    assert progress.open_count == 2
    runs = run_all(progress)
    assert [run.stage for run in runs] == sorted(run.stage for run in runs)
    names = ["gradient", "occlusion", *CONTROLS]
    maps = [each for each in kept if len(each) == 2 and each[1] in names]
    first = [each for each in kept if each[2:] == (SRG,)]
    assert {each[:2] for each in first} == set(maps)
    assert len(first) == len(maps) == 2 * len(names)
    assert [each[0] for each in first] == sorted(each[0] for each in first)  # the older sample's before the other's
    others = [each for each in kept if each[2:] in ((NAIVE,), ("class_sensitivity",))]
    assert kept.index(first[-1]) < kept.index(others[0])
    assert len(others) == 4 * len(names)
    assert [each for each in kept if each[1] == "scored"] == [("a", "scored"), ("b", "scored")]
    assert progress.open_count == 0


def test_where_everything_is_measured_a_sample_is_done_before_the_next_one_gets_on():
    kept = Kept()
    model = replace(models.make_model("gradient", "occlusion", "rise", masks=900), controls=CONTROLS)
    progress = progress_of(model, kept, thorough=True, metrics=[SRG, NAIVE, "class_sensitivity"])
    for name in "ab":
        progress.begin(models.make_sample(name))
    run_all(progress)
    assert [each[0] for each in kept] == sorted(each[0] for each in kept)
    assert len([each for each in kept if each[0] == "a"]) == len([each for each in kept if each[0] == "b"])


def names_in(run):
    return [each.explainer for each in run.measurements]


def test_maps_that_take_far_more_passes_come_after_the_first_scores_of_all_samples():
    """But the first one: RISE's 900 passes are more than twelve times the 50 or so of SRG; occlusion's are 25."""
    kept = Kept()
    progress = progress_of(models.make_model("gradient", "occlusion", "rise", masks=900), kept, metrics=[SRG, NAIVE])
    for name in "abc":
        progress.begin(models.make_sample(name))
    order = [(run.stage, run.measured.sample.key.request_id) for run in run_all(progress) if "rise" in names_in(run)]
    assert order[0] == (FIRST, "a"), "the first figure of every explainer comes first"
    assert [each for each in order if each[0] == COSTLY] == [(COSTLY, "b"), (COSTLY, "c")]
    first = [each[:2] for each in kept if each[2:] == (SRG,)]
    assert first == [
        ("a", "gradient"), ("a", "occlusion"), ("a", "rise"), ("b", "gradient"), ("b", "occlusion"),
        ("c", "gradient"), ("c", "occlusion"), ("b", "rise"), ("c", "rise"),
    ]  # fmt: skip


def test_what_maps_really_took_is_what_counts():
    """900 masks at the most, of which the tolerance takes 128: not more than twelve times SRG's passes."""
    kept = Kept()
    progress = progress_of(models.make_model("gradient", "rise", masks=900), kept, metrics=[SRG], tolerance=0.5)
    stages = []
    for name in "abc":
        progress.begin(models.make_sample(name))
        stages += [run.stage for run in run_all(progress) if "rise" in names_in(run)]
    assert set(stages) == {FIRST}


def test_others_that_wait_do_not_keep_a_sample_from_being_begun():
    progress = progress_of(models.make_model("gradient", "rise", masks=900), Kept(), metrics=[SRG])
    progress.begin(models.make_sample("a"))
    run_all(progress)
    progress.begin(models.make_sample("b"))
    run = in_batches(models.Net().run, 16)
    while (one := progress.next(FIRST)) is not None:
        progress.ended(one, Completed(drive(progress.steps(one), run), 1, 0.0))
    assert progress.has_room
    assert names_in(progress.next(LATER)) == ["rise"]


def test_the_covered_picture_is_asked_for_once_for_all_maps():
    kept, launched = Kept(), []
    model = replace(models.make_model("occlusion"), controls=CONTROLS)
    progress = progress_of(model, kept, metrics=[SRG])
    progress.begin(models.make_sample("a"))
    run = in_batches(models.Net().run, 16)

    def counting(kind, rows):
        launched.extend(mask for mask in rows[0] if not mask.any())
        return run(kind, rows)

    run_all(progress, counting)
    assert len(launched) == 1
    assert len([each for each in kept if each[2:] == (SRG,)]) == 5


def test_one_that_cannot_be_covered_is_measured_all_the_same():
    kept = Kept()
    progress = progress_of(models.make_model("gradient"), kept, metrics=[SRG])
    progress.begin(models.make_sample("a"))
    cover, made = progress.next(LATER), progress.next(LATER)
    drive(progress.steps(made), in_batches(models.Net().run, 16))
    progress.ended(made, Completed(None, 1, 0.0))
    assert progress.next(LATER) is None  # its map waits
    progress.ended(cover, None)
    run_all(progress)
    assert kept == [("a", "gradient"), ("a", "gradient", SRG), ("a", "scored")]


def test_of_maps_that_fail_together_each_is_made_alone():
    facts = ModelFacts(models.HEIGHT, models.WIDTH, has_ood=True)
    kept, model = Kept(), replace(models.make_model("rise"), facts=facts)
    plus = RisePlus()
    parameters = plus.resolve(model.explainers["rise"][1], facts)
    model = replace(model, explainers={**model.explainers, "rise_plus": (plus, parameters)})
    progress = progress_of(model, kept, metrics=[SRG])
    progress.begin(models.make_sample("a", ood=(0.5, 50.0)))
    net = models.Net()
    net.broken.add("masked_ood_score")
    run = in_batches(net.run, 16)
    failed = []
    while (one := progress.next(LATER)) is not None:
        try:
            progress.ended(one, Completed(drive(progress.steps(one), run), 1, 0.0))
        except RuntimeError:
            failed.append([each.explainer for each in one.measurements])
            progress.ended(one, None)
    assert failed == [["rise_plus", "rise"], ["rise_plus"]]
    assert ("a", "rise", SRG) in kept
    assert kept[-1] == ("a", "scored")


# ------------------------------------------------------------------------------------------------ the agenda


def test_kinds_do_not_hold_each_other_up():
    agenda = Agenda()
    gradients = [Run(0, FIRST, FORWARD) for _ in range(MOST_OTHERS + 1)]
    masked = [Run(1, stage, MASKED) for stage in (LATER, FIRST)]
    for run in (*gradients, *masked):
        agenda.add(run)
    assert [agenda.next() for _ in range(MOST_OTHERS)] == gradients[:-1]
    assert agenda.next(FIRST) is masked[1]  # of another kind, and a later sample
    assert agenda.next(FIRST) is None
    assert agenda.waiting(FORWARD, FIRST) == agenda.waiting(MASKED, LATER) == 1
    assert agenda.next() is masked[0]
    assert agenda.next() is None
    agenda.ended(gradients[0])
    assert agenda.next() is gradients[-1]


def test_masked_passes_are_asked_for_by_several():
    agenda = Agenda()
    for number in range(MOST_MASKED + 1):
        assert agenda.has_room(MASKED) is (number == 0)
        agenda.add(Run(number, FIRST, MASKED))
    assert [agenda.next().sample for _ in range(MOST_MASKED)] == list(range(MOST_MASKED))
    assert agenda.next() is None
    assert not agenda.has_room(MASKED)


# ------------------------------------------------------------------------------------------------ making maps


def made(explainer, parameters, tolerance, image, targets, net=None):
    asked = []
    steps = explainer.explain(image, np.array(targets, np.int32), parameters, Context(seed=3))
    run = in_batches((net or models.Net()).run, 16)
    return drive(until_good(steps, tolerance, lambda work: asked.append(len(work.rows[0]))), run), sum(asked)


def test_a_map_is_no_better_than_it_has_to_be():
    """It is the map of as many masks, and its error is the first below the tolerance that was looked at."""
    sample, explainer = models.make_sample(seed=5), Rise()
    many = explainer.resolve(explainer.parameters_type(masks=4000, grid_size=3), models.FACTS)
    whole, all_masks = made(explainer, many, 0.0, sample.image, [sample.target])
    assert all_masks == 4000
    found, spent = made(explainer, many, float(2 * whole.standard_errors[0]), sample.image, [sample.target])
    assert 128 <= spent < 4000
    assert found.standard_errors[0] <= 2 * whole.standard_errors[0]
    same, _ = made(explainer, many.model_copy(update={"masks": spent}), 0.0, sample.image, [sample.target])
    np.testing.assert_array_equal(found.maps, same.maps)


@pytest.mark.parametrize(
    ("believed_from", "most", "expected"),
    [(1, 9, 3), (5, 9, 5), (9, 9, 7), (7, 5, None)],
    ids=["as soon as the first is good", "once both are", "when it is looked at after twice as many", "never"],
)
def test_the_first_map_has_to_be_good_and_the_second_one_to_be_believed(believed_from, most, expected):
    """In hundreds of passes. The first one is good enough, at 0.58, with three hundred."""

    def explanation():
        for count in range(1, most + 1):
            yield Forward(np.zeros((100, 2, 6, 8), np.float32))
            statuses = MapStatus.OK, MapStatus.OK if count >= believed_from else MapStatus.UNRELIABLE
            errors = np.array([count**-0.5, 9], np.float32)
            yield Partial(partial(Saliency, np.zeros((2, 6, 8), np.float32), statuses, errors))
        return None

    asked = []
    run = in_batches(models.Net().run, 100)
    saliency = drive(until_good(explanation(), 0.58, lambda work: asked.append(work)), run)
    assert len(asked) == (expected or most)
    assert (saliency and saliency.standard_errors[0]) == (expected and np.float32(expected**-0.5))


def inlier():
    """A sample with a better OoD score than the covered picture."""
    return next(one for one in (models.make_sample(seed=seed) for seed in range(50)) if one.image.mean() > 0.1)


@pytest.mark.parametrize("tolerance", [0.0, 0.25])
def test_rise_and_rise_plus_come_from_the_same_passes(tolerance):
    facts = ModelFacts(models.HEIGHT, models.WIDTH, has_ood=True)
    model = replace(models.make_model("rise", masks=600), facts=facts)
    parameters = model.explainers["rise"][1]
    model = replace(model, explainers={**model.explainers, "rise_plus": (RisePlus(), parameters)})
    measurer, sample = Measurer(model, models.config(metrics=[SRG], tolerance=tolerance)), inlier()

    def maps(groups):
        rows = {MaskedOodScore.kind: 0, MASKED: 0}
        run = in_batches(models.Net().run, 16)

        def counting(kind, arrays):
            rows[kind] += len(arrays[0])
            return run(kind, arrays)

        for group in groups:
            drive(measurer.make(group), counting)
        found = {each.explainer: each for group in groups for each in group}
        return found, rows

    plans = [measurer.plan(sample, name) for name in ("rise", "rise_plus")]
    joint, rows = maps(measurer.together(plans))
    apart, apart_rows = maps([[measurer.plan(sample, name)] for name in ("rise", "rise_plus")])
    for name, measurement in joint.items():
        np.testing.assert_array_equal(measurement.map.saliency, apart[name].map.saliency)
        assert measurement.map.pass_count == apart[name].map.pass_count
    assert rows[MaskedOodScore.kind] == joint["rise_plus"].map.pass_count == apart_rows[MaskedOodScore.kind]
    assert rows[MASKED] == max(0, apart_rows[MASKED] - rows[MaskedOodScore.kind] + 2)  # beside both ends of the scores
    assert sum(rows.values()) == sum(each.runs[0].pass_count for each in joint.values())


def test_maps_of_other_masks_are_made_apart():
    facts = ModelFacts(models.HEIGHT, models.WIDTH, has_ood=True)
    model = replace(models.make_model("rise"), facts=facts)
    others = model.explainers["rise"][1].model_copy(update={"keep_probability": 0.4})
    model = replace(model, explainers={**model.explainers, "rise_plus": (RisePlus(), others)})
    measurer, sample = Measurer(model, models.config(metrics=[SRG])), models.make_sample()
    groups = measurer.together([measurer.plan(sample, name) for name in ("rise", "rise_plus")])
    assert [[each.explainer for each in group] for group in groups] == [["rise"], ["rise_plus"]]
