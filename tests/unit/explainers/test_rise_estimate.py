"""The estimate's sums, which are made in pieces so that no thread waits for Python's lock."""

import numpy as np
import pytest

from xai_sidecar.explainers import rise_estimate
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
