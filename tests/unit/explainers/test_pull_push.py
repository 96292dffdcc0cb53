"""Pull-push against answers worked out by hand. Halving 4 pixels, the filter is (1, 0), (¾, ¼), (¼, ¾), (0, 1)."""

import numpy as np
import pytest

from xai_sidecar.explainers.pull_push import pull_push

SHAPES = pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 9), (2, 2), (3, 8), (7, 5), (16, 16), (33, 47), (224, 224)]
)


def filled(values):
    """Of one map, in which NaN is what is not known."""
    values = np.atleast_2d(np.array(values, np.float64))
    return pull_push(values[None], ~np.isnan(values))[0]


X = np.nan


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], [5]),
        ([3, X], [3, 3]),
        ([0, X, 2], [0, 1, 2]),
        # Both coarse pixels are known: 1 and 3.
        ([1, X, X, 3], [1, 1.5, 2.5, 3]),
        # Of 5 pixels the coarse ones are (0, ?, 4), so the middle is 2; their shares are (1, 0, 0), (0.6, 0.4, 0), ….
        ([0, X, X, X, 4], [0, 0.8, 2, 3.2, 4]),
        # Coarse: weights ¾ and 5/4, values 1 and (¼ + 3) / (5/4) = 13/5. Coarser: (¾ + 13/5) / (7/4) = 67/35. So the
        # first coarse one becomes ¾ + ¼ · 67/35 = 43/35, which the first pixel takes, and the third takes ¼ of it.
        ([X, 1, X, 3], [43 / 35, 1, 43 / 140 + 39 / 20, 3]),
        ([[1, X], [X, 3]], [[1, 2], [2, 3]]),
        # Coarse: (0, 2) above, below unknown and so their mean.
        ([[0, X, 2], [X, X, X], [X, X, X]], [[0, 1, 2], [0.5, 1, 1.5], [1, 1, 1]]),
    ],
)
def test_worked_out_by_hand(values, expected):
    expected = np.atleast_2d(expected)
    np.testing.assert_allclose(filled(values), expected, rtol=1e-6)
    np.testing.assert_allclose(filled(np.atleast_2d(values).T), expected.T, rtol=1e-6)


@SHAPES
def test_one_known_value_spreads_everywhere(height, width):
    for place in {(0, 0), (height // 2, width // 3), (height - 1, width - 1)}:
        values = np.full((height, width), np.nan)
        values[place] = -2.5
        np.testing.assert_allclose(filled(values), -2.5, rtol=1e-6)


@SHAPES
def test_a_constant_stays_constant_and_known_values_stay_as_they_are(height, width):
    generator = np.random.default_rng(height)
    known = generator.random((height, width)) < 0.3
    known[0, -1] = True
    np.testing.assert_allclose(filled(np.where(known, 7.0, np.nan)), 7, rtol=1e-6)
    values = generator.standard_normal((height, width))
    np.testing.assert_array_equal(filled(values), values)
    some = filled(np.where(known, values, np.nan))
    np.testing.assert_array_equal(some[known], values[known])
    assert some.min() >= values[known].min() - 1e-6
    assert some.max() <= values[known].max() + 1e-6


@SHAPES
def test_no_side_is_preferred(height, width):
    generator = np.random.default_rng(width)
    values = np.where(generator.random((height, width)) < 0.2, generator.standard_normal((height, width)), np.nan)
    values[0, 0] = 1
    expected = filled(values)
    np.testing.assert_allclose(filled(values[::-1]), expected[::-1], atol=1e-6)
    np.testing.assert_allclose(filled(values[:, ::-1]), expected[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(filled(values.T), expected.T, atol=1e-6)


def test_a_slope_is_met_between_its_samples():
    """A pixel in four, on a slope: better than the nearest sample, which is off by up to 2 pixels' worth."""
    slope = np.add.outer(np.arange(40.0), 0.5 * np.arange(60.0))
    known = np.zeros(slope.shape, bool)
    known[1::4, 2::4] = True
    inside = (slice(4, -4), slice(4, -4))
    error = np.abs(filled(np.where(known, slope, np.nan)) - slope)[inside]
    assert error.max() < 2
    assert error.mean() < 0.75


def test_maps_do_not_mix_and_the_unknown_does_not_matter():
    generator = np.random.default_rng(1)
    maps = generator.standard_normal((3, 9, 6))
    known = generator.random((9, 6)) < 0.4
    together = pull_push(np.where(known, maps, np.inf), known)
    for one, alone in zip(together, maps, strict=True):
        np.testing.assert_allclose(one, filled(np.where(known, alone, np.nan)), rtol=1e-12)


def test_nothing_known_is_an_error():
    with pytest.raises(ValueError, match="known"):
        pull_push(np.zeros((1, 3, 3)), np.zeros((3, 3), bool))
