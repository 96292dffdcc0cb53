"""When the error of a map of random masks is looked at."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.explainers.looks import FIRST_LOOK, next_look


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (0.5, 200),
        (0.4, 100 * 1.6 ** (4 / 3)),
        (0.2501, 105),
        (9, 200),
        (math.inf, 125),
        (math.nan, 125),
        (0.25, 125),
        (0.1, 125),
    ],
    ids=["far", "nearer", "near", "very far", "none yet", "not a number", "waiting for another", "long good"],
)
def test_the_next_look_is_when_the_error_may_have_fallen(error, expected):
    """Of 100 masks, at a tolerance of 0.25."""
    assert next_look(100, error, 0.25) == pytest.approx(expected)


@given(st.floats(0.5, 0.8), st.floats(130, 1000))
def test_few_looks_find_when_it_is_good_enough_with_few_masks_too_many(power, needed):
    """With errors that fall as they were seen to, down to what is good enough with so many masks."""
    masks, looks = float(FIRST_LOOK), 1
    while masks < needed:
        masks = next_look(masks, (needed / masks) ** power * 0.25, 0.25)
        looks += 1
    assert masks <= 1.1 * needed
    assert looks <= 8
