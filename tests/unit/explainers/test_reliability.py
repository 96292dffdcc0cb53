"""Which maps are said to be unreliable: those that are noise, by an independent look at them, and no good ones."""

from typing import ClassVar

import numpy as np
import pytest

from xai_sidecar.engine.work import MaskedForward, drive
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import Computed, Context, Explainer, ExplainerParameters, MapStatus, ModelFacts
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise

IMAGE = np.ones((1, 28, 28), np.float32)
TARGET = np.array([0], np.int32)
ESTIMATORS = pytest.mark.parametrize("estimator", ["regression", "plain"])


class Made(Explainer[ExplainerParameters]):
    """An estimate that is given."""

    name: ClassVar[str] = "made"
    description: ClassVar[str] = "Nothing."
    parameters_type = ExplainerParameters

    def __init__(self, maps, flaws, errors):
        self.computed = Computed(maps, flaws, errors)

    def kind(self, parameters):
        return MaskedForward.kind

    def _compute(self, image, targets, parameters, context):
        return self.computed
        yield


def judged(maps, flaws, errors):
    errors = None if errors is None else np.array(errors, np.float32)
    made = Made(np.array(maps, np.float32).reshape(-1, 2, 2), flaws, errors)
    steps = made.explain(IMAGE[:, :2, :2], np.arange(len(maps), dtype=np.int32), ExplainerParameters())
    return drive(steps, None).statuses


RAMP, FLAT, ZERO, BROKEN = [0, 1, 2, 3], [1, 1, 1, 1], [0, 0, 0, 0], [0, np.nan, 1, 1]


def test_by_the_standard_error():
    ok, unreliable = MapStatus.OK, MapStatus.UNRELIABLE
    errors = [0, 0.5, 0.6999, 0.7001, 400, np.inf, np.nan]
    assert judged([RAMP] * 7, [None] * 7, errors) == (ok, ok, ok, unreliable, unreliable, unreliable, unreliable)
    assert judged([RAMP] * 2, [None] * 2, None) == (ok, ok)


def test_what_is_said_of_a_map_first():
    zero, flat, broken = MapStatus.ALL_ZERO, MapStatus.OK, MapStatus.NOT_FINITE
    assert judged([ZERO, FLAT, BROKEN], [None] * 3, [np.inf] * 3) == (zero, flat, broken)
    flaws = [MapStatus.UNRELIABLE, MapStatus.NO_OOD_RANGE, MapStatus.UNRELIABLE]
    assert judged([ZERO, RAMP, BROKEN], flaws, [0, 9, 0]) == (*flaws[:2], broken)


def explained(model, seed, **parameters):
    explainer = Rise()
    resolved = explainer.resolve(explainer.parameters_type(**parameters), ModelFacts(28, 28))

    def run(kind, rows):
        masks, images, _ = rows
        return (model(masks[:, np.newaxis] * images),)

    return drive(explainer.explain(IMAGE, TARGET, resolved, Context(sigmoid, seed)), run)


@ESTIMATORS
@pytest.mark.parametrize("masks", [16, 32, 64, 256])
def test_noise_is_never_said_to_be_a_map(estimator, masks):
    """A model whose answers have nothing to do with the picture."""
    for seed in range(4):
        random = np.random.default_rng(seed)

        def deaf(inputs, random=random):
            return random.standard_normal((len(inputs), 1))

        assert explained(deaf, seed, masks=masks, estimator=estimator).statuses == (MapStatus.UNRELIABLE,)


def blob(inputs):
    """Sees one spot, and is sure of itself where that is mostly there."""
    return 12 * ((inputs * SPOT).sum(axis=(1, 2, 3))[:, np.newaxis] - 0.7)


ROWS, COLUMNS = np.mgrid[:28, :28]
SPOT = np.exp(-((ROWS - 9) ** 2 + (COLUMNS - 17) ** 2) / 30)
SPOT /= SPOT.sum()


@pytest.mark.parametrize(("estimator", "masks"), [("regression", 64), ("plain", 2000)])
def test_a_map_that_is_there_is_said_to_be(estimator, masks):
    for seed in range(3):
        saliency = explained(blob, seed, masks=masks, estimator=estimator)
        assert saliency.statuses == (MapStatus.OK,)
        hottest = np.unravel_index(saliency.maps[0].argmax(), (28, 28))
        assert np.hypot(hottest[0] - 9, hottest[1] - 17) < 5


def test_with_few_masks_not_even_a_small_error_is_believed():
    few = [explained(blob, seed, masks=16, grid_size=2) for seed in range(5)]
    assert min(one.standard_errors[0] for one in few) < 0.7
    assert {one.statuses for one in few} == {(MapStatus.UNRELIABLE,)}


def test_a_whole_occlusion_is_reliable_however_few_its_windows():
    explainer = Occlusion()
    resolved = explainer.resolve(explainer.parameters_type(window_size=14, stride=14), ModelFacts(28, 28))

    def run(kind, rows):
        return (blob(rows[0][:, np.newaxis] * rows[1]),)

    context = Context(sigmoid)
    assert drive(explainer.explain(IMAGE, TARGET, resolved, context), run).statuses == (MapStatus.OK,)
