"""Where reported objects lie in the model input."""

import io
import math
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from xai_sidecar.errors import InvalidRequestError, PictureError, PictureTooLargeError
from xai_sidecar.evaluator.annotations import check_annotation, regions
from xai_sidecar.evaluator.records import BoxAnnotation, Frame, MaskAnnotation, PolygonAnnotation
from xai_sidecar.imaging import InputSpec, Region, prepare
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.objects import union

PLAIN = Frame(6, 8)
"""A model input without a picture."""


def png(pixels, **options):
    """A PNG file of an array or a picture."""
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, "PNG", **options)
    return file.getvalue()


def region(shape, frame=PLAIN):
    (found,) = regions([shape], frame)
    # It is what metrics take.
    Instance(np.zeros((1, frame.height, frame.width), np.float32), 0, objects=[found])
    return found


def pixels(shape, frame=PLAIN):
    """Which pixels of the frame a shape has, as (row, column)."""
    return {(int(row), int(column)) for row, column in np.argwhere(union([region(shape, frame)], frame_of(frame)))}


def frame_of(frame):
    return frame.height, frame.width


def block(rows, columns):
    return {(row, column) for row in rows for column in columns}


def prepared(picture, spec):
    """What the net sees of a picture, (H, W), and its frame."""
    made = prepare(picture, spec)
    return made.array.mean(axis=0), Frame(spec.height, spec.width, made.picture_size, made.region)


def spec(size, resize, stretch=False, channels=3, interpolation="bilinear", letterbox=False):
    mean, std = (0.0,) * channels, (1.0,) * channels
    return InputSpec(channels, *size, *resize, stretch, interpolation, mean, std, (0.0,), letterbox)


# Height and width of the input, and of what it is cut from; the picture's width and height.
FRAMINGS = [
    pytest.param(spec((32, 32), (32, 32)), (300, 300), id="square"),
    pytest.param(spec((32, 32), (36, 36)), (300, 200), id="wide"),
    pytest.param(spec((32, 48), (40, 50)), (200, 390), id="tall"),
    pytest.param(spec((32, 48), (40, 50), stretch=True), (310, 170), id="stretched"),
    pytest.param(spec((64, 32), (70, 32), channels=1), (301, 200), id="grey"),
    pytest.param(spec((64, 64), (64, 64)), (30, 20), id="enlarged"),
    pytest.param(spec((64, 64), (64, 64), letterbox=True), (351, 200), id="whole, wide"),
    pytest.param(spec((48, 80), (48, 80), letterbox=True), (100, 130), id="whole, tall"),
]


@pytest.mark.parametrize(("how", "size"), FRAMINGS)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_box_lies_where_the_net_sees_it(how, size, mode):
    width, height = size
    box = BoxAnnotation(math.floor(width * 0.31), math.floor(height * 0.42), math.ceil(width * 0.62), height)
    picture = Image.new(mode, size)
    # The last row and column of Pillow's rectangles belong to them.
    ImageDraw.Draw(picture).rectangle((box.left, box.top, box.right - 1, box.bottom - 1), fill="white")
    seen, frame = prepared(picture, how)
    found = union([region(box, frame)], frame_of(frame))
    assert 0.05 < found.mean() < 0.7
    # A pixel whose centre lies in the box is bright; at edges that run through a centre, and at corners, half bright.
    assert seen[found].min() > 0.2
    assert seen[~found].max() < 0.8
    assert ((seen > 0.5) != found).sum() <= 0.02 * found.size


@pytest.mark.parametrize(("how", "size"), FRAMINGS)
def test_a_polygon_and_a_mask_lie_where_the_net_sees_them(how, size):
    width, height = size
    corners = [(0.35 * width, 0.1 * height), (0.7 * width, 0.45 * height), (0.3 * width, 0.8 * height)]
    large = Image.new("L", (8 * width, 8 * height))
    ImageDraw.Draw(large).polygon([(8 * x, 8 * y) for x, y in corners], fill=255)
    picture = large.resize(size, Image.Resampling.BOX)
    seen, frame = prepared(picture, how)
    by_polygon = region(PolygonAnnotation(tuple(corners)), frame)
    by_mask = region(MaskAnnotation(png(np.asarray(picture) > 127)), frame)
    for found in (by_polygon, by_mask):
        assert found.dtype == np.bool_
        assert found.shape == frame_of(frame)
        assert 0.05 < found.mean() < 0.7
        assert ((seen > 0.5) != found).sum() <= 0.02 * found.size
        assert seen[found].min() > 0.1
        assert seen[~found].max() < 0.9


@pytest.mark.parametrize(
    ("size", "cut", "stretch", "picture"),
    [((7, 9), (7, 9), True, (31, 22)), ((12, 10), (16, 13), False, (50, 33)), ((20, 20), (23, 23), False, (11, 17))],
)
def test_a_mask_has_the_pixel_under_each_centre(size, cut, stretch, picture):
    # Which is what nearest takes, in whole numbers.
    noise = np.random.default_rng(3).integers(0, 2, picture[::-1], dtype=np.uint8) * 255
    seen, frame = prepared(Image.fromarray(noise), spec(size, cut, stretch, 1, "nearest"))
    found = region(MaskAnnotation(png(noise)), frame)
    assert 0.2 < found.mean() < 0.8
    assert np.array_equal(found, seen > 0.5)


def test_a_box_on_paper():
    # Columns of 2.5 pixels from 10 on, rows of 5 from 20 on.
    frame = Frame(6, 8, (100, 80), Region(10, 20, 30, 50))
    assert region(BoxAnnotation(15, 25, 20, 45), frame) == pytest.approx((2, 1, 4, 5))
    assert pixels(BoxAnnotation(15, 25, 20, 45), frame) == block(range(1, 5), range(2, 4))
    assert pixels(BoxAnnotation(0, 0, 100, 80), frame) == block(range(6), range(8))
    assert pixels(BoxAnnotation(30, 20, 100, 80), frame) == set()


def test_without_a_picture_coordinates_are_the_model_inputs():
    assert region(BoxAnnotation(1, 2, 3.5, 4)) == (1, 2, 3.5, 4)
    assert pixels(PolygonAnnotation(((1, 2), (4, 2), (4, 5), (1, 5)))) == block(range(2, 5), range(1, 4))
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 5] = 1
    assert pixels(MaskAnnotation(png(mask))) == block(range(1, 3), [5])


def test_shapes_keep_their_order():
    found = regions(
        [BoxAnnotation(0, 0, 1, 1), MaskAnnotation(png(np.eye(6, 8, dtype=np.uint8))), BoxAnnotation(1, 1, 2, 2)], PLAIN
    )
    assert found[0] == (0, 0, 1, 1)
    assert np.array_equal(found[1], np.eye(6, 8, dtype=bool))
    assert found[2] == (1, 1, 2, 2)
    assert regions([], PLAIN) == []


def test_a_box_stays_a_box_whatever_rounding_does():
    # Neighbours among floats, where those of the frame are twice as far apart.
    frame = Frame(6, 8, (2000, 4000), Region(0, 0, 1950, 3045))
    left, top = 1000.0, 1020.0
    for _ in range(20):
        right, bottom = math.nextafter(left, math.inf), math.nextafter(top, math.inf)
        assert pixels(BoxAnnotation(left, top, right, bottom), frame) == {(2, 4)}
        left, top = right, bottom


def test_even_odd():
    # A five-pointed star drawn in one stroke: its middle is outside.
    star = [(8 + 8 * math.sin(turn * math.tau * 2 / 5), 8 - 8 * math.cos(turn * math.tau * 2 / 5)) for turn in range(5)]
    found = region(PolygonAnnotation(tuple(star)), Frame(17, 17))
    assert not found[8, 8]
    assert found[2, 7] or found[2, 8]
    # A square with a square hole, joined by a cut.
    ring = [(0, 0), (6, 0), (6, 6), (0, 6), (0, 0), (2, 2), (2, 4), (4, 4), (4, 2), (2, 2)]
    assert pixels(PolygonAnnotation(tuple(ring))) == block(range(6), range(6)) - block([2, 3], [2, 3])


def exact_inside(points, x, y):
    """Whether a point lies inside by a ray downwards, in fractions; None if it lies on an edge."""
    inside = False
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        on_line = (x1 - x0) * (y - y0) == (x - x0) * (y1 - y0)
        if on_line and min(x0, x1) <= x <= max(x0, x1) and min(y0, y1) <= y <= max(y0, y1):
            return None
        if (x0 <= x) != (x1 <= x) and y0 + (x - x0) * (y1 - y0) / (x1 - x0) > y:
            inside = not inside
    return inside


QUARTERS = st.integers(-8, 60).map(lambda number: Fraction(number, 4))
POINT = st.tuples(QUARTERS, QUARTERS)


@given(st.lists(POINT, min_size=3, max_size=12), st.sampled_from([(0, 0, 13, 9), (1, 2, 9, 7), (2, 1, 28, 19)]))
@settings(max_examples=60, deadline=None)
def test_against_a_ray_in_fractions(points, covered):
    left, top, right, bottom = covered
    frame = Frame(9, 13, (28, 19), Region(*map(float, covered)))
    found = region(PolygonAnnotation(tuple((float(x), float(y)) for x, y in points)), frame)
    expected = {
        (row, column): exact_inside(
            points,
            left + Fraction(2 * column + 1, 26) * (right - left),
            top + Fraction(2 * row + 1, 18) * (bottom - top),
        )
        for row in range(9)
        for column in range(13)
    }
    if any(expected.values()):
        assert all(found[place] == inside for place, inside in expected.items() if inside is not None)


@given(
    st.lists(st.tuples(st.integers(0, 48), st.integers(4, 36)), max_size=12),
    st.booleans(),
    st.sampled_from([1.0, 1 / 3, 0.1]),
)
@settings(max_examples=60, deadline=None)
def test_neighbours_share_no_pixel_and_leave_none_out(path, flip, scale):
    # A picture of 12 x 10 cut in two from left to right: the first row is always above the cut, the last below.
    path = [(0.0, 5.0), *((x / 4, y / 4) for x, y in path), (12.0, 4.0)]
    halves = [[(0.0, 0.0), *path, (12.0, 0.0)], [(12.0, 10.0), *reversed(path), (0.0, 10.0)]]
    if flip:
        halves = [[(y, x) for x, y in half] for half in halves]
    width, height = (10, 12) if flip else (12, 10)
    frame = Frame(height, width, (width, height), Region(0, 0, width * scale, height * scale))
    halves = [[(x * scale, y * scale) for x, y in half] for half in halves]
    upper, lower = regions([PolygonAnnotation(tuple(half)) for half in halves], frame)
    assert (upper ^ lower).all()


@pytest.mark.parametrize("covered", [Region(0, 0, 8, 6), Region(8, 6, 24, 18)])
def test_left_and_upper_edges_belong_to_a_polygon(covered):
    frame = Frame(6, 8, (24, 18), covered)
    across, down = (covered.right - covered.left) / 8, (covered.bottom - covered.top) / 6
    points = [
        (covered.left + x * across, covered.top + y * down) for x, y in [(1.5, 1.5), (4.5, 1.5), (4.5, 3.5), (1.5, 3.5)]
    ]
    for turned in (points, points[::-1], points[2:] + points[:2]):
        assert pixels(PolygonAnnotation(tuple(turned)), frame) == block([1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # Small, around (2.1, 3.2).
        ([(2.05, 3.1), (2.2, 3.2), (2.05, 3.3)], {(3, 2)}),
        # A level strip between the rows of centres 1.5 and 2.5: its middle is at 4.
        ([(1.0, 2.1), (7.5, 2.1), (7.5, 2.2), (1.0, 2.2)], {(2, 4)}),
        # A thin angle, whose centroid is off it: the middle of its longest edge, from (7.9, 0.1) to (0.1, 0.1).
        ([(0.1, 0.1), (0.1, 5.8), (0.2, 5.8), (0.2, 0.2), (7.9, 0.2), (7.9, 0.1)], {(0, 4)}),
        # A bow whose halves cancel out in the signed area: the middle of an edge that crosses another.
        ([(3.1, 3.1), (3.3, 3.3), (3.3, 3.1), (3.1, 3.3)], {(3, 3)}),
        # Small, beyond the frame.
        ([(-0.3, 3.1), (-0.1, 3.1), (-0.1, 3.3)], set()),
        ([(8.0, 5.9), (8.2, 5.9), (8.2, 6.1)], set()),
        # Large, and on the frame with less than half a pixel.
        ([(7.6, 0), (20, 0), (20, 6), (7.6, 6)], set()),
    ],
)
def test_a_polygon_between_centres(points, expected):
    assert pixels(PolygonAnnotation(tuple(points))) == expected


def test_a_mask_between_centres():
    # A frame pixel is 10 x 10 of the picture; its centre is the pixel at 5.
    frame = Frame(6, 8, (100, 80), Region(10, 20, 90, 80))
    for rows, columns, expected in [
        ([21], [12], {(0, 0)}),
        ([50, 51, 52], [33], {(3, 2)}),
        # In reading order the middle one of seven is at column 58.
        ([44], [22, 23, 24, 58, 61, 62, 63], {(2, 4)}),
        # Outside the frame it does not count, nor for the middle.
        ([5], [12], set()),
        ([21], [1, 2, 3, 4, 5, 6, 81], {(0, 7)}),
        ([19, 20], [89], {(0, 7)}),
        # If a centre is hit, there is no more.
        ([25], [12, 15, 22], {(0, 0)}),
    ]:
        mask = np.zeros((80, 100), np.uint8)
        mask[np.ix_(rows, columns)] = 1
        assert pixels(MaskAnnotation(png(mask)), frame) == expected


GREYS = np.array([[0, 1, 2, 255]], np.uint8)
ALPHA = np.array([[255, 255, 0, 1]], np.uint8)
COLOURS = np.array([[[0, 0, 0], [0, 0, 1], [2, 2, 2], [255, 0, 0]]], np.uint8)


def palette_png(**options):
    picture = Image.frombytes("P", (4, 1), bytes([0, 1, 2, 3]))
    # Index 0 is white, and index 1 is black: the colours do not matter.
    picture.putpalette([255, 255, 255, 0, 0, 0, 9, 9, 9, 8, 8, 8])
    return png(picture, **options)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (png(GREYS > 1), [0, 0, 1, 1]),
        (png(GREYS), [0, 1, 1, 1]),
        (png(GREYS, transparency=2), [0, 1, 0, 1]),
        (png(np.stack([GREYS, ALPHA], axis=2)), [0, 1, 0, 1]),
        (palette_png(), [0, 1, 1, 1]),
        (palette_png(transparency=b"\xff\xff\x00\x80"), [0, 1, 0, 1]),
        (png(GREYS.astype(np.uint16)), [0, 1, 1, 1]),
        (png(GREYS.astype(np.uint16) * 256, transparency=256), [0, 0, 1, 1]),
        (png(COLOURS), [0, 1, 1, 1]),
        (png(COLOURS, transparency=(0, 0, 1)), [0, 0, 1, 1]),
        (png(np.concatenate([COLOURS, ALPHA[..., None]], axis=2)), [0, 1, 0, 1]),
    ],
    ids=["1", "L", "L-key", "LA", "P", "P-alpha", "I16", "I16-key", "RGB", "RGB-key", "RGBA"],
)
def test_what_is_not_0_and_not_transparent_belongs_to_the_object(file, expected):
    frame = Frame(1, 4, (4, 1), Region(0, 0, 4, 1))
    check_annotation(MaskAnnotation(file), frame, 4)
    assert region(MaskAnnotation(file), frame).tolist() == [[bool(each) for each in expected]]


def test_an_orientation_in_a_mask_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2] = 1
    file = png(mask, exif=exif)
    assert Image.open(io.BytesIO(file)).getexif()[0x0112] == 6
    assert pixels(MaskAnnotation(file)) == {(1, 2)}


PICTURE = Frame(6, 8, (100, 80), Region(10, 0, 90, 80))


@pytest.mark.parametrize(
    "shape",
    [
        BoxAnnotation(0, 0, 100, 80),
        BoxAnnotation(-5, -5, 0.01, 0.01),
        BoxAnnotation(99.9, 79.9, 1e9, 1e9),
        BoxAnnotation(1, 1, 1.0001, 1.0001),
        # On the picture, though not in the frame.
        BoxAnnotation(1, 1, 2, 2),
        PolygonAnnotation(((0, 0), (1, 0), (0, 1))),
        PolygonAnnotation(((-1, -1), (0.1, -1), (0.1, 0.1))),
        PolygonAnnotation(((0, 0), (1, 1), (1, 0), (0, 1))),
        PolygonAnnotation(tuple((50 + math.cos(turn), 40 + math.sin(turn)) for turn in np.linspace(0, 6, 10_000))),
        MaskAnnotation(png(np.ones((80, 100), np.uint8))),
    ],
)
def test_shapes_that_are_right(shape):
    check_annotation(shape, PICTURE, 8_000)
    region(shape, PICTURE)


BAD_BOXES = [
    ((math.nan, 0, 1, 1), "nowhere. Give its edges in finite"),
    ((0, -math.inf, 1, 1), "nowhere"),
    ((0, 0, 1.1e9, 1), "nowhere"),
    ((5, 1, 5, 2), r"from \(5, 1\) to \(5, 2\) is empty. Left must be less"),
    ((1, 2, 5, 2), "empty"),
    ((5, 1, 4, 2), "empty"),
    ((1, 5, 2, 4), "empty"),
    ((100, 0, 120, 80), "outside the picture of 100 x 80. Give pixels from"),
    ((-5, 0, 0, 80), "outside"),
    ((0, 80, 100, 90), "outside"),
    ((0, -1, 100, 0), "outside"),
]
BAD_POLYGONS = [
    ([(0, 0), (1, 1)], "has 2 corners. Give 3 to 10,000"),
    ([], "has 0 corners"),
    ([(0, 0), (1, 0), (0, 1)] * 3334, "has 10,002 corners"),
    ([(0, 0), (1, math.nan), (0, 1)], r"Corner 1 of the polygon, \(1, nan\), is nowhere. Give x and y"),
    ([(0, 0), (1, 0), (-math.inf, 1)], "Corner 2"),
    ([(-2e9, 0), (1, 0), (0, 1)], "Corner 0"),
    ([(3, 3), (3, 3), (3, 3)], "no area: its 3 corners lie on one line. Give the corners"),
    ([(0.1, 0.3), (0.2, 0.6), (0.3, 0.9), (0.7, 2.1)], "no area"),
    ([(5, 1), (5, 9), (5, 4)], "no area"),
    ([(100, 0), (120, 0), (110, 20)], "The polygon lies outside the picture of 100 x 80"),
    ([(-3, 0), (0, 5), (-3, 9)], "outside"),
    ([(0, 80), (5, 81), (9, 80)], "outside"),
    ([(0, 0), (5, -1), (9, 0)], "outside"),
]


@pytest.mark.parametrize(("edges", "message"), BAD_BOXES)
def test_boxes_that_are_wrong(edges, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        check_annotation(BoxAnnotation(*edges), PICTURE, 8_000)
    assert caught.value.field == "box"


@pytest.mark.parametrize(("points", "message"), BAD_POLYGONS)
def test_polygons_that_are_wrong(points, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        check_annotation(PolygonAnnotation(tuple(points)), PICTURE, 8_000)
    assert caught.value.field == "polygon"


def test_without_a_picture_outside_is_outside_the_model_input():
    with pytest.raises(InvalidRequestError, match="outside the model input of 8 x 6"):
        check_annotation(BoxAnnotation(8, 0, 9, 6), PLAIN, 8_000)
    check_annotation(BoxAnnotation(7.9, 0, 9, 6), PLAIN, 8_000)


def header_only(width, height):
    """A PNG file that says how large it is, and ends within its first line."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


FULL = png(np.ones((80, 100), np.uint8))


def jpeg():
    file = io.BytesIO()
    Image.new("L", (100, 80), 255).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        (b"", PictureError, "mask's 0 bytes.* no PNG file. Send it as PNG"),
        (b"\x89PNG\r\n\x1a", PictureError, "no PNG file"),
        (jpeg(), PictureError, "no PNG file"),
        (FULL[:8], PictureError, "cannot be decoded: .*[^.]\\. Check that it was sent whole"),
        (FULL[:20], PictureError, "cannot be decoded"),
        (FULL[:60], PictureError, "cannot be decoded"),
        (FULL[:8] + bytes(200), PictureError, "cannot be decoded"),
        (header_only(100, 80), PictureError, "cannot be decoded"),
        # By the header alone: if they were decoded, they would be found broken.
        (header_only(100_000, 100_000), PictureTooLargeError, "10,000,000,000 pixels, of at most 8,000. Scale"),
        (header_only(8_001, 1), PictureTooLargeError, "8001 x 1, 8,001 pixels, of at most 8,000"),
        (header_only(80, 100), InvalidRequestError, "80 x 100, where the upright picture is 100 x 80. Send a mask"),
        (png(np.ones((6, 8), np.uint8)), InvalidRequestError, "8 x 6, where the upright picture is 100 x 80"),
        (png(np.zeros((80, 100), np.uint8)), InvalidRequestError, "No pixel of the mask is set. Set those"),
    ],
)
def test_masks_that_are_wrong(file, kind, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        check_annotation(MaskAnnotation(file), PICTURE, 8_000)
    assert type(caught.value) is kind
    assert caught.value.field == "mask_png"


@given(st.binary(max_size=60), st.integers(0, len(FULL)), st.integers(0, len(FULL)))
@settings(max_examples=200)
def test_whatever_bytes_come_the_error_is_typed(junk, start, end):
    file = FULL[:start] + junk + FULL[end:]
    try:
        check_annotation(MaskAnnotation(file), PICTURE, 8_000)
    except InvalidRequestError as error:
        assert error.field == "mask_png"
    else:
        assert region(MaskAnnotation(file), PICTURE).shape == (6, 8)


def test_what_reaches_beyond_a_picture_that_is_shown_whole():
    """A picture of 8 x 4 in the middle of an input of 8 x 8: its border belongs to no object."""
    frame = Frame(8, 8, (8, 4), Region(0, -2, 8, 6))
    left = block(range(2, 6), range(4))
    assert pixels(BoxAnnotation(-9, -9, 4, 9), frame) == left
    assert pixels(PolygonAnnotation(((-9, -9), (4, -9), (4, 9), (-9, 9))), frame) == left
    assert pixels(MaskAnnotation(png(np.arange(8) < np.full((4, 1), 4))), frame) == left
