import concurrent.futures
import io
import random
import struct
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
from orientations import ORIENTED
from PIL import Image

from xai_sidecar import errors, imaging
from xai_sidecar.imaging import InputSpec, Region

LIMIT = 10_000_000
GREY = InputSpec(1, 8, 12, 8, 12, True, "nearest", (0.0,), (1.0 / 255.0,))
COLOUR = InputSpec(3, 8, 12, 8, 12, True, "nearest", (0.0,) * 3, (1.0 / 255.0,) * 3)
RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 256, (8, 12, 3), dtype=np.uint8)
GREYS = RANDOM.integers(0, 256, (8, 12), dtype=np.uint8)


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data, limit=LIMIT):
    return np.asarray(imaging.decode(data, limit))


def spec(height, width, resize_height, resize_width, *, stretch=False, interpolation="bilinear", channels=3):
    return InputSpec(
        channels,
        height,
        width,
        resize_height,
        resize_width,
        stretch,
        interpolation,
        (0.0,) * channels,
        (1.0,) * channels,
    )


# Decoding


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_colour(kind):
    decoded = imaging.decode(encode(Image.fromarray(PIXELS), kind), LIMIT)
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), PIXELS)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_tiff_compressions(options):
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(PIXELS), "TIFF", **options)), PIXELS)


def test_webp():
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(PIXELS), "WEBP", lossless=True)), PIXELS)


def test_jpeg_is_near():
    smooth = np.stack([*np.meshgrid(np.arange(64) * 4, np.arange(64) * 4), np.full((64, 64), 90)], -1).astype(np.uint8)
    decoded = pixels(encode(Image.fromarray(smooth), "JPEG", quality=95, subsampling=0))
    assert np.abs(decoded.astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_greys(kind):
    np.testing.assert_array_equal(
        np.asarray(imaging.decode(encode(Image.fromarray(GREYS), kind), LIMIT).convert("L")), GREYS
    )


def test_grey_jpeg_stays_grey():
    assert imaging.decode(encode(Image.fromarray(GREYS), "JPEG"), LIMIT).mode == "L"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit(kind):
    bits = GREYS > 127
    np.testing.assert_array_equal(pixels(encode(Image.fromarray(bits), kind)), np.where(bits, 255, 0))


def indexed_png(*, transparency=b""):
    """Written by hand, so that Pillow's own palette handling is not what it is checked against."""
    rows = b"".join(b"\0" + bytes(row) for row in (GREYS % 4))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 12, 8, 8, 3, 0, 0, 0))]
    chunks.append((b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])))
    chunks += [(b"tRNS", transparency)] if transparency else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return png(chunks)


def png(chunks):
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_palette():
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]])[GREYS % 4]
    np.testing.assert_array_equal(pixels(indexed_png()), expected)


def test_palette_with_transparency_is_laid_on_white():
    expected = np.array([[255, 255, 255], [0, 255, 0], [127, 127, 255], [10, 20, 30]])[GREYS % 4]
    decoded = pixels(indexed_png(transparency=bytes([0, 255, 128])))
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_grey_with_alpha():
    alpha = RANDOM.integers(0, 256, GREYS.shape, dtype=np.uint8)
    decoded = imaging.decode(encode(Image.merge("LA", [Image.fromarray(GREYS), Image.fromarray(alpha)]), "PNG"), LIMIT)
    weight = alpha / 255.0
    assert decoded.mode == "L"
    assert np.abs(np.asarray(decoded) - (GREYS * weight + 255 * (1 - weight))).max() <= 1


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_colour_with_alpha(kind, options):
    alpha = RANDOM.integers(0, 256, GREYS.shape, dtype=np.uint8)
    decoded = pixels(encode(Image.fromarray(np.dstack([PIXELS, alpha])), kind, **options))
    weight = alpha[..., None] / 255.0
    assert np.abs(decoded - (PIXELS * weight + 255 * (1 - weight))).max() <= 1


def test_transparent_colour_of_a_png_without_alpha():
    data = encode(Image.fromarray(PIXELS), "PNG", transparency=tuple(int(v) for v in PIXELS[2, 3]))
    decoded = pixels(data)
    assert decoded[2, 3].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(decoded[0], PIXELS[0])


def test_transparent_grey_and_black():
    grey = encode(Image.fromarray(GREYS), "PNG", transparency=int(GREYS[1, 1]))
    np.testing.assert_array_equal(pixels(grey), np.where(GREYS[1, 1] == GREYS, 255, GREYS))
    bits = encode(Image.fromarray(GREYS > 127), "PNG", transparency=0)
    assert (pixels(bits) == 255).all()


def sixteen_bit_png(values, colour_type, transparency=b""):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    extra = [(b"tRNS", transparency)] if transparency else []
    return png([(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def test_sixteen_bit_grey_is_scaled():
    values = np.array([[0, 128, 129, 257, 32768, 65279, 65406, 65407, 65535]], np.uint16)
    assert pixels(sixteen_bit_png(values, 0)).tolist() == [[0, 0, 1, 1, 128, 254, 254, 255, 255]]


def test_sixteen_bit_grey_transparency():
    values = np.array([[0, 1000, 65535]], np.uint16)
    assert pixels(sixteen_bit_png(values, 0, struct.pack(">H", 1000))).tolist() == [[0, 255, 255]]


def test_sixteen_bit_colour():
    values = RANDOM.integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    for transparency in (b"", struct.pack(">HHH", 40000, 40000, 40000)):
        header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        extra = [(b"tRNS", transparency)] if transparency else []
        decoded = pixels(png([(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]))
        assert np.abs(decoded.astype(int) - values / 257).max() <= 1


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bit_tiff(order):
    values = np.array([[0, 257, 32768, 65535]], order)
    picture = Image.frombytes("I;16" if order == "<u2" else "I;16B", (4, 1), values.tobytes())
    assert pixels(encode(picture, "TIFF")).tolist() == [[0, 1, 128, 255]]


def test_32_bit_whole_numbers():
    small, large = np.array([[0, 7, 255]], np.int32), np.array([[0, 257, 65535]], np.int32)
    assert pixels(encode(Image.fromarray(small), "TIFF")).tolist() == [[0, 7, 255]]
    assert pixels(encode(Image.fromarray(large), "TIFF")).tolist() == [[0, 1, 255]]
    for bad in (-1, 65536):
        with pytest.raises(errors.PictureError, match=str(bad)):
            pixels(encode(Image.fromarray(np.array([[0, bad]], np.int32)), "TIFF"))


def test_32_bit_floats():
    assert pixels(encode(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")).tolist() == [[0, 128, 255]]
    for bad in (-0.1, 1.5, np.nan, np.inf):
        with pytest.raises(errors.PictureError, match="floats"):
            pixels(encode(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"))


CMYK_COLOURS = {
    (0, 0, 0, 0): (255, 255, 255),
    (0, 0, 0, 255): (0, 0, 0),
    (255, 0, 0, 0): (0, 255, 255),
    (0, 255, 0, 0): (255, 0, 255),
    (0, 0, 255, 0): (255, 255, 0),
    (0, 255, 255, 0): (255, 0, 0),
}


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    for inks, colour in CMYK_COLOURS.items():
        decoded = pixels(encode(Image.new("CMYK", (16, 16), inks), kind))
        assert np.abs(decoded.astype(int) - colour).max() <= 4, inks


def test_ycck_jpeg():
    """Adobe's YCCK is the YCC of R = 1 - C and so on, of inverted inks: written here as CMYK and retagged as YCCK."""
    inks = np.array([200, 100, 50, 30])
    ycc = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]) @ inks[:3] + [
        0,
        128,
        128,
    ]
    # The writer inverts all four planes, so it is handed them inverted.
    planes = 255 - np.array([*ycc, 255 - inks[3]])
    data = encode(Image.new("CMYK", (16, 16), tuple(round(v) for v in planes)), "JPEG", quality=100)
    marker = data.index(b"Adobe")
    retagged = data[: marker + 11] + b"\x02" + data[marker + 12 :]
    expected = (255 - inks[:3]) * (255 - inks[3]) / 255
    assert np.abs(pixels(retagged).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("orientation", ORIENTED)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation(kind, options, orientation):
    """`ORIENTED` turns an upright picture into what a camera stores with that orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](PIXELS)))
    np.testing.assert_array_equal(pixels(encode(stored, kind, exif=exif.tobytes(), **options)), PIXELS)


@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_orientation_of_a_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters = np.kron(np.array([[0, 80, 160], [40, 120, 240]], np.uint8), np.ones((16, 16), np.uint8))[..., None]
    stored = Image.fromarray(np.ascontiguousarray(ORIENTED[orientation](quarters))[..., 0])
    decoded = pixels(encode(stored, "JPEG", exif=exif.tobytes(), quality=95))
    assert np.abs(decoded.astype(int) - quarters[..., 0]).max() <= 3


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_is_no_reason_to_refuse(exif):
    assert pixels(encode(Image.fromarray(GREYS), "JPEG", exif=exif)).shape == (8, 12)


def test_unknown_orientation_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert pixels(encode(Image.fromarray(PIXELS), "PNG", exif=exif.tobytes())).tolist() == PIXELS.tolist()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_first_frame_of_an_animation(kind, options):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    decoded = pixels(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert (decoded == [255, 0, 0]).all()


def test_the_same_pixels_in_any_mode_give_the_same_input():
    grey = Image.fromarray(GREYS)
    alike = [encode(grey, "PNG"), encode(grey.convert("RGB"), "PNG"), encode(grey.convert("LA"), "PNG")]
    alike += [encode(grey.convert("RGBA"), "PNG"), encode(grey, "GIF"), encode(grey, "BMP"), encode(grey, "TIFF")]
    alike += [encode(Image.fromarray(GREYS.astype(np.uint16) * 257), "PNG")]
    for data in alike:
        picture = imaging.decode(data, LIMIT)
        np.testing.assert_allclose(imaging.prepare(picture, GREY).array[0], GREYS, atol=1e-3)
        np.testing.assert_allclose(imaging.prepare(picture, COLOUR).array, np.stack([GREYS] * 3), atol=1e-3)


# Refusals


def photo():
    ramp = np.add.outer(np.arange(96), np.arange(128))
    noise = np.random.default_rng(0).integers(0, 40, (96, 128, 3))
    return Image.fromarray((ramp[..., None] + noise).astype(np.uint8))


def assert_explains(error, kind=errors.PictureError):
    assert type(error) is kind
    assert error.field == ""
    assert error.message.count(". ") >= 1 and error.message.endswith(".")
    assert "0x" not in error.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"a picture of a cat",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"\0" * 1000,
    ],
)
def test_no_picture(data):
    with pytest.raises(errors.PictureError) as caught:
        imaging.decode(data, LIMIT)
    assert_explains(caught.value)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX", "ICNS"])
def test_other_formats_are_refused(kind):
    with pytest.raises(errors.PictureError, match=r"JPEG, PNG, WebP, GIF, BMP or TIFF"):
        imaging.decode(encode(photo(), kind), LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_cut_short(kind, share):
    data = encode(photo(), kind)
    with pytest.raises(errors.PictureError) as caught:
        imaging.decode(data[: int(len(data) * share)], LIMIT)
    assert_explains(caught.value)


def header_only_png(width, height):
    return png([(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")])


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_no_size(width, height):
    with pytest.raises(errors.PictureError) as caught:
        imaging.decode(header_only_png(width, height), LIMIT)
    assert_explains(caught.value)


@pytest.mark.parametrize("size", [(10_000, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1), (LIMIT + 1, 1)])
def test_a_bomb_is_refused_by_its_header(size):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Its data are missing: only the header can have been read.
        with pytest.raises(errors.PictureTooLargeError, match=f"{size[0] * size[1]:,}") as caught:
            imaging.decode(header_only_png(*size), LIMIT)
    assert_explains(caught.value, errors.PictureTooLargeError)


def test_bombs_of_other_formats():
    gif = (
        b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x08"
    )
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    webp = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16_000).to_bytes(3, "little") + (16_000).to_bytes(3, "little")
    for data in (gif, bmp, b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp):
        with pytest.raises(errors.InvalidRequestError):
            imaging.decode(data, LIMIT)


def test_the_limit_itself_is_allowed():
    data = encode(photo(), "PNG")
    assert imaging.decode(data, 96 * 128).size == (128, 96)
    with pytest.raises(errors.PictureTooLargeError):
        imaging.decode(data, 96 * 128 - 1)


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_compressed_chunks_are_bounded(chunk):
    packed = b"name\0\0" + zlib.compress(bytes(200_000_000), 9)
    data = encode(Image.fromarray(GREYS), "PNG")
    stuffed = data[:33] + png([(chunk, packed)])[8:] + data[33:]
    try:
        assert pixels(stuffed).shape == (8, 12)
    except errors.PictureError as error:
        assert_explains(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damage_never_escapes_the_error_tree(kind):
    data = encode(photo(), kind)
    chance = random.Random(kind)
    for attempt in range(60):
        damaged = bytearray(data)
        if attempt % 3 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            reach = 200 if attempt % 3 == 1 else len(damaged)
            for _ in range(chance.randint(1, 8)):
                damaged[chance.randrange(min(reach, len(damaged)))] = chance.randrange(256)
        try:
            picture = imaging.decode(bytes(damaged), LIMIT)
        except errors.SidecarError as error:
            assert error.message
        else:
            assert picture.mode in ("L", "RGB")
            assert picture.width * picture.height <= LIMIT


def test_threads_get_the_same_pictures():
    encoded = [encode(photo(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")]
    expected = [pixels(data) for data in encoded]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            for got, want in zip(pool.map(pixels, encoded), expected, strict=True):
                np.testing.assert_array_equal(got, want)


# Pixels and model inputs


def test_from_pixels():
    assert np.asarray(imaging.from_pixels(PIXELS, LIMIT)).tolist() == PIXELS.tolist()
    assert np.asarray(imaging.from_pixels(PIXELS[::-1, ::2], LIMIT)).tolist() == PIXELS[::-1, ::2].tolist()
    array = GREYS[..., None].copy()
    picture = imaging.from_pixels(array, LIMIT)
    array[:] = 0
    assert picture.mode == "L"
    assert np.asarray(picture).tolist() == GREYS.tolist()


@pytest.mark.parametrize(
    "array",
    [
        PIXELS.astype(np.float32),
        GREYS,
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_from_pixels_refuses(array):
    with pytest.raises(errors.TensorError, match="uint8 of shape"):
        imaging.from_pixels(array, LIMIT)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_model_input(dtype):
    array = RANDOM.standard_normal((3, 8, 12)).astype(dtype)
    prepared = imaging.check_model_input(array, COLOUR)
    assert prepared.array.dtype == np.float32
    assert prepared.array.flags.c_contiguous
    np.testing.assert_array_equal(prepared.array, array.astype(np.float32))
    assert prepared.picture_size is None
    assert prepared.region is None


def test_model_input_refuses():
    good = np.zeros((3, 8, 12), np.float32)
    for bad in (
        good.astype(np.float64),
        good.astype(">f4"),
        good.astype(np.uint8),
        good[None],
        good[:1],
        good.transpose(0, 2, 1),
    ):
        with pytest.raises(errors.TensorError, match=r"\(3, 8, 12\)"):
            imaging.check_model_input(bad, COLOUR)
    for value in (np.nan, np.inf, -np.inf):
        bad = good.copy()
        bad[1, 2, 3] = value
        with pytest.raises(errors.TensorError, match="1 of the model input's 288 values"):
            imaging.check_model_input(bad, COLOUR)


# Resizing


def test_normalisation():
    means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    norm = InputSpec(3, 8, 12, 8, 12, False, "bilinear", means, stds)
    array = imaging.prepare(Image.fromarray(PIXELS), norm).array
    expected = ((PIXELS / 255.0 - means) / stds).transpose(2, 0, 1)
    assert array.dtype == np.float32
    assert array.shape == (3, 8, 12)
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array, expected, atol=2e-6)


def test_one_channel_takes_the_luma():
    array = imaging.prepare(Image.fromarray(PIXELS), GREY).array[0]
    np.testing.assert_allclose(array, PIXELS @ [0.299, 0.587, 0.114], atol=0.51)


FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resized_and_cropped(picture, size, resize, resample):
    """Resize all of it to the short side, columns first, then crop."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(resize * long / short + 0.5)
    new_size = (resize, new_long) if width <= height else (new_long, resize)
    resized = np.asarray(picture.resize((new_size[0], height), resample).resize(new_size, resample))
    top, left = (new_size[1] - size) // 2, (new_size[0] - size) // 2
    return resized[top : top + size, left : left + size]


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    "size", [(451, 300), (300, 451), (256, 256), (97, 64), (64, 97), (301, 299), (1200, 130), (33, 900)]
)
def test_as_resizing_and_cropping(size, interpolation):
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    got = imaging.prepare(picture, spec(112, 112, 128, 128, interpolation=interpolation)).array * 255
    expected = resized_and_cropped(picture, 112, 128, FILTERS[interpolation])
    assert np.abs(got.transpose(1, 2, 0) - expected).max() <= 1.001


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (512, 512), (97, 64), (640, 48)])
def test_nearest_as_resizing_and_cropping(size):
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    got = imaging.prepare(picture, spec(112, 112, 128, 128, interpolation="nearest")).array * 255
    expected = resized_and_cropped(picture, 112, 128, Image.Resampling.NEAREST)
    np.testing.assert_allclose(got.transpose(1, 2, 0), expected, atol=1e-3)


GEOMETRIES = [
    spec(20, 20, 20, 20),
    spec(20, 20, 25, 25),
    spec(16, 40, 20, 50),
    spec(40, 16, 41, 23),
    spec(20, 30, 20, 30, stretch=True),
    spec(20, 30, 26, 35, stretch=True),
]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (250, 250), (500, 90), (90, 500), (37, 41), (40, 16), (9, 7)])
@pytest.mark.parametrize("case", GEOMETRIES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_the_region_is_where_the_input_comes_from(case, size, interpolation):
    """A picture of coordinates: each input pixel must hold that of its centre, mapped through the region."""
    width, height = size
    across = np.broadcast_to((np.arange(width) + 0.5) * 250 / width, (height, width))
    down = np.broadcast_to(((np.arange(height) + 0.5) * 250 / height)[:, None], (height, width))
    ramp = np.rint(np.dstack([across, down, down])).astype(np.uint8)
    wanted = InputSpec(**{**vars(case), "interpolation": interpolation})
    prepared = imaging.prepare(Image.fromarray(ramp), wanted)
    region = prepared.region
    assert prepared.picture_size == size
    assert 0 <= region.left < region.right <= width
    assert 0 <= region.top < region.bottom <= height
    x = region.left + (np.arange(case.width) + 0.5) * (region.right - region.left) / case.width
    y = region.top + (np.arange(case.height) + 0.5) * (region.bottom - region.top) / case.height
    got = prepared.array * 255
    # Nearest is half a pixel of the picture off at most. At the rim, a filter sees only one side.
    slack = 125 / np.array(size) if interpolation == "nearest" else np.array([0.5, 0.5])
    resized = (case.resize_width, case.resize_height)
    rim_x, rim_y = (max(2.0, 2.0 * full / side) for full, side in zip(size, resized, strict=True))
    inner_x, inner_y = (x > rim_x) & (x < width - rim_x), (y > rim_y) & (y < height - rim_y)
    assert np.abs(got[0][:, inner_x] - (x * 250 / width)[inner_x]).max(initial=0) <= slack[0] + 0.8
    assert np.abs(got[1][inner_y] - (y * 250 / height)[inner_y, None]).max(initial=0) <= slack[1] + 0.8


def test_regions_by_hand():
    wide = imaging.prepare(Image.new("RGB", (400, 200)), spec(224, 224, 256, 256)).region
    assert wide == Region(112.5, 12.5, 287.5, 187.5)
    tall = imaging.prepare(Image.new("L", (200, 400)), spec(224, 224, 256, 256)).region
    assert tall == Region(12.5, 112.5, 187.5, 287.5)
    assert imaging.prepare(Image.new("L", (77, 33)), spec(20, 30, 20, 30, stretch=True)).region == Region(0, 0, 77, 33)
    # The long side is resized to 384.85, rounded to 385; the crop's corner is rounded down.
    photo_region = imaging.prepare(Image.new("RGB", (451, 300)), spec(224, 224, 256, 256)).region
    assert photo_region.left == 80 * 451 / 385
    assert photo_region.right == 304 * 451 / 385


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1, 3_000_000), (3_000_000, 1), (70_000, 20)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("stretch", [False, True])
def test_extreme_proportions(size, interpolation, stretch):
    wanted = spec(16, 16, 20, 20, interpolation=interpolation, stretch=stretch)
    prepared = imaging.prepare(Image.new("L", size, 200), wanted)
    # Pillow's fixed-point weights may lose a grey level over a million pixels.
    np.testing.assert_allclose(prepared.array * 255, 200, atol=1.01)
    assert prepared.region.right <= size[0]
    assert prepared.region.bottom <= size[1]


def test_a_tall_picture_stretched_is_not_widened_first():
    ramp = np.repeat(np.arange(200, dtype=np.uint8), 15_000)[:, None]
    prepared = imaging.prepare(Image.fromarray(ramp), spec(16, 16, 20, 20, stretch=True))
    centres = prepared.region.top + (np.arange(16) + 0.5) * (prepared.region.bottom - prepared.region.top) / 16
    np.testing.assert_allclose(prepared.array[0] * 255, np.repeat(centres[:, None] / 15_000 - 0.5, 16, 1), atol=1)


def test_a_picture_beyond_pillows_own_limit():
    """Where the server's limit is set that high, Pillow's, which holds for every crop, must not come in."""
    prepared = imaging.prepare(Image.new("L", (16_400, 11_000), 7), spec(16, 16, 20, 20, channels=1))
    np.testing.assert_allclose(prepared.array, 7 / 255, atol=1e-6)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_long_picture_is_cut_out_without_a_trace(interpolation):
    """Beyond the sides at which Pillow's float32 boxes are exact, the neighbourhood is cut out first."""
    strip = np.random.default_rng(2).integers(0, 256, (40, 20_000, 3), dtype=np.uint8)
    got = imaging.prepare(Image.fromarray(strip), spec(30, 30, 32, 32, interpolation=interpolation)).array * 255
    expected = resized_and_cropped(Image.fromarray(strip), 30, 32, FILTERS[interpolation])
    assert np.abs(got.transpose(1, 2, 0) - expected).max() <= 1.001


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("channels", {"channels": 4}),
        ("size", {"height": 0}),
        ("resize", {"resize_width": 11}),
        ("interpolation", {"interpolation": "box"}),
        ("mean", {"mean": (0.5,)}),
        ("std", {"std": (1.0, 1.0, 0.0)}),
        ("std", {"std": (1.0, 1.0, float("nan"))}),
    ],
)
def test_a_spec_that_does_not_fit(key, change):
    with pytest.raises(errors.ConfigError) as caught:
        InputSpec(**{**vars(COLOUR), **change})
    assert caught.value.field == f"model.input.{key}"


@pytest.mark.parametrize(
    ("mean", "std", "key"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "mean"),
        ((0.485, 0.456, 0.406), (58.395, 57.12, 57.375), "std"),
        ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "mean"),
        ((-123.0, 0.0, 0.0), (0.2, 0.2, 0.2), "mean"),
    ],
)
def test_statistics_of_pixels_from_0_to_255_are_refused(mean, std, key):
    with pytest.raises(errors.ConfigError, match=r"Divide model.input.mean and model.input.std by 255") as caught:
        InputSpec(3, 8, 8, 8, 8, False, "bilinear", mean, std)
    assert caught.value.field == f"model.input.{key}"


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1 / 255), (0.5, 0.5), (0.0, 1.0), (-1.0, 1.0), (1.0, 2.0)])
def test_other_ranges_that_nets_want_are_taken(mean, std):
    assert InputSpec(3, 8, 8, 8, 8, False, "bilinear", (mean,) * 3, (std,) * 3).std == (std,) * 3


# Letterbox


def whole(height, width, **options):
    return replace(spec(height, width, height, width, **options), letterbox=True)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("size", "shown", "region"),
    [
        ((400, 200), (5, 0, 10, 20), Region(0, -100, 400, 300)),
        ((200, 400), (0, 5, 20, 10), Region(-100, 0, 300, 400)),
        ((10, 10), (0, 0, 20, 20), Region(0, 0, 10, 10)),
        ((4000, 3), (9, 0, 1, 20), Region(0, -27, 4000, 33)),  # a pixel high at the least
        ((300, 200), (3, 0, 13, 20), None),  # 13.3 rows
    ],
)
def test_the_whole_picture_is_shown_with_a_border_of_the_mean_colour(size, shown, region, interpolation):
    wanted = replace(
        whole(20, 20, interpolation=interpolation),
        mean=(0.2, 0.3, 0.4),
        std=(0.5, 0.5, 0.5),
        mean_colour=(0.2, 0.4, 0.9),
    )
    prepared = imaging.prepare(Image.new("RGB", size, "white"), wanted)
    top, left, height, width = shown
    expected = np.broadcast_to(np.reshape([0.0, 0.2, 1.0], (3, 1, 1)), (3, 20, 20)).copy()
    expected[:, top : top + height, left : left + width] = np.reshape([1.6, 1.4, 1.2], (3, 1, 1))
    np.testing.assert_allclose(prepared.array, expected, atol=1e-5)
    if region is not None:
        assert prepared.region == region
    assert prepared.picture_size == size


def test_a_letterbox_keeps_places():
    """A bright spot lies where the region says that it does."""
    picture = Image.new("L", (300, 100))
    picture.paste(255, (210, 60, 240, 80))
    prepared = imaging.prepare(picture, replace(whole(60, 60, channels=1), mean_colour=(0.0,)))
    rows, columns = np.indices((60, 60)) + 0.5
    weights = prepared.array[0] / prepared.array[0].sum()
    region = prepared.region
    assert region.left + (columns * weights).sum() * (region.right - region.left) / 60 == pytest.approx(225, abs=0.5)
    assert region.top + (rows * weights).sum() * (region.bottom - region.top) / 60 == pytest.approx(70, abs=0.5)


def test_a_letterbox_leaves_what_was_made_without_it_alone():
    """OoD nets keep how pictures were prepared, as a text."""
    assert repr(spec(2, 3, 4, 5)) == (
        "InputSpec(channels=3, height=2, width=3, resize_height=4, resize_width=5, stretch=False, "
        "interpolation='bilinear', mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), mean_colour=(0.5,))"
    )
    assert repr(whole(2, 3)) != repr(spec(2, 3, 2, 3))


def test_so_does_a_mean_colour_that_is_the_mean():
    """Before there was such a key, pictures were covered with the mean."""
    old = (
        "InputSpec(channels=3, height=2, width=3, resize_height=4, resize_width=5, stretch=False, "
        "interpolation='bilinear', mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))"
    )
    assert repr(replace(spec(2, 3, 4, 5), mean_colour=(0.0, 0.0, 0.0))) == old
    assert repr(replace(spec(2, 3, 4, 5), mean_colour=(0.0, 0.0, 0.1))) != old
