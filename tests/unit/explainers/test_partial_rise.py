"""The maps that RISE and RISEPlus could hand out while they are in progress."""

import numpy as np
import pytest

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Partial, drive
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import MapStatus, ModelFacts, PassCounts
from xai_sidecar.explainers.rise import Rise, RisePlus
from xai_sidecar.explainers.rise_estimate import PlainMean, Regression

ESTIMATORS = pytest.mark.parametrize("estimator", ["regression", "plain"])
RISES = pytest.mark.parametrize("explainer", [Rise(), RisePlus()], ids=["rise", "rise_plus"])

SQUARE = np.ones((1, 28, 28), np.float32)


def ids(*targets):
    return np.array(targets, np.int32)


def resolved(explainer, height, width, **values):
    return explainer.resolve(explainer.parameters_type(**values), ModelFacts(height, width, has_ood=True))


def threshold_model(inputs):
    """Sure of itself when enough of a corner and of the middle is there; no bit linear."""
    corner, middle = inputs[:, 0, :8, :8].mean(axis=(1, 2)), inputs[:, 0, 12:20, 12:22].mean(axis=(1, 2))
    return np.stack([12 * (corner - 0.5) + 20 * corner * (middle - 0.4), np.zeros(len(inputs))], axis=1)


def likeness(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@RISES
@ESTIMATORS
def test_a_partial_map_is_the_map_of_so_many_masks(explainer, estimator, watch):
    more = 2 if isinstance(explainer, RisePlus) else 0
    parameters = resolved(explainer, 28, 28, mask_count=150, estimator=estimator)
    final, partials, _ = watch(explainer, threshold_model, SQUARE, ids(0, 1), parameters, seed=5)
    assert list(partials) == [more + count for count in (8, 32, 64, 96, 128)]
    for rows, partial in partials.items():
        fewer = parameters.model_copy(update={"masks": rows - more})
        alone, _, works = watch(explainer, threshold_model, SQUARE, ids(0, 1), fewer, seed=5)
        assert sum(len(work.rows[0]) for work in works) == rows
        np.testing.assert_array_equal(partial.maps, alone.maps)
        np.testing.assert_array_equal(partial.standard_errors, alone.standard_errors)
        few = rows - more < 32
        told = tuple(MapStatus.UNRELIABLE if few or error > 0.7 else MapStatus.OK for error in partial.standard_errors)
        assert partial.statuses == alone.statuses == told
        assert (partial.maps != final.maps).any()


@RISES
@ESTIMATORS
@pytest.mark.parametrize("tolerance", [0, 0.15])
def test_asking_for_partial_maps_changes_nothing(explainer, estimator, tolerance, watch):
    parameters = resolved(explainer, 28, 28, mask_count=1000, estimator=estimator, tolerance=tolerance)
    often, partials, asked_works = watch(explainer, threshold_model, SQUARE, ids(0, 1), parameters, seed=3)
    never, _, works = watch(explainer, threshold_model, SQUARE, ids(0, 1), parameters, seed=3, asked=lambda rows: False)
    assert len(partials) > 3
    assert len(asked_works) == len(works)
    np.testing.assert_array_equal(often.maps, never.maps)
    np.testing.assert_array_equal(often.standard_errors, never.standard_errors)


def test_partial_maps_are_passed_over_by_who_does_not_want_them(watch):
    parameters = resolved(Rise(), 28, 28, mask_count=100)

    def run(kind, rows):
        return (np.asarray(threshold_model(masked(*rows)), np.float32),)

    driven = drive(Rise().explain(SQUARE, ids(0), parameters), run)
    np.testing.assert_array_equal(driven.maps, watch(Rise(), threshold_model, SQUARE, ids(0), parameters)[0].maps)


@ESTIMATORS
def test_partial_maps_grow_like_the_final_one(estimator, watch):
    counts = (32, 128, 512, 2048)
    parameters = resolved(Rise(), 28, 28, mask_count=8192, estimator=estimator)
    alike, errors = [], []
    for seed in range(4):
        final, partials, _ = watch(
            Rise(), threshold_model, SQUARE, ids(0), parameters, seed=seed, asked=lambda rows: rows in counts
        )
        alike.append([likeness(partials[count].maps, final.maps) for count in counts])
        errors.append([float(partials[count].standard_errors[0]) for count in counts[1:]])
    growth = np.mean(alike, axis=0)
    assert (np.diff(growth) > 0).all()
    assert growth[0] > 0.3
    assert growth[-1] > 0.95
    # Four times the masks, half the error; the regression's prior makes it a little less than that.
    np.testing.assert_allclose(np.mean(errors, axis=0)[:-1] / np.mean(errors, axis=0)[1:], 2, rtol=0.25)


@pytest.mark.parametrize("kind", [Regression, PlainMean])
def test_an_estimate_is_made_once_for_each_number_of_masks(kind, monkeypatch, answered):
    made, estimate = [], kind.estimate

    def counted(self):
        made.append(1)
        return estimate(self)

    monkeypatch.setattr(kind, "estimate", counted)
    name = "plain" if kind is PlainMean else "regression"
    # Out of reach: the error is looked at once, after 128 masks.
    parameters = resolved(Rise(), 28, 28, mask_count=150, estimator=name, tolerance=1e-6)
    steps = Rise().explain(SQUARE, ids(0), parameters)
    calls, sent, partial = [], None, None
    try:
        while True:
            step = steps.send(sent)
            sent = None
            if isinstance(step, Partial):
                partial = step
                np.testing.assert_array_equal(partial.make().maps, partial.make().maps)
                calls.append(len(made))
            else:
                if partial:  # also while the next masks are in progress
                    partial.make()
                    assert len(made) == calls[-1]
                sent = answered(threshold_model, step)
    except StopIteration:
        pass
    assert calls == [1, 2, 3, 4, 5]
    assert len(made) == 6


@RISES
@ESTIMATORS
def test_partial_maps_are_normalised_and_judged_like_the_final_one(explainer, estimator, watch):
    def model(inputs):
        logits = np.zeros((len(inputs), 3))
        logits[:, 0] = inputs[:, 0, :9, :9].mean(axis=(1, 2))
        logits[:, 1] = np.where(np.arange(len(inputs)) == 3, np.nan, 1)
        return logits

    raw, normal = (
        resolved(explainer, 28, 28, mask_count=64, estimator=estimator, normalization=how) for how in ("none", "max")
    )
    plain, scaled = (
        next(iter(watch(explainer, model, SQUARE, ids(0, 1), how, sigmoid)[1].values())) for how in (raw, normal)
    )
    assert scaled.statuses == plain.statuses == (MapStatus.UNRELIABLE, MapStatus.NOT_FINITE)  # of 8 masks
    np.testing.assert_allclose(scaled.maps[0], plain.maps[0] / np.abs(plain.maps[0]).max(), rtol=1e-6)
    assert scaled.maps.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ({"mask_count": 16}, (8, 16, 16)),
        ({"mask_count": 32}, (8, 32, 32)),
        ({"mask_count": 100}, (8, 100, 100)),
        ({"mask_count": 100, "tolerance": 0.5}, (8, 100, 100)),
        ({"mask_count": 1000, "tolerance": 0.5}, (8, 128, 1000)),
        ({"mask_count": 300, "tolerance": 1e-6}, (8, 128, 300)),
    ],
)
def test_rise_announces_its_passes(values, counts, watch):
    for explainer, more in ((Rise(), 0), (RisePlus(), 2)):
        # 112 x 112 pixels: fewer masks at a time than are drawn at a time.
        for side in (28, 112):
            parameters = resolved(explainer, side, side, **values)
            told = explainer.pass_counts(3, parameters, ModelFacts(side, side, has_ood=True))
            assert told == PassCounts(*(more + count for count in counts))
            image = np.ones((1, side, side), np.float32)
            _, partials, works = watch(
                explainer, linear_in_one_cell, image, ids(0), parameters, sigmoid, asked=lambda rows: False
            )
            rows = sum(len(work.rows[0]) for work in works)
            assert rows == (told.least if values.get("tolerance") == 0.5 else told.most)
            assert min(partials, default=rows) == told.first


def linear_in_one_cell(inputs):
    """A map that is known well after 128 masks."""
    return inputs[:, :, : inputs.shape[2] // 4, : inputs.shape[3] // 4].mean(axis=(1, 2, 3))[:, None] - 0.5
