"""What every metric must hold to."""

import itertools

import numpy as np
import pytest
from measuring import drive_all, measure_all

from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.batching import in_batches, masked
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import INPUT_GRADIENT, Forward, Kind, MaskedForward, MaskedOodScore, Partial, drive
from xai_sidecar.errors import TargetError
from xai_sidecar.explainers import masks as masks_module
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.base import Need, ScoreStatus
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance

HEIGHT, WIDTH, CLASSES = 8, 12, 4

KINDS = [
    Forward.kind,
    MaskedForward.kind,
    MaskedOodScore.kind,
    INPUT_GRADIENT,
    Kind("input_gradient", relu_rule="guided"),
    Kind("input_gradient", relu_rule="deconvolution"),
    Kind("layer_gradient", "cells"),
]


class Toy:
    """The hyperbolic tangent of the means of 2 x 2 pixels, then a dense layer. It is a backend as well."""

    device = "cpu"
    engine = "numpy"
    engine_note = ""
    version = "1"
    class_count = CLASSES
    default_layer = "cells"
    ood = None

    def __init__(self, channels, scale=6.0):
        self.weights = np.random.default_rng(7).normal(0, scale, (CLASSES, channels, HEIGHT // 2, WIDTH // 2))
        self.weights /= np.sqrt(self.weights[0].size)
        self.layers = {"cells": Layer("cells", channels, HEIGHT // 2, WIDTH // 2)}
        self.launches = []

    def cells(self, images):
        cells = images.reshape(len(images), -1, HEIGHT // 2, 2, WIDTH // 2, 2)
        return np.tanh(cells.mean(axis=(3, 5), dtype=np.float64))

    def logits(self, images):
        return (self.cells(images)[:, None] * self.weights).sum(axis=(2, 3, 4)).astype(np.float32)

    def gradients(self, images, targets):
        by_cell = self.weights[targets] * (1 - self.cells(images) ** 2) / 4
        return by_cell.repeat(2, axis=2).repeat(2, axis=3).astype(np.float32)

    def run(self, kind, rows):
        self.launches.append((kind.name, len(rows[0])))
        images = masked(*rows) if kind.name.startswith("masked") else rows[0]
        logits = self.logits(images)
        if kind == MaskedOodScore.kind:
            scores = np.abs(images).mean(axis=(1, 2, 3))
            return scores, scores, logits
        if kind.name == "input_gradient":
            return self.gradients(*rows), logits
        if kind.name == "layer_gradient":
            return self.cells(images).astype(np.float32), self.weights[rows[1]].astype(np.float32), logits
        return (logits,)

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        return {1: 1e-4, 3: 2e-4, 4: 3e-4}

    def close(self):
        pass


def facts(height=HEIGHT, width=WIDTH, channels=3):
    return ModelFacts(height, width, Toy(channels).layers, "cells", has_ood=True)


def method(name, seed=5):
    explainer = installed_explainers()[name]
    few = {"masks": 100} if "masks" in explainer.parameters_type.model_fields else {}
    return ExplainerCall(explainer, explainer.resolve(explainer.parameters_type(**few), facts()), seed)


def instance(seed=0, channels=3, how="gradient", **more):
    generator = np.random.default_rng(seed)
    image = generator.normal(0, 1, (channels, HEIGHT, WIDTH)).astype(np.float32)
    saliency = generator.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32)
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[6:, 9:] = True
    known = {"saliency": saliency, "call": method(how), "objects": [(2.5, 1, 5, 4.2), corner]}
    return Instance(image, seed % CLASSES, **{**known, **more})


def few(metric):
    """Parameters by default, but for few draws, and a tolerance that does not reach all over so small a picture."""
    small = {"tolerance": 2, "draw_count": 3}
    return metric.parameters_type(**{k: v for k, v in small.items() if k in metric.parameters_type.model_fields})


def cases():
    """Benchmarks with all their protocols, and, where they explain, all explainers."""
    for name, metric in installed_metrics().items():
        protocols = ["srg", "mindspore_xai", "rise"] if "protocol" in metric.parameters_type.model_fields else [None]
        explainers = installed_explainers() if Need.EXPLAINER in metric.needs else ["gradient"]
        for protocol, explainer in itertools.product(protocols, explainers):
            parameters = metric.parameters_type(protocol=protocol) if protocol else few(metric)
            yield pytest.param(metric, parameters, explainer, id="-".join(filter(None, (name, protocol, explainer))))


EVERY = pytest.mark.parametrize("metric", installed_metrics().values(), ids=installed_metrics())
CASES = pytest.mark.parametrize(("metric", "parameters", "explainer"), list(cases()))
CHANNELS = pytest.mark.parametrize("channels", [1, 3])


@EVERY
def test_it_says_what_it_is(metric):
    assert installed_metrics()[metric.name] is metric
    low, high = metric.value_range
    assert low < high
    assert isinstance(metric.higher_is_better, bool)
    assert metric.description.endswith(").")
    assert all(field.description for field in metric.parameters_type.model_fields.values())
    assert metric.kinds <= {Forward.kind, MaskedForward.kind}


BETTER = {
    "faithfulness/srg": True,
    "faithfulness/naive": True,
    "faithfulness/deletion_auc": False,
    "faithfulness/insertion_auc": True,
    "localization/pointing_game": True,
    "localization/iosr": True,
    "class_sensitivity": True,
    "robustness": True,
}


def test_all_there_are():
    better = {name: metric.higher_is_better for name, metric in installed_metrics().items()}
    assert better.items() >= BETTER.items()


@CASES
@CHANNELS
def test_the_same_at_every_batch_size_in_its_range(metric, parameters, explainer, channels):
    asked = instance(1, channels, explainer)
    alone = drive(metric.measure(asked, parameters), Toy(channels).run)
    assert alone.status is ScoreStatus.OK
    assert metric.value_range[0] <= alone.value <= metric.value_range[1]
    for size in range(1, 8):
        assert drive(metric.measure(asked, parameters), in_batches(Toy(channels).run, size)) == alone
        assert drive_all([metric.measure(asked, parameters)], Toy(channels).run, size) == [alone]


@CASES
def test_the_same_however_masks_are_chunked(metric, parameters, explainer, monkeypatch):
    whole = drive(metric.measure(instance(1, how=explainer), parameters), Toy(3).run)
    for masks in (1, 4):
        monkeypatch.setattr(masks_module, "_CHUNK_BYTES", masks * 4 * HEIGHT * WIDTH)
        toy = Toy(3)
        assert drive(metric.measure(instance(1, how=explainer), parameters), toy.run) == whole
        if MaskedForward.kind in metric.kinds:
            assert max(count for _, count in toy.launches) == masks


@CASES
def test_the_passes_it_announces_are_those_it_takes(metric, parameters, explainer):
    asked = instance(2, how=explainer)
    steps = metric.measure(asked, parameters)
    rows, kinds, sent = 0, set(), None
    try:
        while True:
            work = steps.send(sent)
            assert not isinstance(work, Partial), "there is nothing to show of half a score"
            rows += len(work.rows[0])
            kinds.add(work.kind)
            sent = work.result(Toy(3).run(work.kind, work.rows))
    except StopIteration:
        pass
    assert rows == metric.pass_count(parameters, facts(), asked.call)
    explaining = {asked.call.explainer.kind(asked.call.parameters)} if Need.EXPLAINER in metric.needs else set()
    assert kinds == metric.kinds | explaining
    assert (rows == 0) is not kinds
    assert not (kinds and metric.name.startswith("localization"))


@CASES
def test_the_subject_is_left_alone(metric, parameters, explainer):
    asked = instance(3, how=explainer)
    before = asked.image.copy(), asked.saliency.copy(), asked.objects[1].copy()
    for array in (asked.image, asked.saliency, asked.objects[1]):
        array.setflags(write=False)
    first, second = (drive(metric.measure(asked, parameters), Toy(3).run) for _ in range(2))
    assert first == second
    for array, old in zip((asked.image, asked.saliency, asked.objects[1]), before, strict=True):
        np.testing.assert_array_equal(array, old)


@EVERY
def test_what_a_subject_lacks_is_the_reason(metric):
    lacks = {
        Need.SALIENCY: ({"saliency": None}, ScoreStatus.NO_SALIENCY),
        Need.OBJECTS: ({"objects": []}, ScoreStatus.NO_OBJECTS),
        Need.EXPLAINER: ({"call": None}, ScoreStatus.NO_EXPLAINER),
    }
    for need, (lack, status) in lacks.items():
        score = drive(metric.measure(instance(1, **lack), few(metric)), Toy(3).run)
        assert score.status is (status if need in metric.needs else ScoreStatus.OK)


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_has_no_score(metric, value):
    asked = instance(1)
    asked.saliency[3, 4] = value
    toy = Toy(3)
    score = drive(metric.measure(asked, few(metric)), toy.run)
    assert score.status is (
        ScoreStatus.MAP_NOT_FINITE if Need.SALIENCY in metric.needs else ScoreStatus.OK  # it makes maps of its own
    )
    assert not toy.launches or Need.EXPLAINER in metric.needs


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("explainer", ["gradient", "occlusion"])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_output_that_is_not_finite_has_no_score(metric, value, explainer):
    def broken(kind, rows):
        return tuple(np.full_like(output, value) for output in Toy(3).run(kind, rows))

    score = drive(metric.measure(instance(1, how=explainer), few(metric)), broken)
    if not metric.kinds and Need.EXPLAINER not in metric.needs:  # it does not look at the output
        assert score.status is ScoreStatus.OK
    elif metric.name == "robustness":
        assert score.status is ScoreStatus.MAP_NOT_FINITE
    else:
        assert score.status is ScoreStatus.OUTPUT_NOT_FINITE


@EVERY
def test_a_model_that_does_not_react(metric):
    statuses = {
        "faithfulness/naive": ScoreStatus.OUTPUT_CONSTANT,
        "class_sensitivity": ScoreStatus.OUTPUT_CONSTANT,
        "robustness": ScoreStatus.MAP_ZERO,
    }
    score = drive(metric.measure(instance(1), few(metric)), Toy(3, scale=0).run)
    assert score.status is statuses.get(metric.name, ScoreStatus.OK)
    if metric.name.endswith("auc"):
        assert score.value == pytest.approx(1 / CLASSES)


@EVERY
def test_a_target_that_the_model_does_not_have(metric):
    asked = Instance(instance(1).image, CLASSES, instance(1).saliency)
    if metric.name.startswith("faithfulness"):
        with pytest.raises(TargetError) as caught:
            drive(metric.measure(asked, few(metric)), Toy(3).run)
        assert caught.value.field == "target"


def test_what_is_random_hangs_on_its_seed():
    names = list(BETTER)

    def scores(how, noise_seed):
        for metric in map(installed_metrics().get, names):
            asked = instance(1, call=how)
            yield drive(metric.measure(asked, few(metric), Context(seed=noise_seed)), Toy(3).run).value

    base = dict(zip(names, scores(method("rise", 5), 0), strict=True))
    assert dict(zip(names, scores(method("rise", 5), 0), strict=True)) == base
    other_noise = dict(zip(names, scores(method("rise", 5), 1), strict=True))
    assert {name for name in names if other_noise[name] != base[name]} == {"robustness"}
    other_masks = dict(zip(names, scores(method("rise", 6), 0), strict=True))
    assert {name for name in names if other_masks[name] != base[name]} == {"robustness", "class_sensitivity"}


# ------------------------------------------------------------------------------------------------ many at once


def many():
    """Subjects of which some lack something, explained in all ways."""
    lacking = [{}, {"objects": []}, {"saliency": None}, {"call": None}]
    return [
        instance(seed, how=how, **lack)
        for seed, (how, lack) in enumerate(zip(installed_explainers(), itertools.cycle(lacking), strict=False))
    ]


@pytest.mark.parametrize("size", [1, 2, 5, 7, 64])
def test_all_at_once_are_those_of_one_by_one(size):
    chosen = list(installed_metrics().values())
    parameters = {metric.name: few(metric) for metric in chosen}
    toy = Toy(3)
    table = measure_all(chosen, many(), toy.run, size, parameters=parameters)
    assert list(table.scores) == list(installed_metrics())
    for metric in chosen:
        alone = [drive(metric.measure(asked, few(metric)), Toy(3).run) for asked in many()]
        assert list(table.scores[metric.name]) == alone
    assert {count for _, count in toy.launches} == {size}


def test_launches_are_full():
    chosen = list(installed_metrics().values())
    parameters = {metric.name: few(metric) for metric in chosen}
    instances = [instance(seed, how="rise") for seed in range(10)]
    passes = sum(b.pass_count(parameters[b.name], facts(), instances[0].call) for b in chosen) * len(instances)
    toy = Toy(3)
    measure_all(chosen, instances, toy.run, 16, parameters=parameters)
    assert len(toy.launches) * 16 < 1.03 * passes


@pytest.mark.parametrize("seed", [0, 1])
def test_in_the_engine_at_the_lowest_priority(seed):
    engine = Engine(lambda: Toy(3))
    engine.start(lambda backend: KINDS).result(20)
    try:
        asked = [(b, instance(seed, how=how)) for b in installed_metrics().values() for how in ("rise", "gradcam")]
        jobs = [engine.submit(b.measure(who, few(b)), Lane.EVALUATE) for b, who in asked]
        for job, (metric, who) in zip(jobs, asked, strict=True):
            completed = job.result(60)
            assert completed.value == drive(metric.measure(who, few(metric)), Toy(3).run)
            assert completed.pass_count == metric.pass_count(few(metric), facts(), who.call)
    finally:
        assert engine.close(20)
