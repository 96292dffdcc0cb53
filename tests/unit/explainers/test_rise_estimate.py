"""The estimate's sums, which are made in pieces so that no thread waits for Python's lock."""

import numpy as np
import pytest

from xai_sidecar.explainers import rise_estimate, rise_posterior
from xai_sidecar.explainers.masks import MaskGrid
from xai_sidecar.explainers.rise_estimate import Regression


@pytest.mark.parametrize("at_once", [1, 7, 64, 10**6])
@pytest.mark.parametrize("side", [2, 7])
def test_means_of_scores_and_masks_are_those_of_the_enlarged_masks(monkeypatch, side, at_once):
    """In pieces of any length: there are few shifts, so that pieces cut through equal ones."""
    monkeypatch.setattr(rise_estimate, "_CELLS_AT_ONCE", at_once * side**2)
    grid = MaskGrid(12, 14, side, 0.4)
    regression, random = Regression(grid, 2), np.random.default_rng(1)
    products, count = np.zeros((2, 12, 14)), 0
    scores = []
    for masks in grid.draw(3, 150, 50):
        enlarged, drawn = grid.enlarge(masks), random.standard_normal((len(masks), 2))
        regression.add(masks, enlarged, drawn)
        products += np.einsum("nt,nhw->thw", drawn, enlarged - 0.4)
        scores.append(drawn)
        count += len(masks)
    assert count == 150
    assert regression._mean_products(np.concatenate(scores)) == pytest.approx(products / count, abs=1e-5)


def regression_of(grid, seed, scores_of, count=64):
    regression = Regression(grid, 1)
    for masks in grid.draw(seed, count):
        enlarged = grid.enlarge(masks)
        regression.add(masks, enlarged, scores_of(enlarged))
    return regression


def corner(enlarged):
    return enlarged[:, :1, 0].astype(np.float64)


def middle(enlarged):
    return enlarged[:, 6, 6:7].astype(np.float64) ** 2


def test_what_depends_on_the_masks_alone_is_worked_out_once_for_equal_masks():
    grid = MaskGrid(12, 14, 4, 0.4)
    rise_posterior.posteriors.cache_clear()
    together = [regression_of(grid, 5, scores_of).estimate() for scores_of in (corner, middle)]
    assert rise_posterior.posteriors.cache_info().misses == 1
    regression_of(grid, 6, corner).estimate()
    regression_of(MaskGrid(14, 12, 4, 0.4), 5, corner).estimate()
    assert rise_posterior.posteriors.cache_info().misses == 3
    for scores_of, found in zip((corner, middle), together, strict=True):
        rise_posterior.posteriors.cache_clear()
        alone = regression_of(grid, 5, scores_of).estimate()
        np.testing.assert_array_equal(found.maps, alone.maps)
        np.testing.assert_array_equal(found.standard_errors, alone.standard_errors)


def test_posteriors_are_those_of_the_prior_and_the_masks():
    """The basis is a root of the prior, in which the masks' products are diagonal; pixels are added up one by one."""
    grid = MaskGrid(12, 14, 3, 0.5)
    regression = regression_of(grid, 1, corner)
    rows, columns = regression._axes
    found = rise_posterior.posteriors(12, 14, 3, regression._gram.tobytes())
    assert len(found) == len(rise_posterior.LENGTHS)
    for length, each in zip(rise_posterior.LENGTHS, found, strict=True):
        prior = np.kron(*(np.exp(-0.5 * (axis.distances / length) ** 2) for axis in (rows, columns)))
        np.testing.assert_allclose(each.basis @ each.basis.T, prior, atol=2e-6)  # what is negligible is left out
        np.testing.assert_allclose(each.basis.T @ regression._gram @ each.basis, np.diag(each.values), atol=1e-6)
        assert each.basis.shape[1] == np.count_nonzero(np.linalg.eigvalsh(prior) > 1e-6)
        for column, spread in zip(each.basis.T, each.spreads, strict=True):
            pixels = rows.pixels @ column.reshape(rows.knots, columns.knots) @ columns.pixels.T
            assert spread == pytest.approx((pixels**2).sum())
