"""Numbers of maps against answers by hand."""

import numpy as np
import pytest

from xai_sidecar.evaluator.drift.shape import gini, shape_of


def dot(row, column, side=16):
    saliency = np.zeros((side, side), np.float32)
    saliency[row, column] = 3
    return saliency


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 1, 1, 1], 0), ([0, 0, 0, 5], 0.75), ([0, 0, 2, 2], 0.5), ([[1, 3], [0, 0]], 0.625)],
)
def test_gini(values, expected):
    """[0, 0, 1, 3]: 1 - 2 (1/4 · 1.5/4 + 3/4 · 0.5/4) = 0.625."""
    assert gini(np.array(values, float)) == pytest.approx(expected)


def test_gini_is_half_the_relative_mean_difference():
    values = np.random.default_rng(0).exponential(size=50)
    differences = np.abs(values[:, np.newaxis] - values).mean()
    assert gini(values) == pytest.approx(differences / (2 * values.mean()))


def test_where_a_single_pixel_is():
    shape = shape_of(dot(8, 3))
    assert shape.concentration == pytest.approx(1 - 1 / 256)
    assert (shape.centre_x, shape.centre_y) == pytest.approx((3.5 / 16, 8.5 / 16))
    assert shape.border == 0


@pytest.mark.parametrize(
    ("row", "column", "part"), [(1, 8, 1), (2, 8, 0), (13, 8, 0), (14, 8, 1), (8, 1, 1), (8, 15, 1), (0, 0, 1)]
)
def test_the_border_is_an_eighth_wide(row, column, part):
    assert shape_of(dot(row, column)).border == pytest.approx(part)


def test_mass_is_what_lies_above_the_mean():
    """Of [0, 0, 4, 8] the mean is 3: 1/6 of the mass lies in one row and 5/6 in the next."""
    shape = shape_of(np.array([[0], [0], [4], [8]], np.float32))
    assert shape.centre_y == pytest.approx(2.5 / 4 / 6 + 3.5 / 4 * 5 / 6)


@pytest.mark.parametrize(("scale", "offset"), [(1e-20, 0), (1e20, 0), (5, 100), (1, -0.5)])
def test_neither_scale_nor_offset_matters(scale, offset):
    saliency = np.random.default_rng(1).standard_normal((20, 30)).astype(np.float32)
    one, two = shape_of(saliency), shape_of((saliency * scale + offset).astype(np.float32))
    for name in ("concentration", "centre_x", "centre_y", "border"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), abs=1e-4)
    np.testing.assert_allclose(one.coarse, two.coarse, atol=1e-4)


@pytest.mark.parametrize("value", [0, 1, -7e-12, np.nan, np.inf])
def test_a_map_that_is_the_same_all_over_has_no_shape(value):
    assert shape_of(np.full((8, 9), value, np.float32)) is None


def test_coarse_maps_are_means_of_cells_whose_product_is_a_correlation():
    saliency, other = np.random.default_rng(2).standard_normal((2, 32, 48)).astype(np.float32)
    cells = [each.reshape(16, 2, 16, 3).mean((1, 3)).ravel() for each in (saliency, other)]
    product = shape_of(saliency).coarse @ shape_of(other).coarse
    assert product == pytest.approx(np.corrcoef(cells)[0, 1])


def test_cells_may_differ_by_a_pixel():
    saliency = np.random.default_rng(3).standard_normal((5, 17)).astype(np.float32)
    coarse = shape_of(saliency).coarse.reshape(5, 16)
    cells = np.concatenate([saliency[:, :15], saliency[:, 15:].mean(1, keepdims=True)], 1)
    expected = cells - cells.mean()
    np.testing.assert_allclose(coarse, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_pattern_finer_than_the_cells_has_a_shape_and_no_coarse_map():
    saliency = np.indices((64, 64)).sum(0).astype(np.float32) % 2
    shape = shape_of(saliency)
    assert shape.concentration == pytest.approx(0.5)
    assert shape.coarse is None
