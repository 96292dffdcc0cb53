"""What colours mean, by the way that the viewer chose; worked out by hand."""

import numpy as np
import pytest

from xai_client.colours import ColourScale, scale_of
from xai_console.ranges import RANGE_MODES, scale_by

SIGNED = np.array([[-2.0, 0.0], [1.0, 4.0]], np.float32)
PLAIN = np.array([[1.0, 2.0], [3.0, 3.0]], np.float32)


@pytest.mark.parametrize(
    ("mode", "values", "beside", "scale"),
    [
        ("full", SIGNED, [], ColourScale(-2.0, 4.0, False, "heat")),
        ("full", PLAIN, [], ColourScale(1.0, 3.0, False, "heat")),
        ("full", PLAIN, [SIGNED], ColourScale(-2.0, 4.0, False, "heat")),
        ("symmetric", SIGNED, [], ColourScale(0.0, 4.0, True, "diverging")),
        ("symmetric", -SIGNED, [], ColourScale(0.0, 4.0, True, "diverging")),
        ("symmetric", PLAIN, [SIGNED], ColourScale(0.0, 4.0, True, "diverging")),
        ("positive", SIGNED, [], ColourScale(0.0, 4.0, False, "heat")),
        ("positive", PLAIN, [SIGNED], ColourScale(0.0, 4.0, False, "heat")),
        ("positive", -PLAIN, [], ColourScale(0.0, 0.0, False, "heat")),
    ],
)
def test_the_range_of_values(mode, values, beside, scale):
    assert scale_by(mode, values, beside) == scale


def test_a_range_of_ones_own_may_be_given_either_way_round():
    assert scale_by("own", PLAIN, own=(5.0, -1.0)) == ColourScale(-1.0, 5.0, False, "heat")
    assert scale_by("own", PLAIN, own=(-3.0, 3.0)) == ColourScale(0.0, 3.0, True, "diverging")


def test_auto_is_what_the_sdk_draws():
    for values, beside in ((SIGNED, []), (PLAIN, [SIGNED])):
        assert scale_by("auto", values, beside) == scale_of(values, beside)


@pytest.mark.parametrize("mode", RANGE_MODES)
def test_colours_can_be_chosen(mode):
    assert scale_by(mode, PLAIN, colormap="inferno").colormap == "inferno"
