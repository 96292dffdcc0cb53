"""The same photograph in every form that people send: the same classes, and a region on the upright picture."""

import io

import numpy as np
import pytest
from PIL import Image

from xai_client import Client
from xai_proto import explanation_pb2 as pb

CATS = {281, 282, 285}
ORIENTATION = 0x0112
# What turns an upright picture into one that is stored with each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def upright(photo):
    return Image.open(io.BytesIO(photo)).convert("RGB")


@pytest.fixture(scope="module")
def predict(stub):
    def predict(encoded):
        request = pb.PredictRequest(images=[pb.Image(encoded=encoded)], top_k=1000)
        return stub.Predict(request, timeout=60).predictions[0]

    return predict


@pytest.fixture(scope="module")
def probabilities(predict):
    """Of an encoded picture, (1000,)."""

    def probabilities(encoded):
        scores = sorted(predict(encoded).classes, key=lambda score: score.class_id)
        return np.array([score.probability for score in scores])

    return probabilities


@pytest.fixture(scope="module")
def plain(probabilities, photo):
    return probabilities(photo)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("PNG", {"compress_level": 0}),
    ],
)
def test_lossless_files_are_the_same_picture(kind, options, upright, probabilities, plain):
    np.testing.assert_allclose(probabilities(saved(upright, kind, **options)), plain, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_lossy_files_are_nearly_the_same(kind, options, upright, probabilities, plain):
    got = probabilities(saved(upright, kind, **options))
    assert got.argmax() in (282, 285)
    np.testing.assert_allclose(got, plain, atol=0.06)


def test_opaque_rgba_is_the_same_picture(upright, probabilities, plain):
    picture = upright.copy()
    picture.putalpha(255)
    np.testing.assert_allclose(probabilities(saved(picture, "PNG")), plain, atol=1e-5)


def test_transparency_is_laid_on_white(upright, probabilities, plain):
    alpha = Image.new("L", upright.size, 255)
    alpha.paste(0, (0, 0, 225, 300))
    picture = upright.copy()
    picture.putalpha(alpha)
    white = upright.copy()
    white.paste((255, 255, 255), (0, 0, 225, 300))
    got = probabilities(saved(picture, "PNG"))
    np.testing.assert_allclose(got, probabilities(saved(white, "PNG")), atol=1e-5)
    assert np.abs(got - plain).max() > 0.1


def test_palette(upright, probabilities, plain):
    picture = upright.quantize(256, dither=Image.Dither.NONE)
    assert picture.mode == "P"
    expected = probabilities(saved(picture.convert("RGB"), "PNG"))
    for kind in ("PNG", "GIF", "BMP"):
        got = probabilities(saved(picture, kind))
        np.testing.assert_allclose(got, expected, atol=1e-5)
    assert expected.argmax() in CATS
    np.testing.assert_allclose(expected, plain, atol=0.15)


def test_cmyk(upright, probabilities, plain):
    file = saved(upright.convert("CMYK"), "JPEG", quality=97)
    assert Image.open(io.BytesIO(file)).mode == "CMYK"
    got = probabilities(file)
    assert got.argmax() in (282, 285)
    np.testing.assert_allclose(got, plain, atol=0.1)


def test_greyscale_is_an_rgb_without_colours(upright, probabilities):
    grey = upright.convert("L")
    expected = probabilities(saved(grey.convert("RGB"), "PNG"))
    assert expected.argmax() in CATS
    np.testing.assert_allclose(probabilities(saved(grey, "PNG")), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities(saved(grey.convert("LA"), "PNG")), expected, atol=1e-5)
    np.testing.assert_allclose(probabilities(saved(grey, "JPEG", quality=97)), expected, atol=0.06)


def test_sixteen_bits(upright, probabilities):
    grey = upright.convert("L")
    expected = probabilities(saved(grey, "PNG"))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode.startswith("I;16")
    for kind in ("PNG", "TIFF"):
        np.testing.assert_allclose(probabilities(saved(deep, kind)), expected, atol=1e-5)


def test_a_black_and_white_scan(upright, probabilities):
    scan = upright.convert("1")
    expected = probabilities(saved(scan.convert("L"), "PNG"))
    np.testing.assert_allclose(probabilities(saved(scan, "PNG")), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind, upright, probabilities):
    first = upright.quantize(256, dither=Image.Dither.NONE).convert("RGB")
    others = [Image.new("RGB", upright.size, colour) for colour in ("red", "green")]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = saved(first, kind, save_all=True, append_images=others, **options)
    assert Image.open(io.BytesIO(file)).n_frames == 3
    np.testing.assert_allclose(probabilities(file), probabilities(saved(first, "PNG")), atol=1e-5)


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(orientation, upright, predict, probabilities, plain):
    turn = STORED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    # Losslessly, so that the probabilities have to be the very same.
    file = saved(stored, "PNG", exif=exif)
    np.testing.assert_allclose(probabilities(file), plain, atol=1e-5)
    prediction, straight = predict(file), predict(saved(upright, "PNG"))
    assert (prediction.picture.width, prediction.picture.height) == (451, 300)
    assert prediction.region == straight.region


def test_a_phones_jpeg_and_its_overlay(server, upright):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    file = saved(upright.transpose(STORED[6]), "JPEG", quality=95, exif=exif)
    assert Image.open(io.BytesIO(file)).size == (300, 451)
    with Client(server.grpc, timeout=60) as client:
        prediction = client.predict(file, explain=["gradcam"])
    assert prediction.classes[0].class_id in (282, 285)
    assert tuple(prediction.picture_size) == (451, 300)
    assert prediction.explanations["gradcam"].overlay(file).size == (451, 300)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2000, 20), (224, 224), (3000, 2000)])
def test_every_size(size, upright, predict):
    width, height = size
    prediction = predict(saved(upright.resize(size), "PNG", compress_level=1))
    assert (prediction.picture.width, prediction.picture.height) == size
    region = prediction.region
    scale = min(size) / 256
    assert (region.right - region.left, region.bottom - region.top) == pytest.approx((224 * scale,) * 2, rel=0.01)
    assert 0 <= region.left < region.right <= width
    assert 0 <= region.top < region.bottom <= height
    assert sum(score.probability for score in prediction.classes) == pytest.approx(1, abs=1e-5)


def test_a_large_photograph_is_the_same_scene(upright, probabilities, plain):
    large = upright.resize((451 * 4, 300 * 4), Image.Resampling.LANCZOS)
    got = probabilities(saved(large, "JPEG", quality=95))
    assert got.argmax() in CATS
    np.testing.assert_allclose(got, plain, atol=0.15)
