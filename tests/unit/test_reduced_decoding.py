"""JPEGs that are decoded at a reduced scale: the same places, the same sizes, nearly the same values."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from orientations import ORIENTED
from PIL import Image

from xai_sidecar import errors, imaging
from xai_sidecar.imaging import InputSpec, read_header, reading_work
from xai_sidecar.imaging.decoding import decode_reduced
from xai_sidecar.imaging.preparing import reduction

LIMIT = 10**8
SPEC = InputSpec(3, 14, 14, 16, 16, False, "bicubic", (0.0,) * 3, (1 / 255,) * 3)


def exact(spec):
    return replace(spec, exact_decoding=True)


def scene(width, height):
    """Soft shapes, none of which is symmetrical, and a gradient that ends at the very edges."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    red = 255 * x
    green = 120 + 100 * np.sin(9 * x + 4 * y**2)
    blue = 255 * np.exp(-(((x - 0.2) / 0.1) ** 2) - ((y - 0.7) / 0.2) ** 2)
    return np.clip(np.dstack([red, green, blue]), 0, 255).astype(np.uint8)


def jpeg(array, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](array)))
    out = io.BytesIO()
    stored.save(out, "JPEG", exif=exif.tobytes(), **{"quality": 95, **options})
    return out.getvalue()


def decoded_size(data, spec):
    return decode_reduced(data, LIMIT, lambda size: reduction(size, spec)).picture.size


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize("size", [(401, 299), (395, 517), (128, 128)])
def test_upright_and_in_place(orientation, size):
    """Sides that no factor divides leave a rim, on whichever side the orientation brings it to."""
    data = jpeg(scene(*size), orientation)
    whole, reduced = (imaging.read(data, spec, LIMIT) for spec in (exact(SPEC), SPEC))
    assert reduced.picture_size == whole.picture_size == size
    assert reduced.region == whole.region
    assert decoded_size(data, SPEC)[0] < size[0]
    assert np.abs(reduced.array - whole.array).max() <= 4


@pytest.mark.parametrize("orientation", ORIENTED)
def test_a_reduced_picture_is_not_shifted(orientation):
    """By 0.2 pixels of the input, 1.5 values or more, it would be if the rim, 7 pixels of 8, were taken for a part."""
    down, across = np.meshgrid(np.arange(513), np.arange(513), indexing="ij")
    ramp = ((down * 1.3 + across) * 255 / 1180).astype(np.uint8)[..., None].repeat(3, axis=2)
    data = jpeg(ramp, orientation, quality=100)
    whole, reduced = (imaging.read(data, spec, LIMIT).array for spec in (exact(SPEC), SPEC))
    assert decoded_size(data, SPEC) == (65, 65)
    assert abs(float((reduced - whole)[:, 2:-2, 2:-2].mean())) < 0.6


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "bilinear"},
        {"interpolation": "lanczos"},
        {"stretch": True, "resize_height": 15, "resize_width": 25},
        {"letterbox": True, "resize_height": 14, "resize_width": 14},
        {"channels": 1, "mean": (0.0,), "std": (1 / 255,)},
        {"height": 10, "resize_height": 11},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(401, 299), (299, 401)])
def test_every_geometry(change, size):
    spec = replace(SPEC, **change)
    for mode, options in (("RGB", {"subsampling": 0}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True})):
        out = io.BytesIO()
        Image.fromarray(scene(*size)).convert(mode).save(out, "JPEG", quality=95, **options)
        data = out.getvalue()
        assert decoded_size(data, spec)[0] < size[0]
        whole, reduced = (imaging.read(data, each, LIMIT) for each in (exact(spec), spec))
        assert (reduced.picture_size, reduced.region) == (whole.picture_size, whole.region)
        assert np.abs(reduced.array - whole.array).max() <= 6


@pytest.mark.parametrize(
    ("size", "expected"),
    [((127, 512), (127, 512)), ((128, 512), (64, 256)), ((255, 1024), (128, 512)), ((256, 1024), (64, 256))],
)
def test_at_least_four_times_what_is_wanted(size, expected):
    assert decoded_size(jpeg(scene(*size)), SPEC) == expected


def test_the_upright_picture_counts():
    """Stretched to a flat input, a picture that is stored on its side has its pixels to spare the other way."""
    spec = replace(SPEC, stretch=True, height=8, width=32, resize_height=8, resize_width=32)
    assert decoded_size(jpeg(scene(256, 200), 6), spec) == (128, 100)
    assert decoded_size(jpeg(scene(200, 256), 6), spec) == (200, 256)


@pytest.mark.parametrize("spec", [exact(SPEC), replace(SPEC, interpolation="nearest")])
def test_at_full_scale_where_that_is_wanted(spec):
    data = jpeg(scene(400, 400))
    assert decoded_size(data, spec) == (400, 400)
    by_hand = imaging.prepare(imaging.decode(data, LIMIT), spec)
    np.testing.assert_array_equal(imaging.read(data, spec, LIMIT).array, by_hand.array)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_have_no_reduced_scale(kind):
    out = io.BytesIO()
    Image.fromarray(scene(200, 200)).save(out, kind)
    assert decoded_size(out.getvalue(), SPEC) == (200, 200)
    assert reading_work(read_header(out.getvalue(), LIMIT), SPEC) == read_header(out.getvalue(), LIMIT).work


def test_a_lossless_jpeg_has_none():
    data = jpeg(scene(400, 400))
    assert read_header(data, LIMIT).scales == (1, 2, 4, 8)
    frame = data.index(b"\xff\xc0")
    for marker in (0xC3, 0xC7, 0xCB, 0xCF):
        assert read_header(data[: frame + 1] + bytes([marker]) + data[frame + 2 :], LIMIT).scales == (1,)


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_cut_short(share):
    data = jpeg(scene(600, 500))
    with pytest.raises(errors.PictureError):
        imaging.read(data[: int(len(data) * share)], SPEC, LIMIT)


@pytest.mark.parametrize("sides", [(0, 400), (400, 0)])
@pytest.mark.parametrize("letterbox", [False, True])
def test_no_pixels(sides, letterbox):
    spec = replace(SPEC, letterbox=letterbox, resize_height=14, resize_width=14)
    data = bytearray(jpeg(scene(400, 400)))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, *sides)
    assert reading_work(read_header(bytes(data), LIMIT), spec) == 0
    with pytest.raises(errors.PictureError):
        imaging.read(bytes(data), spec, LIMIT)


def test_limits_are_of_the_full_scale():
    with pytest.raises(errors.PictureTooLargeError, match="160,000 pixels"):
        imaging.read(jpeg(scene(400, 400)), SPEC, 159_999)


def test_the_work_is_less():
    large, small = (read_header(jpeg(scene(side, side)), LIMIT) for side in (400, 100))
    assert reading_work(large, exact(SPEC)) == large.work > reading_work(large, SPEC)
    assert reading_work(small, SPEC) == small.work


def test_it_is_no_other_model():
    """What was measured, and OoD nets, hold for either: see `InputSpec.__repr__`."""
    assert repr(exact(SPEC)) == repr(SPEC)
