"""Overlays of maps that are not to be relied on."""

import numpy as np
import pytest
from PIL import Image

from xai_client import Explanation, SaliencyMap
from xai_client.overlay import draw


def grey_picture(width, height, level=128):
    return Image.new("RGB", (width, height), (level, level, level))


def one_hot(height, width, row, column):
    saliency = np.zeros((height, width), np.float32)
    saliency[row, column] = 1
    return saliency


def colourfulness(image):
    """How far each pixel is from grey, (H, W)."""
    values = np.asarray(image).astype(int)
    return values.max(axis=2) - values.min(axis=2)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_what_is_unreliable_is_paler_hatched_and_says_so(level):
    """On any ground: in the seen part there are lines all over, and white letters on black in the lower left corner."""
    picture, region = grey_picture(300, 200, level), (50.0, 0.0, 250.0, 200.0)
    sure, unsure = (
        draw(picture, one_hot(8, 8, 2, 5), region, (300, 200), note=note).image for note in ("", "unreliable")
    )
    assert 0 < colourfulness(unsure).max() <= 0.75 * colourfulness(sure).max()
    seen = np.asarray(unsure.convert("L")).astype(int)[:, 50:250]
    for row in range(0, 160, 20):
        for column in range(0, 200, 20):
            spot = seen[row : row + 20, column : column + 20]
            assert spot.max() - spot.min() > 60, "no line here"
    corner = seen[180:, :60]
    assert (corner == 0).mean() > 0.4
    assert 0.03 < (corner > 230).mean() < 0.4
    np.testing.assert_array_equal(np.asarray(unsure)[:, :50], np.asarray(sure)[:, :50])
    np.testing.assert_array_equal(np.asarray(unsure)[:, 250:], np.asarray(sure)[:, 250:])


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (20, 200), (2000, 3)])
def test_where_there_is_no_room_for_words_the_hatching_stays_inside(size):
    picture = grey_picture(*size)
    assert draw(picture, np.eye(4, dtype=np.float32), None, size, note="unreliable").image.size == size


def test_an_explanation_knows_which_of_its_maps_to_doubt():
    maps = tuple(
        SaliencyMap(number, "", status, one_hot(4, 4, 1, 1), 0.9) for number, status in enumerate(["ok", "unreliable"])
    )
    both = Explanation("rise", "rise", "complete", "", maps, {}, None, 1, False, 0.0, None, (40, 40))
    sure, unsure = (np.asarray(both.overlay(grey_picture(40, 40), target=target)) for target in (0, 1))
    assert (sure != unsure).any(axis=2).mean() > 0.1
