"""Class sensitivity and robustness, which explain again: on paper and against plain loops."""

import math

import numpy as np
import pytest
from measuring import from_function

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Forward, Partial, drive
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import Computed, Context, Explainer, ExplainerParameters, MapStatus, ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.base import Score, ScoreStatus
from xai_sidecar.metrics.class_sensitivity import ClassSensitivity, ClassSensitivityParameters
from xai_sidecar.metrics.correlation import correlation, is_constant
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.robustness import Robustness, RobustnessParameters, noise


class Told(Explainer[ExplainerParameters]):
    """Returns what it is told to, after a pass and a partial map; remembers what it was asked."""

    name = "told"
    description = "-"
    parameters_type = ExplainerParameters

    def __init__(self, maps, errors=None, flaws=None):
        self.maps = maps  # (image, target) → map
        self.errors = errors or (lambda target: 0)  # target → relative standard error
        self.flaws = flaws or (lambda target: None)
        self.asked = []
        self.under_way = []

    def kind(self, parameters):
        return Forward.kind

    def _compute(self, image, targets, parameters, context):
        self.asked.append((image, targets.tolist(), context))
        yield Forward(np.stack([image] * len(targets)))
        yield Partial(lambda: 1 / 0)
        maps = np.stack([self.maps(image, target) for target in targets.tolist()])
        errors = np.array([self.errors(target) for target in targets.tolist()])
        return Computed(maps.astype(np.float32), [self.flaws(target) for target in targets.tolist()], errors)

    def explain(self, *arguments):
        steps = super().explain(*arguments)
        self.under_way.append(steps)  # known here, too, so that it does not end for want of an owner
        return steps


def logits_of(*logits):
    return lambda inputs: np.tile(np.array(logits, np.float32), (len(inputs), 1))


def subject(explainer, *, seed=0, shape=(3, 2, 3), target=0, **more):
    image = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    return Instance(image, target, call=ExplainerCall(explainer, explainer.parameters_type(), seed), **more)


@pytest.mark.parametrize("benchmark", [ClassSensitivity(), Robustness()], ids=lambda b: b.name)
def test_closing_closes_the_explanation(benchmark):
    told = Told(lambda image, target: UP)
    steps = benchmark.measure(subject(told, logits=np.array([0.3, 0.7])), benchmark.parameters_type())
    assert isinstance(next(steps), Forward)
    steps.close()
    assert [inner.gi_frame for inner in told.under_way] == [None]


# --------------------------------------------------------------------------------------------- class sensitivity


def sensitivity(explainer, model=None, activation=softmax, **more):
    model = model or logits_of(1, 5, -3, 2)
    steps = ClassSensitivity().measure(
        subject(explainer, **more), ClassSensitivityParameters(), Context(activation, 99)
    )
    return drive(steps, from_function(model))


UP = np.array([[0.0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("most", "least", "expected"),
    [
        (UP, UP, 0),
        (UP, 7 * UP - 3, 0),
        (UP, -UP, 1),
        (UP, [[0, 0, 0], [0, 0, 1]], (1 - 2.5 / math.sqrt(17.5 * 5 / 6)) / 2),
        ([[1, 0, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0]], (1 + 2 / 4) / 2),
        ([[1, -1, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0]], 0.5),
    ],
)
def test_class_sensitivity_on_paper(most, least, expected):
    told = Told(lambda image, target: np.array({1: most, 2: least}[target]))
    assert sensitivity(told).value == pytest.approx(expected, abs=1e-6)


def test_class_sensitivity_explains_once_by_the_methods_seed():
    told = Told(lambda image, target: np.roll(UP, target))
    sensitivity(told, seed=4, activation=sigmoid)
    ((_, targets, context),) = told.asked
    assert targets == [1, 2]
    assert context == Context(sigmoid, 4)


def test_logits_that_are_known_save_the_pass():
    told = Told(lambda image, target: UP * (-1) ** target)
    kinds = []

    def run(kind, rows):
        kinds.append(len(rows[0]))
        return from_function(logits_of(9, 0, 0, 0))(kind, rows)

    known = subject(told, logits=np.array([-130, -190, -170, 10], np.float32))
    score = drive(ClassSensitivity().measure(known, ClassSensitivityParameters()), run)
    assert kinds == [2]
    assert told.asked[0][1] == [3, 1]
    assert score.value == 0


def test_saturated_probabilities_are_told_apart():
    told = Told(lambda image, target: UP * (-1) ** target)
    sensitivity(told, logits_of(900, 901, -800, -801), sigmoid)
    assert told.asked[0][1] == [1, 3]


def test_class_sensitivity_of_rise_by_a_plain_loop():
    weights = np.random.default_rng(2).normal(0, 0.4, (3, 1, 8, 12)).astype(np.float32)

    def model(inputs):
        return (inputs[:, None] * weights).sum(axis=(2, 3, 4), dtype=np.float64)

    rise = installed_explainers()["rise"]
    parameters = rise.resolve(rise.parameters_type(mask_count=400, estimator="plain"), ModelFacts(8, 12))
    image = np.random.default_rng(3).normal(0, 1, (1, 8, 12)).astype(np.float32)
    asked = Instance(image, 0, call=ExplainerCall(rise, parameters, 11))
    score = drive(ClassSensitivity().measure(asked, ClassSensitivityParameters()), from_function(model))
    order = np.argsort(model(image[None])[0])
    maps = [
        drive(
            rise.explain(image, np.array([target], np.int32), parameters, Context(seed=11)), from_function(model)
        ).maps
        for target in (order[-1], order[0])
    ]
    expected = (1 - np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1]) / 2
    assert score.value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "status"),
    [
        ((3,), ScoreStatus.ONE_CLASS),
        ((3, 3, 3), ScoreStatus.OUTPUT_CONSTANT),
        ((3, np.nan, 1), ScoreStatus.OUTPUT_NOT_FINITE),
        ((3, -np.inf, 1), ScoreStatus.OUTPUT_NOT_FINITE),
    ],
)
def test_class_sensitivity_without_classes(logits, status):
    told = Told(lambda image, target: UP)
    assert sensitivity(told, logits_of(*logits)).status is status
    assert not told.asked


@pytest.mark.parametrize("flat", [0, 3])
@pytest.mark.parametrize("which", [1, 2])
def test_class_sensitivity_of_a_constant_map(flat, which):
    """Unrelated to the other one: what the score tends to however little noise the map gets."""
    told = Told(lambda image, target: 0 * UP + flat if target == which else UP)
    assert sensitivity(told).value == 0.5
    generator, scores = np.random.default_rng(0), []
    for _ in range(400):
        grain = 1e-4 * generator.normal(0, 1, UP.shape)
        nearly = Told(lambda image, target, grain=grain: flat + grain if target == which else UP)
        scores.append(sensitivity(nearly).value)
    assert np.mean(scores) == pytest.approx(0.5, abs=4 * np.std(scores) / 20)


def test_class_sensitivity_of_two_constant_maps():
    assert sensitivity(Told(lambda image, target: 0 * UP + target)).status is ScoreStatus.MAP_CONSTANT


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_class_sensitivity_of_a_map_that_is_not_finite(value):
    assert sensitivity(Told(lambda image, target: (1 + UP) * value)).status is ScoreStatus.MAP_NOT_FINITE


@pytest.mark.parametrize("which", [1, 2])
def test_class_sensitivity_of_maps_that_are_mostly_noise(which):
    """0.7 is what a map's relative standard error may be; of both maps, however sure the other one is."""

    def score(error):
        errors = {1: 0.1, 2: 0.1, which: error}
        return sensitivity(Told(lambda image, target: UP * (-1) ** target, errors.get))

    assert score(0.69).value == pytest.approx(1)
    for error in (0.71, 5, np.nan):
        assert score(error) == Score(None, ScoreStatus.MAP_UNRELIABLE)


DISBELIEVED = [
    (MapStatus.UNRELIABLE, ScoreStatus.MAP_UNRELIABLE),
    (MapStatus.NO_OOD_RANGE, ScoreStatus.MAP_NO_OOD_RANGE),
    (MapStatus.ZERO_GRADIENT, ScoreStatus.MAP_ZERO),
]


def test_what_must_not_be_believed_is_all_there_is():
    assert {flaw for flaw, _ in DISBELIEVED} | {MapStatus.NOT_FINITE} == {one for one in MapStatus if not one.believed}


@pytest.mark.parametrize(("flaw", "status"), DISBELIEVED)
@pytest.mark.parametrize("which", [1, 2])
def test_class_sensitivity_of_maps_that_must_not_be_believed(flaw, status, which):
    told = Told(lambda image, target: UP * (-1) ** target, flaws={which: flaw}.get)
    assert sensitivity(told) == Score(None, status)


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1, 1e20, 1e300])
def test_correlation_at_any_scale(scale):
    x, y = np.random.default_rng(0).normal(0, 1, (2, 8, 12))
    expected = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    assert correlation(scale * x, y) == pytest.approx(expected)
    assert correlation(y, scale * x + scale) == pytest.approx(expected)
    assert not is_constant(scale * x)


# ---------------------------------------------------------------------------------------------------- robustness


def robustness(explainer, parameters=None, noise_seed=0, **more):
    steps = Robustness().measure(
        subject(explainer, **more), parameters or RobustnessParameters(), Context(seed=noise_seed)
    )
    return drive(steps, from_function(logits_of(1, 5, -3, 2)))


def test_robustness_is_the_largest_change_of_all_draws():
    told = Told(lambda image, target: image[0] ** 2 * (target + 1))
    score = robustness(told, target=2)
    images = [image for image, _, _ in told.asked]
    assert len(images) == 11
    assert all(targets == [2] for _, targets, _ in told.asked)
    original = images[0][0].astype(np.float64) ** 2
    norm = math.sqrt(sum(value**2 for value in original.ravel()))
    changes = [
        math.sqrt(sum((a - b) ** 2 for a, b in zip((x[0].astype(float) ** 2).ravel(), original.ravel(), strict=True)))
        for x in images[1:]
    ]
    assert score.value == pytest.approx(math.exp(-max(changes) / norm), rel=1e-6)
    assert max(changes) > 1.02 * min(changes), "the test would not see a mean or the last"


def test_robustness_on_paper():
    # The map is (3, 4), of norm 5; the noisy ones lie 1, 2, 3, … beside it: exp(-10 / 5).
    moves = iter(range(11))
    told = Told(lambda image, target: np.array([[3, 4 + next(moves), 0], [0, 0, 0]]))
    assert robustness(told).value == pytest.approx(math.exp(-2))
    # The largest comes first.
    moves = iter([0, -5, 0, 0])
    assert robustness(told, RobustnessParameters(draw_count=3)).value == pytest.approx(math.exp(-1))
    assert robustness(Told(lambda image, target: UP)).value == 1


def test_the_noise_is_uniform_and_around_the_picture():
    told = Told(lambda image, target: image[0])
    robustness(told, RobustnessParameters(radius=0.5, draw_count=20), shape=(3, 40, 50))
    image = subject(told, shape=(3, 40, 50)).image
    np.testing.assert_array_equal(told.asked[0][0], image)
    noises = np.array([noisy - image for noisy, _, _ in told.asked[1:]])
    assert noises.dtype == np.float32
    assert abs(noises).max() == pytest.approx(0.5, abs=1e-4)
    assert noises.mean() == pytest.approx(0, abs=0.005)
    assert noises.std() == pytest.approx(1 / math.sqrt(12), abs=0.005)
    means = np.corrcoef(noises.reshape(20, -1))
    assert abs(means - np.eye(20)).max() < 0.1, "the draws are alike"
    channels = np.corrcoef(noises.transpose(1, 0, 2, 3).reshape(3, -1))
    assert abs(channels - np.eye(3)).max() < 0.05, "the channels are alike"


def test_the_default_radius():
    told = Told(lambda image, target: image[0])
    robustness(told)
    assert 0.043 < max(abs(noisy - told.asked[0][0]).max() for noisy, _, _ in told.asked) < 0.04501


def test_noise_hangs_on_seed_and_draw_alone():
    few, many, other = (Told(lambda image, target: image[0]) for _ in range(3))
    robustness(few, RobustnessParameters(draw_count=2, radius=0.2), noise_seed=3)
    robustness(many, RobustnessParameters(draw_count=5, radius=0.2), noise_seed=3)
    robustness(other, RobustnessParameters(draw_count=2, radius=0.2), noise_seed=4)
    for (one, _, _), (same, _, _), (another, _, _) in zip(few.asked[1:], many.asked[1:], other.asked[1:], strict=False):
        np.testing.assert_array_equal(one, same)
        assert abs(one - another).max() > 0.1
    np.testing.assert_array_equal(noise((1, 2, 3), 0.2, 3, 1), noise((1, 2, 3), 0.2, 3, 1))


def test_all_draws_have_the_methods_seed():
    told = Told(lambda image, target: image[0])
    robustness(told, noise_seed=77, seed=5)
    assert {context.seed for _, _, context in told.asked} == {5}


@pytest.mark.parametrize("name", ["rise", "rise_plus"])
@pytest.mark.parametrize("estimator", ["plain", "regression"])
def test_masks_are_common_to_all_draws(name, estimator):
    """With hardly any noise the maps hardly differ, though there are few masks; with other masks they would."""
    weights = np.random.default_rng(2).normal(0, 0.4, (3, 1, 8, 12)).astype(np.float32)

    def logits(inputs):
        return (inputs[:, None] * weights).sum(axis=(2, 3, 4), dtype=np.float64)

    def run(kind, rows):
        inputs = masked(*rows)
        scores = abs(inputs).mean(axis=(1, 2, 3))
        return (logits(inputs),) if "ood" not in kind.name else (scores, scores, logits(inputs))

    explainer = installed_explainers()[name]
    model = ModelFacts(8, 12, has_ood=True)
    parameters = explainer.resolve(explainer.parameters_type(mask_count=100, estimator=estimator), model)
    image = np.random.default_rng(3).normal(0, 1, (1, 8, 12)).astype(np.float32)

    def score(radius):
        asked = Instance(image, 1, call=ExplainerCall(explainer, parameters, 11))
        return drive(Robustness().measure(asked, RobustnessParameters(radius=radius, draw_count=3)), run).value

    assert score(1e-5) > 0.999
    assert 0.3 < score(0.2) < 0.98
    maps = [
        drive(explainer.explain(image, np.array([1], np.int32), parameters, Context(seed=seed)), run).maps
        for seed in (1, 2)
    ]
    assert math.exp(-np.linalg.norm(maps[0] - maps[1]) / np.linalg.norm(maps[0])) < 0.9


def test_robustness_does_not_go_by_the_subjects_own_map():
    told = Told(lambda image, target: image[0])
    foreign = np.random.default_rng(9).random((2, 3)).astype(np.float32)
    assert robustness(told, saliency=foreign) == robustness(told)


def test_robustness_of_a_zero_map():
    told = Told(lambda image, target: 0 * UP)
    assert robustness(told).status is ScoreStatus.MAP_ZERO
    assert len(told.asked) == 1


def test_robustness_where_the_noisy_map_is_zero():
    moves = iter([1, 0, 1])
    told = Told(lambda image, target: UP * next(moves))
    assert robustness(told, RobustnessParameters(draw_count=2)).value == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("at", [0, 1, 3])
def test_robustness_of_maps_that_are_mostly_noise(at):
    """Each map is (3, 4) and 5 long, the last one 5 beside it: exp(-5 / 5), if all of them can be believed."""

    def score(error):
        moves, errors = iter([0, 0, 0, 5]), iter(error if place == at else 0.1 for place in range(4))
        told = Told(lambda image, target: np.array([[3, 4 + next(moves), 0], [0, 0, 0]]), lambda target: next(errors))
        return robustness(told, RobustnessParameters(draw_count=3)), len(told.asked)

    value, asked = score(0.69)
    assert (value.value, asked) == (pytest.approx(math.exp(-1)), 4)
    # Nothing more is explained once it is known that there will be no score; noisy pictures are explained side by side.
    assert score(0.71) == (Score(None, ScoreStatus.MAP_UNRELIABLE), 4 if at else 1)


@pytest.mark.parametrize(("flaw", "status"), DISBELIEVED)
@pytest.mark.parametrize("at", [0, 1, 3])
def test_robustness_of_maps_that_must_not_be_believed(flaw, status, at):
    flaws = iter(flaw if place == at else None for place in range(4))
    told = Told(lambda image, target: UP, flaws=lambda target: next(flaws))
    assert robustness(told, RobustnessParameters(draw_count=3)) == Score(None, status)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_robustness_of_a_map_that_is_not_finite(value, at):
    moves = iter(value if place == at else 1 for place in range(4))
    told = Told(lambda image, target: (1 + UP) * next(moves))
    assert robustness(told, RobustnessParameters(draw_count=3)).status is ScoreStatus.MAP_NOT_FINITE
