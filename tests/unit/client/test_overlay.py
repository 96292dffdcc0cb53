"""Overlays put the map where the model looked. Expected places are worked out by hand, not by the code itself."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from xai_client import ArgumentError, Explanation, ImageError, PictureSizeError, Region, SaliencyMap
from xai_client import overlay as overlays


def draw(*arguments, **more):
    return overlays.draw(*arguments, **more).image


def grey_picture(width, height, level=128):
    return Image.new("RGB", (width, height), (level, level, level))


def one_hot(height, width, row, column, value=1.0):
    saliency = np.zeros((height, width), np.float32)
    saliency[row, column] = value
    return saliency


def colourfulness(image):
    """How far each pixel is from grey, (H, W)."""
    values = np.asarray(image).astype(int)
    return values.max(axis=2) - values.min(axis=2)


def centre_of(weights):
    """Centre of mass (x, y) in pixel coordinates, where the first pixel's centre is at 0.5."""
    rows, columns = np.indices(weights.shape) + 0.5
    return (columns * weights).sum() / weights.sum(), (rows * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    ("width", "height", "region"),
    [
        (300, 100, (100.0, 0.0, 200.0, 100.0)),  # wide, centre crop
        (100, 300, (0.0, 100.0, 100.0, 200.0)),  # tall, centre crop
        (301, 200, (62.5, 12.25, 238.5, 187.75)),  # fractions
        (120, 120, (0.0, 0.0, 120.0, 120.0)),
    ],
)
def test_a_hot_corner_lands_in_that_corner_of_the_region(width, height, region):
    left, top, right, bottom = region
    cell_width, cell_height = (right - left) / 8, (bottom - top) / 8
    corners = {
        (0, 0): (left, top),
        (0, 7): (right - cell_width, top),
        (7, 0): (left, bottom - cell_height),
        (7, 7): (right - cell_width, bottom - cell_height),
    }
    for (row, column), (x, y) in corners.items():
        overlay = draw(grey_picture(width, height), one_hot(8, 8, row, column), region, (width, height))
        assert overlay.size == (width, height)
        strength = colourfulness(overlay)
        hot_row, hot_column = np.unravel_index(strength.argmax(), strength.shape)
        assert x - 1 <= hot_column < x + cell_width + 1
        assert y - 1 <= hot_row < y + cell_height + 1
        rows, columns = np.nonzero(strength > 8)
        # Interpolation reaches one cell further at most.
        assert columns.min() >= max(left - 1, x - cell_width - 1)
        assert columns.max() <= min(right, x + 2 * cell_width + 1)
        assert rows.min() >= max(top - 1, y - cell_height - 1)
        assert rows.max() <= min(bottom, y + 2 * cell_height + 1)


@pytest.mark.parametrize("region", [(50.0, 20.0, 250.0, 170.0), (50.3, 20.7, 250.9, 170.2)])
@pytest.mark.parametrize("cell", [(3, 2), (1, 5), (4, 4)])
def test_a_hot_cell_is_centred_where_that_cell_is(region, cell):
    left, top, right, bottom = region
    row, column = cell
    overlay = draw(grey_picture(300, 200), one_hot(6, 8, row, column), region, None)
    x, y = centre_of(colourfulness(overlay))
    assert x == pytest.approx(left + (column + 0.5) * (right - left) / 8, abs=0.5)
    assert y == pytest.approx(top + (row + 0.5) * (bottom - top) / 6, abs=0.5)


def test_values_between_cells_are_interpolated_linearly_before_they_are_coloured():
    # A ramp from 0 at column centre 0.5 to 1 at 3.5, enlarged 10 times: at x the level is (x / 10 - 0.5) / 3.
    ramp = np.tile(np.linspace(0, 1, 4, dtype=np.float32) * 1e-6, (2, 1))
    blended = np.asarray(draw(grey_picture(40, 20, 0), ramp, None, None, alpha=1.0, colormap="inferno")).astype(int)
    flat = np.asarray(draw(grey_picture(256, 1, 0), np.arange(256, dtype=np.float32)[None], None, None, 1.0, "inferno"))
    for column in (7, 15, 22, 30):
        level = round(255 * min(1.0, max(0.0, ((column + 0.5) / 10 - 0.5) / 3)))
        assert np.abs(blended[10, column] - flat[0, level].astype(int)).max() <= 3


def test_what_the_model_did_not_see_is_dimmed_and_the_rest_is_not():
    for level in (0, 128, 255):
        overlay = np.asarray(draw(grey_picture(30, 10, level), np.zeros((4, 4), np.float32), (10, 0, 20, 10), None))
        assert (overlay[:, 10:20] == level).all()
        outside = np.concatenate([overlay[:, :10], overlay[:, 20:]], axis=1).astype(int)
        assert (np.abs(outside - level) >= 30).all()


@pytest.mark.parametrize("turned", [False, True])
def test_an_edge_pixel_is_dimmed_by_the_share_that_was_not_seen(turned):
    size, region = ((1, 4), (0, 1.25, 1, 4)) if turned else ((4, 1), (1.25, 0, 4, 1))
    overlay = np.asarray(draw(grey_picture(*size, 255), np.zeros((2, 2), np.float32), region, None)).astype(int)
    dimmed, edge, seen = overlay.reshape(4, 3)[:3, 0]
    assert seen == 255
    assert edge == pytest.approx(0.75 * seen + 0.25 * dimmed, abs=2)


def test_a_map_goes_on_to_the_very_edge_of_its_region():
    # Nine tenths of the first pixel belong to the region: its colour is nearly that of the hot edge beside it.
    saliency = np.array([[1.0, 1.0, 0.0, 0.0]], np.float32)
    pixels = np.asarray(draw(grey_picture(40, 1), saliency, (0.1, 0, 40, 1), None)).astype(int)[0]
    bare = np.asarray(draw(grey_picture(40, 1), np.zeros((1, 4), np.float32), (0.1, 0, 40, 1), None)).astype(int)[0]
    assert np.abs(pixels[0] - (0.9 * pixels[2] + bare[0] - 0.9 * bare[2])).max() <= 3


def test_rounding_noise_in_the_region_adds_no_pixel():
    noisy = draw(grey_picture(30, 10), np.zeros((4, 4), np.float32), (10 - 1e-9, 0, 20 + 1e-9, 10), None)
    exact = draw(grey_picture(30, 10), np.zeros((4, 4), np.float32), (10, 0, 20, 10), None)
    assert np.array_equal(np.asarray(noisy), np.asarray(exact))


def test_colour_grows_with_saliency_and_the_lowest_value_stays_plain():
    overlay = draw(grey_picture(5, 1), np.array([[0.5, 0.6, 0.7, 0.8, 0.9]], np.float32), None, None)
    strength = colourfulness(overlay)[0]
    assert np.asarray(overlay)[0, 0].tolist() == [128, 128, 128]
    assert (strength[1:] > 0).all()
    assert strength[4] > strength[1]


@pytest.mark.parametrize("level", [0.0, 3.0, -3.0])
def test_scaling_a_map_does_not_change_the_picture(level):
    saliency = np.random.default_rng(1).random((4, 4)).astype(np.float32)
    plain = np.asarray(draw(grey_picture(16, 16), saliency, None, None)).astype(int)
    scaled = np.asarray(draw(grey_picture(16, 16), saliency * np.float32(1e-20), None, None)).astype(int)
    assert np.abs(plain - scaled).max() <= 1
    constant = draw(grey_picture(16, 16), np.full((4, 4), abs(level), np.float32), None, None)
    assert colourfulness(constant).max() == 0


def test_alpha_zero_is_the_picture_and_alpha_one_hides_it_where_it_is_hottest():
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (9, 9, 3), np.uint8))
    saliency = one_hot(3, 3, 1, 1)
    plain = draw(picture, saliency, None, None, alpha=0.0, saturation=1.0)
    assert np.array_equal(np.asarray(plain), np.asarray(picture))
    grey = draw(picture, saliency, None, None, alpha=0.0, saturation=0.0)
    assert np.array_equal(np.asarray(grey), np.asarray(picture.convert("L").convert("RGB")))
    assert 0 < colourfulness(draw(picture, saliency, None, None, alpha=0.0)).max() < colourfulness(plain).max() / 2
    full = np.asarray(draw(picture, saliency, None, None, alpha=1.0))
    white = np.asarray(draw(grey_picture(9, 9, 255), saliency, None, None, alpha=1.0))
    assert full[4, 4].tolist() == white[4, 4].tolist()


def test_signed_maps_diverge_from_zero():
    saliency = np.array([[-2.0, 0.0, 1.0, 2.0]], np.float32)
    pixels = np.asarray(draw(grey_picture(4, 1), saliency, None, None)).astype(int)[0]
    assert pixels[0, 2] > pixels[0, 0] + 40  # blue against
    assert pixels[3, 0] > pixels[3, 2] + 40  # red for
    assert np.abs(pixels[1] - 128).max() <= 1
    # Centred on zero, not on the middle of the range: half as high is half as strong.
    assert 0 < pixels[2, 0] - pixels[2, 2] < pixels[3, 0] - pixels[3, 2] + 40


def test_the_larger_side_of_a_signed_map_sets_the_scale():
    weak = np.asarray(draw(grey_picture(2, 1), np.array([[-4.0, 1.0]], np.float32), None, None)).astype(int)[0, 1]
    full = np.asarray(draw(grey_picture(2, 1), np.array([[-1.0, 1.0]], np.float32), None, None)).astype(int)[0, 1]
    assert 0 < weak[0] - weak[2] < (full[0] - full[2]) * 0.7


def test_a_sequential_colormap_shows_the_positive_part_of_a_signed_map():
    saliency = np.array([[-5.0, 0.0, 1.0]], np.float32)
    pixels = np.asarray(draw(grey_picture(3, 1), saliency, None, None, colormap="turbo"))[0]
    assert pixels[0].tolist() == pixels[1].tolist() == [128, 128, 128]
    assert pixels[2].tolist() != [128, 128, 128]


def test_noise_below_zero_does_not_make_a_map_signed():
    saliency = np.array([[-0.001, 0.0, 1.0]], np.float32)
    positive = np.array([[0.0, 0.001, 1.001]], np.float32)
    assert np.array_equal(
        np.asarray(draw(grey_picture(3, 1), saliency, None, None)),
        np.asarray(draw(grey_picture(3, 1), positive, None, None)),
    )


def test_a_diverging_colormap_for_a_positive_map_leaves_zero_plain():
    pixels = np.asarray(draw(grey_picture(2, 1), np.array([[0.0, 1.0]], np.float32), None, None, colormap="diverging"))
    assert pixels[0, 0].tolist() == [128, 128, 128]
    assert int(pixels[0, 1, 0]) > int(pixels[0, 1, 2]) + 40


def exif_rotated():
    """A file of 40 x 20 that shows upright as 20 x 40."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (128, 128, 128)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_a_rotated_photo_is_shown_upright(tmp_path):
    path = tmp_path / "rotated.jpg"
    path.write_bytes(exif_rotated())
    saliency = one_hot(8, 4, 0, 3)
    for image in (path, str(path), path.read_bytes(), Image.open(path)):
        overlay = draw(image, saliency, (0, 0, 20, 40), (20, 40))
        assert overlay.size == (20, 40)
        x, y = centre_of(colourfulness(overlay) * (colourfulness(overlay) > 20))
        assert x > 14
        assert y < 6


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (1, 1), 50),
        Image.new("RGBA", (1, 1), (50, 50, 50, 0)),
        Image.new("P", (3, 1)),
        Image.new("CMYK", (2, 2)),
        Image.new("RGB", (1, 500)),
        Image.new("RGB", (500, 1)),
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3, 3), np.uint8),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
@pytest.mark.parametrize("shape", [(1, 1), (7, 7), (224, 224)])
def test_every_kind_and_size_of_picture(image, shape):
    size = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    saliency = np.random.default_rng(3).random(shape).astype(np.float32)
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    overlay = draw(image, saliency, (left, top, left + side, top + side), size)
    assert (overlay.size, overlay.mode) == (size, "RGB")


def test_a_region_smaller_than_a_pixel_is_drawn():
    overlay = draw(grey_picture(3, 3), one_hot(50, 50, 25, 25), (1.25, 1.25, 1.75, 1.75), None)
    changed = np.asarray(overlay).astype(int)
    assert overlay.size == (3, 3)
    assert changed[1, 1, 0] != changed[0, 0, 0]


def test_a_reduced_map_is_averaged_not_sampled():
    # Hot columns alternate: an average shows half-heat everywhere, sampling all or nothing.
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (100, 50))
    pixels = np.asarray(draw(grey_picture(10, 10, 0), stripes, None, None, alpha=1.0, colormap="inferno"))[2:8, 2:8]
    flat = np.asarray(draw(grey_picture(256, 1, 0), np.arange(256, dtype=np.float32)[None], None, None, 1.0, "inferno"))
    assert np.abs(pixels.astype(int) - flat[0, 128].astype(int)).max() <= 8


def explanation(**changes):
    saliency = SaliencyMap(3, "cat", "ok", one_hot(4, 4, 0, 0), None)
    other = SaliencyMap(5, "dog", "ok", one_hot(4, 4, 3, 3), None)
    base = Explanation(
        name="rise",
        explainer="rise",
        status="complete",
        status_message="",
        maps=(saliency, other),
        parameters={},
        seed=None,
        passes=1,
        truncated=False,
        elapsed=0.0,
        region=Region(0, 0, 40, 40),
        picture_size=(40, 40),
    )
    return replace(base, **changes)


def test_an_explanation_draws_the_target_asked_for():
    x, y = centre_of(colourfulness(explanation().overlay(grey_picture(40, 40))))
    assert max(x, y) < 15
    x, y = centre_of(colourfulness(explanation().overlay(grey_picture(40, 40), target=5)))
    assert min(x, y) > 25


def test_a_picture_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(PictureSizeError, match=r"40 x 30 .* 40 x 40"):
        explanation().overlay(grey_picture(40, 30))


def test_the_map_of_a_model_input_lies_on_a_picture_of_its_own_size_only():
    free = explanation(region=None, picture_size=None)
    height, width = free.saliency.shape
    assert free.overlay(grey_picture(width, height)).size == (width, height)
    with pytest.raises(PictureSizeError, match=f"{width} x {height}"):
        free.overlay(grey_picture(2 * width, height))
    with pytest.raises(ImageError, match="picture itself"):
        explanation().overlay(np.zeros((3, 40, 40), np.float32))


def test_the_targets_of_an_explanation_share_a_scale():
    """What weighs a tenth for one class looks so, beside the other, unless it is shown for itself."""
    likely, unlikely = one_hot(4, 4, 0, 0), one_hot(4, 4, 3, 3, 0.1)
    both = explanation(maps=(SaliencyMap(3, "cat", "ok", likely, None), SaliencyMap(5, "dog", "ok", unlikely, None)))
    strengths = [colourfulness(both.overlay(grey_picture(40, 40), target=each)).max() for each in (3, 5)]
    assert strengths[1] < strengths[0] / 2
    alone = [both.overlay(grey_picture(40, 40), target=each, own_scale=True) for each in (3, 5)]
    np.testing.assert_array_equal(np.asarray(alone[0]), np.rot90(np.asarray(alone[1]), 2))
    against = explanation(maps=(both.maps[0], SaliencyMap(5, "dog", "ok", -likely, None)))
    left, right = (np.asarray(against.overlay(grey_picture(40, 40), target=each)).astype(int)[2, 2] for each in (3, 5))
    assert left[0] > left[2] + 40, "one is signed, so both are: red for"
    assert right[2] > right[0] + 40, "blue against"


@pytest.mark.parametrize(
    "arguments",
    [{"alpha": 1.5}, {"alpha": float("nan")}, {"colormap": "rainbow"}, {"saturation": -0.1}, {"saturation": 2}],
    ids=str,
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        explanation().overlay(grey_picture(40, 40), **arguments)


def test_a_region_that_reaches_beyond_the_picture():
    """A picture of 400 x 100 in the middle of a square: the map's upper and lower thirds lie on the border."""
    region, size = (0.0, -150.0, 400.0, 250.0), (400, 100)
    saliency = np.zeros((8, 8), np.float32)
    saliency[3, 6] = 1.0  # from (300, 0) to (350, 50)
    strength = colourfulness(draw(grey_picture(*size), saliency, region, size))
    x, y = centre_of(np.where(strength > strength.max() / 2, 1.0, 0.0))
    assert (300 < x < 350, 0 < y < 50) == (True, True)
    # What the border has, however much, changes nothing of what is shown.
    border = saliency.copy()
    border[0], border[7] = 100.0, -100.0
    shown, expected = (np.asarray(draw(grey_picture(*size), each, region, size)) for each in (border, saliency))
    np.testing.assert_array_equal(shown, expected)
