"""What maps become when the weights are in disorder: the formula by hand, what is left out, and what is kept."""

import numpy as np
import pytest
from scipy import stats

from xai_sidecar.explainers.base import MapStatus, Saliency
from xai_sidecar.serving.model import WeightDependence
from xai_sidecar.serving.weight_dependence import compared, entropy, keep, kept, weight_dependence, with_kept

HALVES = np.repeat(np.float32([[0], [1]]), 50, axis=1)
QUARTERS = np.repeat(np.float32([[0, 1, 2, 3]]), 25, axis=1)


@pytest.mark.parametrize(
    ("saliency", "expected"), [(HALVES, np.log(2)), (QUARTERS, np.log(4)), (np.ones((2, 3), np.float32), 0)]
)
def test_entropy_by_hand(saliency, expected):
    assert entropy(saliency) == pytest.approx(expected)


def test_entropy_as_scipy_has_it_of_the_histogram():
    saliency = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    assert entropy(saliency) == pytest.approx(stats.entropy(np.histogram(saliency, 100)[0]))
    assert entropy(5 * saliency - 3) == pytest.approx(entropy(saliency), abs=0.02), "scale does not matter"


def explaining(*maps):
    """Runs explanations that come out as these maps, one after the other, again and again."""
    left = []

    def run(steps):
        steps.close()
        left.extend([] if left else maps)
        return Saliency(np.stack([left.pop(0)]), (MapStatus.OK,))

    return run


def logits(steps):
    steps.close()
    return np.float32([[0, 1, 0, 0]])


def found(model, learnt, disordered):
    return weight_dependence(model, logits, explaining(*learnt), explaining(*disordered))


def test_the_relative_rise_of_the_entropy_and_the_correlation(model):
    """From two values to four, log 4 / log 2 - 1 = 1, and back."""
    two, four = np.float32([[0, 1], [0, 1]]), np.float32([[0, 1], [2, 3]])
    both = found(model, [two], [four])
    assert set(both) == {name for name, setup in model.explainers.items() if compared(setup, model)}
    alike = float(np.corrcoef(two.ravel(), four.ravel())[0, 1])
    for each in both.values():
        assert (each.entropy_rise, each.correlation, each.picture_count) == (pytest.approx(1), pytest.approx(alike), 4)
    back = found(model, [four], [two])
    assert [each.entropy_rise for each in back.values()] == pytest.approx([-0.5] * len(back))


def test_a_map_that_vanishes_has_lost_all_entropy(model):
    flat = np.zeros((2, 2), np.float32)
    for each in found(model, [np.float32([[0, 1], [0, 1]])], [flat]).values():
        assert (each.entropy_rise, each.correlation) == (-1, 0)


@pytest.mark.parametrize("nothing", [0, np.nan])
def test_pictures_without_a_map_do_not_count(model, nothing):
    one, flat = np.float32([[0, 1], [0, 1]]), np.full((2, 2), nothing, np.float32)
    some = found(model, [one, flat, one, one], [one])
    assert {(each.entropy_rise, each.correlation, each.picture_count) for each in some.values()} == {(0, 1, 3)}
    assert found(model, [flat], [one]) == {}


def test_which_explainers_are_tried(make_model):
    """Those that look into the net: of few passes, and there."""
    model = make_model("explainers.gradient.enabled=false")
    tried = {name for name, setup in model.explainers.items() if compared(setup, model)}
    assert {"gradcam", "guided_backprop", "deconvolution"} <= tried
    assert not tried & {"gradient", "rise", "rise_plus"}


# ------------------------------------------------------------------------------------------------ kept

FOUND = {"gradcam": WeightDependence(0.25, -0.5, 4), "gradient": WeightDependence(-0.5, 0.0, 3)}


def test_what_was_found_is_kept_for_the_same_model(make_model, tmp_path):
    cache = f"model.compile_cache={tmp_path}/cache"
    model = make_model(cache)
    assert kept(model) == {}
    keep(model, FOUND)
    assert with_kept(make_model(cache)).weight_dependence == FOUND
    assert kept(make_model(cache, "explainers.gradcam.layer=early")) == {}, "other maps"
    assert kept(make_model(cache, "model.activation=sigmoid")) == {}, "another model"
    assert kept(make_model(cache, "explainers.rise.masks=65")) == FOUND, "what is not tried does not matter"


@pytest.mark.parametrize("text", ["", "[1]", '{"gradcam": 3}', '{"gradcam": {"entropy_rise": 1}}', "\0"])
def test_what_cannot_be_read_is_not_there(make_model, tmp_path, text):
    model = make_model(f"model.compile_cache={tmp_path}")
    keep(model, FOUND)
    (path,) = tmp_path.iterdir()
    path.write_text(text)
    assert kept(model) == {}


def test_without_a_cache_nothing_is_kept(make_model):
    model = make_model("model.compile_cache=false")
    keep(model, FOUND)
    assert kept(model) == {}
