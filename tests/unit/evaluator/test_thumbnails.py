"""Pictures for those who look at samples: the whole of the upright one, and exactly what the model saw."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.errors import SidecarError
from xai_sidecar.evaluator.thumbnails import SIDE, input_png, thumbnail_jpeg
from xai_sidecar.imaging import InputSpec, prepare
from xai_sidecar.picture_units import PictureUnits

MOST = 10_000_000


def encoded(picture, kind="JPEG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def halves(width, height):
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 1000), (256, 85)), ((1000, 3000), (85, 256)), ((256, 10), (256, 10)), ((40, 30), (40, 30)),
     ((5000, 1), (256, 1))],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "pixels"])
def test_the_whole_picture_keeps_its_proportions(size, expected, kind):
    picture = halves(*size)
    source = np.asarray(picture) if kind == "pixels" else encoded(picture, kind)
    shown = opened(thumbnail_jpeg(source, MOST))
    assert (shown.format, shown.size) == ("JPEG", expected)
    assert max(shown.size) <= SIDE
    left, right = (shown.convert("RGB").getpixel((place, 0)) for place in (2, shown.width - 3))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]


def test_it_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    shown = opened(thumbnail_jpeg(encoded(halves(800, 400), exif=exif), MOST))
    assert shown.size == (128, 256)
    top, bottom = (shown.getpixel((64, place)) for place in (5, 250))
    assert top[0] > 200
    assert bottom[2] > 200


def test_grey_stays_grey():
    shown = opened(thumbnail_jpeg(np.full((300, 400, 1), 90, np.uint8), MOST))
    assert (shown.mode, shown.size) == ("L", (256, 192))


def test_what_is_no_picture_is_an_error_of_ours():
    with pytest.raises(SidecarError):
        thumbnail_jpeg(b"no picture", MOST)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_model_saw_comes_back_exactly(channels):
    """By the pixels that preparing made, which no compression may change."""
    spec = InputSpec(channels, 24, 32, 24, 32, False, "nearest", (0.45,) * channels, (0.2,) * channels)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, channels), np.uint8)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    prepared = prepare(picture, spec)
    found = np.asarray(opened(input_png(prepared.array, spec.units)))
    np.testing.assert_array_equal(found.reshape(pixels.shape), pixels)


def test_values_beyond_a_picture_are_cut_off_and_other_channels_not_shown():
    image = np.array([[[-5.0, 0.0, np.nan, 9.0]]], np.float32)
    units = PictureUnits((0.5,), (0.25,))
    assert np.asarray(opened(input_png(image, units))).tolist() == [[0, 128, 0, 255]]
    assert input_png(np.zeros((2, 3, 3), np.float32), units) == b""
