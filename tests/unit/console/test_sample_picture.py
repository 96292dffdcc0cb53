"""The picture at a step of a curve is what the metric has shown the model."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xai_client import MaskingCurve
from xai_console.sample_picture import masked
from xai_sidecar.metrics.perturbation import rise_blur
from xai_sidecar.zoo.sample import sample_picture

SIDE = 224
COLOURS = {"mean_colour": (102, 51, 204), "black": (0, 0, 0)}
INFO = SimpleNamespace(input=SimpleNamespace(height=SIDE, width=SIDE, mean_colour=(0.4, 0.2, 0.8)))


def covered(fill, side=SIDE):
    """The wholly covered photograph, (H, W, 3), and the photograph."""
    with Image.open(sample_picture("chelsea")) as picture:
        seen = picture.convert("RGB").resize((side, side))
    curve = MaskingCurve("deletion", fill, (0, side * side), (1.0, 0.0), 0, 0.5)
    return np.asarray(masked(seen, np.zeros((side, side), np.float32), curve, 1, INFO), float), np.asarray(seen, float)


@pytest.mark.parametrize("fill", COLOURS)
def test_a_colour_covers_all(fill):
    assert (covered(fill)[0] == COLOURS[fill]).all()


def test_it_is_blurred_as_rises_authors_do():
    found, seen = covered("rise_blur")
    inside = np.s_[6:-6, 6:-6]  # at the edges they take in a border of the mean colour
    right = rise_blur(seen.transpose(2, 0, 1)).transpose(1, 2, 0)[inside]
    assert abs(found[inside] - right).max() < 3  # of 255
    assert abs(seen[inside] - right).max() > 30


def test_a_picture_that_is_larger_is_blurred_by_as_much():
    small, large = covered("rise_blur")[0], covered("rise_blur", 2 * SIDE)[0]
    halved = large.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))
    assert abs(small - halved)[6:-6, 6:-6].mean() < 2
