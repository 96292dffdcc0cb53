"""The pointing game and IoSR on paper and against plain loops; boxes and masks of any shape."""

import numpy as np
import pytest

from xai_sidecar.engine.work import drive
from xai_sidecar.metrics.base import ScoreStatus
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.localization import Iosr, IosrParameters, PointingGame, PointingGameParameters
from xai_sidecar.metrics.objects import dilated, union


def located(benchmark, saliency, objects, parameters=None, channels=3):
    saliency = np.asarray(saliency)
    subject = Instance(np.zeros((channels, *saliency.shape), np.float32), 0, saliency, objects=objects)

    def run(kind, rows):
        raise AssertionError("no passes are needed")

    return drive(benchmark.measure(subject, parameters or benchmark.parameters_type()), run)


def pointing(saliency, objects, tolerance=15):
    return located(PointingGame(), saliency, objects, PointingGameParameters(tolerance=tolerance))


def iosr(saliency, objects, threshold=0.5):
    return located(Iosr(), saliency, objects, IosrParameters(threshold=threshold))


def peak(height, width, row, column):
    saliency = np.zeros((height, width), np.float32)
    saliency[row, column] = 1
    return saliency


def mask_of(height, width, *places):
    mask = np.zeros((height, width), bool)
    for place in places:
        mask[place] = True
    return mask


# ----------------------------------------------------------------------------------------------------- pointing


def test_a_maximum_in_its_box_hits_and_the_transposed_place_does_not():
    saliency = peak(64, 64, 10, 50)
    assert pointing(saliency, [(45, 5, 55, 15)]).value == 1
    assert pointing(saliency, [(5, 45, 15, 55)]).value == 0


@pytest.mark.parametrize(
    ("row", "column", "hits"),
    [
        (30, 40, True),
        (30, 54, True),  # 14 away
        (30, 55, False),  # 15 away
        (44, 40, True),
        (45, 40, False),
        (16, 40, True),
        (30, 25, False),
        (39, 51, True),  # √(81 + 121) = 14.2
        (39, 52, False),  # √(81 + 144) = 15
        (40, 51, True),  # √(100 + 121) = 14.9
        (41, 51, False),  # √(121 + 121) = 15.6
    ],
)
def test_the_tolerance_is_a_circle_of_15_pixels(row, column, hits):
    assert pointing(peak(60, 70, row, column), [mask_of(60, 70, (30, 40))]).value == hits
    # The same, where the object is a box of one pixel, and the frame lies on its other side.
    assert pointing(peak(60, 70, row, column).T, [(30, 40, 31, 41)]).value == hits


def test_no_tolerance_is_on_the_object():
    objects = [(2, 1, 4, 3)]
    for row, column in np.ndindex(4, 6):
        inside = 1 <= row < 3 and 2 <= column < 4
        for tolerance in (0, 1):
            assert pointing(peak(4, 6, row, column), objects, tolerance).value == inside


def test_a_tolerance_beyond_the_frame_always_hits():
    assert pointing(peak(4, 6, 3, 5), [mask_of(4, 6, (0, 0))], 4096).value == 1


@pytest.mark.parametrize(("side", "within"), [(224, 15), (112, 8), (448, 30), (28, 2), (8, 1)])
def test_without_a_tolerance_it_is_in_proportion_to_the_input(side, within):
    # One row of pixels above the peak's, and so far to the right of the object that it is as far away as said.
    saliency = peak(side, 3 * side, 3, 2 * side)
    for distance in (within - 1, within):
        objects = [(0, 3, 2 * side - distance + 1, 4)]
        score = located(PointingGame(), saliency, objects, PointingGameParameters())
        assert score.value == (distance < within or distance == 0)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 5, 15])
@pytest.mark.parametrize("seed", range(4))
def test_pointing_by_a_plain_loop(tolerance, seed):
    generator = np.random.default_rng(seed)
    for _ in range(10):
        saliency = generator.normal(0, 1, (8, 12))
        first, second = generator.random((2, 8, 12)) < 0.03
        first[generator.integers(8), generator.integers(12)] = True
        place = max(np.ndindex(8, 12), key=lambda at: saliency[at])
        away = min(np.hypot(place[0] - y, place[1] - x) for y, x in zip(*np.nonzero(first | second), strict=True))
        expected = float(away < tolerance or away == 0)
        assert pointing(saliency, [first, second], tolerance).value == expected


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 7, 40])
def test_dilation_by_a_plain_loop(distance):
    mask = np.random.default_rng(1).random((9, 14)) < 0.02
    mask[0, 13] = mask[5, 5] = True
    expected = mask.copy()
    for y, x in np.ndindex(9, 14):
        for i, j in zip(*np.nonzero(mask), strict=True):
            expected[y, x] |= (y - i) ** 2 + (x - j) ** 2 < distance**2
    np.testing.assert_array_equal(dilated(mask, distance), expected)


def test_maxima_that_are_equal_share_the_score():
    saliency = np.zeros((4, 6))
    saliency[0, 0] = saliency[0, 1] = saliency[3, 4] = saliency[3, 5] = 2
    assert pointing(saliency, [mask_of(4, 6, (3, 5))], 0).value == 0.25
    assert pointing(saliency, [mask_of(4, 6, (3, 5))], 2).value == 0.5
    assert pointing(saliency, [mask_of(4, 6, (0, 0)), mask_of(4, 6, (3, 5))], 2).value == 1


@pytest.mark.parametrize("value", [0, -1, 3])
def test_a_constant_map_points_by_chance(value):
    assert pointing(np.full((8, 12), value), [(3, 2, 9, 6)], 0).value == 0.25


# --------------------------------------------------------------------------------------------------------- IoSR


def test_iosr_on_paper():
    # Above half of 8 are 8, 6 and 5; 4 is not. Of the three, two lie in the right half.
    saliency = [[8, 4, 6, 0], [1, 2, 5, -9]]
    assert iosr(saliency, [(2, 0, 4, 2)]).value == pytest.approx(2 / 3)
    assert iosr(saliency, [(0, 0, 2, 2)]).value == pytest.approx(1 / 3)
    assert iosr(saliency, [(0, 0, 2, 2), (2, 0, 4, 2)]).value == 1
    assert iosr(saliency, [(3, 0, 4, 2)]).value == 0
    assert iosr(saliency, [(0, 0, 1, 1)], 0.75).value == 1
    assert iosr(saliency, [(0, 0, 1, 1)], 0).value == pytest.approx(1 / 6)


@pytest.mark.parametrize("threshold", [0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_iosr_by_a_plain_loop(threshold, seed):
    generator = np.random.default_rng(seed)
    saliency = generator.normal(0, 1, (8, 12)).astype(np.float32)
    first, second = generator.random((2, 8, 12)) < 0.3
    inside = region = 0
    for place in np.ndindex(8, 12):
        if saliency[place] > threshold * saliency.max():
            region += 1
            inside += first[place] or second[place]
    assert iosr(saliency, [first, second], threshold).value == inside / region


def test_iosr_of_the_best_and_the_worst_map():
    objects = mask_of(8, 12, np.s_[2:5, 3:9])
    assert iosr(objects.astype(np.float32), [objects]).value == 1
    assert iosr(1 - objects.astype(np.float32), [objects]).value == 0
    assert iosr(np.ones((8, 12)), [objects]).value == objects.mean()


@pytest.mark.parametrize("value", [0, -1])
def test_a_map_that_is_nowhere_positive_has_no_salient_region(value):
    score = iosr(np.full((8, 12), value, np.float32), [(0, 0, 4, 4)])
    assert (score.value, score.status) == (None, ScoreStatus.NOTHING_SALIENT)


# ------------------------------------------------------------------------------------------------------ objects


def test_a_box_is_its_slice():
    boxed = union([(80, 66, 223, 196)], (224, 224))
    np.testing.assert_array_equal(boxed, mask_of(224, 224, np.s_[66:196, 80:223]))


@pytest.mark.parametrize("shift", [-1e-9, 0, 1e-9])
def test_rounding_errors_of_a_box_change_nothing(shift):
    np.testing.assert_array_equal(
        union([(2 + shift, 1 + shift, 5 + shift, 3 + shift)], (4, 6)), mask_of(4, 6, np.s_[1:3, 2:5])
    )


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1.5, 0, 2.5, 1), (0, 1), (1, 2)),  # the centre on the left edge is in, that on the right one is not
        ((1.4, 0.6, 3.6, 2.6), (1, 3), (1, 4)),
        ((2.6, 1.6, 2.7, 1.9), (1, 2), (2, 3)),  # between centres
        ((-10, -10, 1, 1), (0, 1), (0, 1)),
        ((4, 3, 99, 99), (3, 4), (4, 6)),
        ((-99, -99, 99, 99), (0, 4), (0, 6)),
        ((-0.4, 0, 0.4, 1), (0, 1), (0, 1)),  # its middle is on the edge of the frame
        ((6, 0, 9, 4), (0, 0), (0, 0)),
        ((0, -3, 6, 0), (0, 0), (0, 0)),
        ((-5, 0, -0.2, 4), (0, 0), (0, 0)),
        ((6.6, 1, 6.7, 2), (0, 0), (0, 0)),
    ],
)
def test_boxes_in_the_frame_partly_and_not_at_all(box, rows, columns):
    np.testing.assert_array_equal(union([box], (4, 6)), mask_of(4, 6, np.s_[slice(*rows), slice(*columns)]))
    np.testing.assert_array_equal(union([np.array(box)], (4, 6)), union([box], (4, 6)))
    np.testing.assert_array_equal(union([list(box)], (4, 6)), union([box], (4, 6)))


def test_a_mask_of_any_shape():
    y, x = np.mgrid[:40, :60]
    ring = abs(np.hypot(y - 20, x - 30) - 12) < 2
    assert pointing(peak(40, 60, 20, 30), [ring], 5).value == 0
    assert pointing(peak(40, 60, 20, 30), [ring], 15).value == 1
    assert pointing(peak(40, 60, 20, 42), [ring], 0).value == 1
    assert iosr(ring * 1.0, [ring]).value == 1


@pytest.mark.parametrize("benchmark", [PointingGame(), Iosr()], ids=lambda b: b.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_objects_outside_the_frame(benchmark, channels):
    saliency = np.random.default_rng(0).random((8, 12))
    outside = [(12, 0, 20, 8), (0, -9, 12, 0), np.zeros((8, 12), bool)]
    score = located(benchmark, saliency, outside, channels=channels)
    assert (score.value, score.status) == (None, ScoreStatus.OBJECTS_OUTSIDE)
    box = (3, 2, 9, 6)
    assert located(benchmark, saliency, [*outside, box]) == located(benchmark, saliency, [box])
    assert located(benchmark, saliency, [(9, 6, 40, 40)]) == located(benchmark, saliency, [(9, 6, 12, 8)])
