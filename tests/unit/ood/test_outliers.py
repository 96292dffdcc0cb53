"""Outliers are what they claim to be, and the area under the curve is what counting pairs gives."""

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.ood.outliers import OUTLIERS, auroc, crops, masked, noise, shuffled


@pytest.fixture
def inputs():
    """Four pictures of 3 x 24 x 40, each channel with a brightness and a contrast of its own."""
    generator = np.random.default_rng(0)
    scale = generator.uniform(0.5, 3, (4, 3, 1, 1))
    return (generator.standard_normal((4, 3, 24, 40)) * scale + scale).astype(np.float32)


@pytest.mark.parametrize("make", OUTLIERS.values(), ids=OUTLIERS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (28, 28), (24, 40)])
def test_outliers_depend_on_the_seed_alone(make, size):
    some = np.random.default_rng(1).standard_normal((3, 2, *size)).astype(np.float32)
    before = some.copy()
    first = make(some, 5)
    assert first.shape == some.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(some, before)
    np.testing.assert_array_equal(make(some, 5), first)
    if size != (1, 1):
        assert not np.array_equal(make(some, 6), first)
        assert not np.array_equal(make(some, [5, 1]), first)


def test_noise_has_the_brightness_and_contrast_of_the_picture():
    large = np.random.default_rng(0).standard_normal((4, 3, 200, 200)).astype(np.float32) * 2 + 5
    drawn = noise(large, 0)
    np.testing.assert_allclose(drawn.mean(axis=(2, 3)), large.mean(axis=(2, 3)), atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=(2, 3)), large.std(axis=(2, 3)), atol=0.05)
    # By turns normal, which goes far out, and uniform, which ends at √3 standard deviations.
    reach = np.abs((drawn - 5) / 2).max(axis=(1, 2, 3))
    assert (reach[::2] > 3.5).all()
    assert (reach[1::2] < 1.8).all()
    assert np.abs(np.corrcoef(drawn.reshape(4, -1), large.reshape(4, -1))[:4, 4:]).max() < 0.02


def test_shuffling_moves_patches_and_leaves_them_whole(inputs):
    mixed = shuffled(inputs, 0)
    for picture, other in zip(inputs, mixed, strict=True):
        cut = [picture[:, 3 * r : 3 * r + 3, 5 * c : 5 * c + 5].tobytes() for r in range(8) for c in range(8)]
        new = [other[:, 3 * r : 3 * r + 3, 5 * c : 5 * c + 5].tobytes() for r in range(8) for c in range(8)]
        assert sorted(cut) == sorted(new)
        assert sum(a == b for a, b in zip(cut, new, strict=True)) < 10


def test_what_makes_no_whole_patch_stays_in_place():
    odd = np.arange(26 * 43, dtype=np.float32).reshape(1, 1, 26, 43)
    mixed = shuffled(odd, 0)
    np.testing.assert_array_equal(mixed[..., 24:, :], odd[..., 24:, :])
    np.testing.assert_array_equal(mixed[..., 40:], odd[..., 40:])
    assert sorted(mixed.ravel()) == sorted(odd.ravel())
    small = shuffled(np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4), 0)
    assert sorted(small.ravel()) == list(range(12))


def test_masks_cover_half_on_average_and_differ():
    ones = np.ones((200, 2, 28, 28), np.float32)
    covered = masked(ones, 0)
    assert covered.min() >= 0
    assert covered.max() <= 1
    np.testing.assert_array_equal(covered[:, 0], covered[:, 1])
    assert abs(covered.mean() - 0.5) < 0.02
    assert len({one.tobytes() for one in covered}) == 200


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    generator = np.random.default_rng(0)
    for inlier_count, outlier_count in ((1, 1), (7, 3), (40, 60)):
        for levels in (2, 5, 1000):  # few levels make many ties
            inliers = generator.integers(0, levels, inlier_count).astype(np.float32)
            outliers = generator.integers(0, levels, outlier_count).astype(np.float32)
            pairs = [(a > b) + 0.5 * (a == b) for a in inliers for b in outliers]
            assert auroc(inliers, outliers) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_the_area_at_its_ends():
    low, high = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    assert (auroc(high, low), auroc(low, high), auroc(low, low)) == (1, 0, 0.5)


def test_the_area_of_nothing_is_an_error():
    some, none = np.ones(2, np.float32), np.ones(0, np.float32)
    for inliers, outliers in ((some, none), (none, some), (some * np.nan, some)):
        with pytest.raises(ValueError, match=r"NaN|are 0|and 0"):
            auroc(inliers, outliers)


def test_crops_are_squares_out_of_the_picture():
    pixels = np.arange(60 * 90, dtype=np.uint32).reshape(60, 90)
    picture = Image.fromarray(np.stack([pixels // 256, pixels % 256, pixels * 0], axis=-1).astype(np.uint8))
    cut = crops(picture, 20, 1, smallest=0.3, largest=0.8)
    assert [one.tobytes() for one in crops(picture, 20, 1, 0.3, 0.8)] == [one.tobytes() for one in cut]
    assert len({one.tobytes() for one in cut}) == 20
    for index, one in enumerate(cut):
        assert one.width == one.height
        assert 0.3 * 60 - 1 <= one.width <= 0.8 * 60 + 1
        values = np.asarray(one).astype(int)
        places = values[..., 0] * 256 + values[..., 1]
        assert (np.diff(places, axis=1) == (-1 if index % 2 else 1)).all()
        assert (np.diff(places, axis=0) == 90).all()
    assert crops(picture, 1, 0, 1, 1)[0].size == (60, 60)
