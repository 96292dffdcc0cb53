"""RISE and RISEPlus in a precision below float32: what it does to the maps is estimated, told, and bounded."""

import numpy as np
import pytest

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Kind, MaskedForward, MaskedOodScore, Partial
from xai_sidecar.explainers.base import Context, ModelFacts, PassCounts
from xai_sidecar.explainers.discovery import built_in_explainers
from xai_sidecar.explainers.rise import Rise, RisePlus

REDUCED = {kind: Kind(kind.name, precision="bfloat16") for kind in (MaskedForward.kind, MaskedOodScore.kind)}
FACTS = ModelFacts(28, 28, has_ood=True, reduced=REDUCED)
IMAGE = np.ones((1, 28, 28), np.float32)
TARGETS = np.array([0, 1], np.int32)

RISES = pytest.mark.parametrize("explainer", [Rise(), RisePlus()], ids=["rise", "rise_plus"])


def identity(logits):
    return logits


def scores(inputs):
    corner, middle = inputs[:, 0, :10, :10].mean(axis=(1, 2)), inputs[:, 0, 12:24, 12:24].mean(axis=(1, 2))
    return np.stack([corner, middle], axis=1)


def rounded(inputs):
    """As `scores`, with an error in the first class of a tenth of its variation, and in the second of a fiftieth."""
    return scores(inputs) * np.array([1.1, 0.98], np.float32)


def parameters_of(explainer, **values):
    return explainer.resolve(explainer.parameters_type(**values), FACTS)


def run(explainer, parameters, reduced=rounded, context=None, net=scores):
    """Runs an explainer on a net that rounds as a function does; returns the map, and the rows of each precision."""
    context = context or Context(identity, 4, reduced=explainer.reduced(parameters, FACTS))
    steps = explainer.explain(IMAGE, TARGETS, parameters, context)
    rows, partials, sent = {"": 0, "bfloat16": 0}, [], None
    try:
        while True:
            work = steps.send(sent)
            if isinstance(work, Partial):
                partials.append(work.make())
                sent = None
                continue
            inputs = masked(*work.rows)
            rows[work.kind.precision] += len(inputs)
            logits = np.asarray((reduced if work.kind.precision else net)(inputs), np.float32)
            inlier = inputs.mean(axis=(1, 2, 3))
            sent = work.result((inlier, inlier, logits) if "ood" in work.kind.name else (logits,))
    except StopIteration as stop:
        return stop.value, rows, partials


@RISES
@pytest.mark.parametrize("estimator", ["regression", "plain"])
def test_the_error_of_the_precision_is_found_and_told(explainer, estimator):
    parameters = parameters_of(explainer, masks=600, estimator=estimator)
    plain, _, _ = run(explainer, parameters, context=Context(identity, 4))
    mixed, rows, _ = run(explainer, parameters)
    more = 2 if isinstance(explainer, RisePlus) else 0
    assert rows == {"": more + 8 + 24, "bfloat16": 24 + 568}
    assert explainer.pass_counts(2, parameters, FACTS) == PassCounts(more + 8, more + 624, more + 624)
    assert mixed.rounding.precision == "bfloat16"
    np.testing.assert_allclose(mixed.rounding.errors, [0.1, 0.02], rtol=1e-3)
    # The maps are those of float32 scores but for the factor of 568 of the 600 masks.
    made = (mixed.maps - plain.maps).reshape(2, -1).std(axis=1) / plain.maps.reshape(2, -1).std(axis=1)
    np.testing.assert_allclose(made, [0.1 * 568 / 600, 0.02 * 568 / 600], rtol=0.1)
    both = np.hypot(plain.standard_errors, mixed.rounding.errors)
    np.testing.assert_allclose(mixed.standard_errors, both, rtol=0.1)
    assert plain.rounding is None


@RISES
@pytest.mark.parametrize(
    "function",
    [
        lambda inputs: scores(inputs) * np.array([1.3, 1], np.float32),
        lambda inputs: np.full_like(scores(inputs), np.nan),
        lambda inputs: scores(inputs) * np.inf,
    ],
    ids=["coarse", "nan", "infinite"],
)
def test_a_precision_that_does_too_much_is_left(explainer, function):
    parameters = parameters_of(explainer, masks=300)
    plain, _, _ = run(explainer, parameters, context=Context(identity, 4))
    mixed, rows, _ = run(explainer, parameters, function)
    assert rows["bfloat16"] == 24
    assert mixed.rounding is None
    np.testing.assert_array_equal(mixed.maps, plain.maps)
    np.testing.assert_array_equal(mixed.standard_errors, plain.standard_errors)


@pytest.mark.parametrize(("tolerance", "used"), [(0.29, False), (0.31, True)])
def test_a_tolerance_of_fewer_than_three_errors_is_met_in_float32(tolerance, used):
    parameters = parameters_of(Rise(), masks=600, tolerance=tolerance)
    mixed, _, _ = run(Rise(), parameters)
    assert (mixed.rounding is not None) == used
    assert (mixed.standard_errors <= tolerance).all()


def test_an_error_that_all_masks_have_alike_does_nothing():
    mixed, _, _ = run(Rise(), parameters_of(Rise(), masks=300), lambda inputs: scores(inputs) + np.float32(0.5))
    np.testing.assert_allclose(mixed.rounding.errors, 0, atol=1e-5)


@pytest.mark.parametrize(("function", "used"), [(lambda inputs: 0 * scores(inputs), True), (scores, False)])
def test_scores_that_never_vary_stay_so_or_are_made_in_float32(function, used):
    mixed, _, _ = run(Rise(), parameters_of(Rise(), masks=300), function, net=lambda inputs: 0 * scores(inputs))
    assert (mixed.rounding is not None) == used
    assert not mixed.maps.any()


def test_masks_that_come_a_few_at_a_time_are_compared_all_the_same(monkeypatch):
    """As those of a large input do."""
    parameters = parameters_of(Rise(), masks=300)
    whole, _, _ = run(Rise(), parameters)
    monkeypatch.setattr("xai_sidecar.explainers.rise.masks_at_a_time", lambda pixels: 5)
    parts, rows, partials = run(Rise(), parameters)
    assert rows == {"": 32, "bfloat16": 24 + 268}
    np.testing.assert_array_equal(parts.rounding.errors, whole.rounding.errors)
    assert [partial.rounding is None for partial in partials[:7]] == [True] * 6 + [False]
    assert len(partials) > 50


@RISES
@pytest.mark.parametrize(
    "values",
    [{"masks": 255}, {"masks": 4001}, {"tolerance": 0.14}],
    ids=["few masks", "many masks", "fine tolerance"],
)
def test_where_it_is_not_worth_it_float32_is_all_there_is(explainer, values):
    parameters = parameters_of(explainer, **values)
    assert explainer.reduced(parameters, FACTS) is None
    assert explainer.pass_counts(1, parameters, FACTS) == explainer.pass_counts(1, parameters, ModelFacts(28, 28))


@RISES
def test_by_default_it_is_used_where_the_model_has_it(explainer):
    parameters = parameters_of(explainer)
    assert explainer.reduced(parameters, FACTS) == REDUCED[explainer.kind(parameters)]
    assert explainer.reduced(parameters, ModelFacts(28, 28, has_ood=True)) is None


def test_who_tells_no_standard_error_never_computes_below_float32():
    """Occlusion, gradients and Grad-CAM: nobody would see what it does to their maps."""
    others = [one for name, one in built_in_explainers().items() if name not in ("rise", "rise_plus")]
    assert len(others) >= 5
    everything = {Kind(name): Kind(name, precision="bfloat16") for name in ("masked_forward", "input_gradient")}
    for one in others:
        assert one.reduced(one.parameters_type(), ModelFacts(28, 28, reduced=everything)) is None
