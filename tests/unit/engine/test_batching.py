"""Putting the rows of a batch together."""

import numpy as np
import pytest

from xai_sidecar.engine.batching import joined, masked, padded
from xai_sidecar.engine.work import MaskedForward

IMAGE = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
FILL = np.array([0.1, 0.2, 0.3], np.float32)[:, None, None]


def masks(count, seed):
    return np.random.default_rng(seed).random((count, 4, 5)).astype(np.float32)


def columns(*works):
    return tuple(zip(*(work.rows for work in works), strict=True))


@pytest.mark.parametrize("fill", [0.0, 0.5, FILL], ids=["zero", "number", "colour"])
@pytest.mark.parametrize("counts", [[3], [3, 1], [2, 4, 1]], ids=str)
def test_masks_of_one_picture_are_applied_without_copies_of_it(counts, fill):
    works = [MaskedForward(IMAGE, masks(count, seed), fill) for seed, count in enumerate(counts)]
    rows = [padded(column, 8) for column in columns(*works)]
    assert [len(each) for each in rows] == [8, 8, 8]
    assert rows[1].strides[0] == 0
    given = np.concatenate([work.masks for work in works])
    expected = [IMAGE * mask + fill * (1 - mask) for mask in [*given, *[given[-1]] * (8 - len(given))]]
    np.testing.assert_allclose(masked(*rows), expected, atol=1e-6)


def test_masks_of_several_pictures_are_each_of_their_own():
    """Pictures that begin at the same place in memory, too: a crop, and the same turned round."""
    large = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
    pictures = [IMAGE, IMAGE + 1, large[:, :4, :5], np.lib.stride_tricks.as_strided(large, (3, 4, 5), (256, 4, 32))]
    works = [MaskedForward(picture, masks(2, seed)) for seed, picture in enumerate(pictures)]
    expected = np.concatenate([work.masks[:, None] * work.image for work in works])
    rows = [joined(column) for column in columns(*works)]
    np.testing.assert_allclose(masked(*rows), expected, atol=1e-6)


def test_the_last_row_is_repeated():
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert padded((rows[:1], rows[1:]), 5).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5], [4, 5]]
    assert padded((rows,), 3) is rows
