"""What is said of objects that lie where the picture or the model's view of it ends; shares are worked out by hand."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.evaluator.annotations import check_annotation
from xai_sidecar.evaluator.records import BoxAnnotation, Frame, MaskAnnotation, PolygonAnnotation
from xai_sidecar.imaging import Region

CROPPED = Frame(8, 8, (20, 10), Region(6.0, 1.0, 14.0, 9.0))
"""Of a picture of 20 x 10, the 8 x 8 from (6, 1) to (14, 9)."""


def box(left, top, right, bottom):
    return BoxAnnotation(left, top, right, bottom)


def polygon(left, top, right, bottom):
    """The box as a polygon."""
    return PolygonAnnotation(((left, top), (right, top), (right, bottom), (left, bottom)))


def mask(left, top, right, bottom, size=(20, 10)):
    """The box as a mask of a size."""
    pixels = np.zeros(size[::-1], np.bool_)
    pixels[top:bottom, left:right] = True
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return MaskAnnotation(file.getvalue())


def outside(warning):
    """The percentage that a warning says was not seen."""
    found = re.search(r"lies to (\d+) % outside the part of the picture that the model saw", warning)
    return int(found[1])


@pytest.mark.parametrize("shape", [box, polygon, mask])
@pytest.mark.parametrize("edges", [(6, 1, 14, 9), (8, 3, 10, 5), (2, 1, 10, 9)])
def test_at_least_half_of_it_was_seen(shape, edges):
    assert check_annotation(shape(*edges), CROPPED, 1000) == []


@pytest.mark.parametrize("shape", [box, polygon, mask])
@pytest.mark.parametrize(("edges", "unseen"), [((2, 1, 9, 9), 400 / 7), ((0, 0, 20, 10), 68)])
def test_less_than_half_of_it_was_seen(shape, edges, unseen):
    (warning,) = check_annotation(shape(*edges), CROPPED, 1000)
    assert "from (6, 1) to (14, 9)" in warning
    # Of a polygon, some points are counted.
    assert abs(outside(warning) - unseen) <= (2 if shape is polygon else 0.5)


@pytest.mark.parametrize("shape", [box, polygon, mask])
@pytest.mark.parametrize("edges", [(0, 0, 6, 10), (14, 0, 20, 10), (6, 9, 14, 10), (6, 0, 14, 1)])
def test_nothing_of_it_was_seen(shape, edges):
    (warning,) = check_annotation(shape(*edges), CROPPED, 1000)
    assert "lies outside the part of the picture that the model saw, from (6, 1) to (14, 9)" in warning


@pytest.mark.parametrize("shape", [box, polygon])
@pytest.mark.parametrize(
    ("edges", "told"),
    [
        ((6, 1, 20.4, 10), []),  # by a rounding
        ((7, 2, 25, 9), ["reaches beyond the picture of 20 x 10"]),  # of what is on it, 7 of 13 columns were seen
        ((7, -40, 13, 30), ["reaches beyond the picture of 20 x 10"]),
        ((-3, 0, 4, 5), ["reaches beyond the picture of 20 x 10", "lies outside"]),
        ((-2000, 0, 20, 10), ["reaches beyond the picture of 20 x 10", "% outside"]),
    ],
)
def test_what_reaches_beyond_the_picture(shape, edges, told):
    warnings = check_annotation(shape(*edges), CROPPED, 1000)
    assert len(warnings) == len(told)
    for part, warning in zip(told, warnings, strict=True):
        assert part in warning


def test_what_is_all_outside_is_refused_with_the_size_of_the_picture():
    for shape, edges in ((box, (20, 0, 30, 5)), (polygon, (0, 10, 5, 15)), (box, (-5, -5, 0, 5))):
        with pytest.raises(InvalidRequestError, match="outside the picture of 20 x 10"):
            check_annotation(shape(*edges), CROPPED, 1000)
    with pytest.raises(InvalidRequestError, match="the upright picture is 20 x 10"):
        check_annotation(mask(25, 0, 30, 10, size=(30, 10)), CROPPED, 1000)


def test_a_polygon_by_its_own_area_and_not_by_its_bounds():
    frame = Frame(10, 5, (10, 10), Region(5.0, 0.0, 10.0, 10.0))
    (warning,) = check_annotation(PolygonAnnotation(((0, 0), (0, 9), (9, 9))), frame, 1000)
    # Of x >= 5, the triangle from (5, 5) and (5, 9) to (9, 9); of its bounds, 4 of 9 were seen.
    assert abs(outside(warning) - 100 * (1 - 4 * 4 / (9 * 9))) <= 2


def test_a_polygon_too_thin_to_be_met_goes_by_its_bounds():
    (warning,) = check_annotation(PolygonAnnotation(((0, 0), (7, 10), (20, 0), (7, 9.999999))), CROPPED, 1000)
    assert outside(warning) == 68


def test_a_model_input_was_seen_whole():
    frame = Frame(6, 8)
    assert check_annotation(box(0, 0, 1, 1), frame, 1000) == []
    (warning,) = check_annotation(box(7, 0, 9, 6), frame, 1000)
    assert "reaches beyond the model input of 8 x 6" in warning


def test_a_view_beyond_the_picture_leaves_nothing_out():
    """As where the whole picture is scaled to fit, and the rest of the input filled."""
    frame = Frame(8, 8, (20, 10), Region(0.0, -5.0, 20.0, 15.0))
    assert check_annotation(box(0, 0, 20, 10), frame, 1000) == check_annotation(box(0, 0, 1, 1), frame, 1000) == []
