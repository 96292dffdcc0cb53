"""Files that are nearly what they say, and files made to keep a decoder busy."""

import contextlib
import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from cpu_time import least_cpu_seconds
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from xai_sidecar import errors, imaging

LIMIT = 50_000_000
PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
HEIGHT, WIDTH = PIXELS.shape[:2]


def encode(array, kind, **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def decode(data, **options):
    return np.asarray(imaging.decode(data, LIMIT, **options))


def chunk(kind, body, crc=None):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc or zlib.crc32(kind + body))


def png_with(*chunks, array=PIXELS, after_header=True):
    """A PNG with chunks after its header, or before its end."""
    data = encode(array, "PNG")
    place = 33 if after_header else len(data) - 12
    return data[:place] + b"".join(chunks) + data[place:]


def segment(marker, body):
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments, **options):
    data = encode(PIXELS, "JPEG", **options)
    return data[:2] + b"".join(segments) + data[2:]


def webp_with(*chunks, array=PIXELS):
    body = encode(array, "WEBP", lossless=True)[12:]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x2c\0\0\0"
    extended += (array.shape[1] - 1).to_bytes(3, "little") + (array.shape[0] - 1).to_bytes(3, "little")
    body = extended + body + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def riff(kind, body, size=None):
    return kind + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def tiff_with(extra=(), array=PIXELS, **options):
    """A TIFF with more entries in its directory: tag, type, count and value."""
    data = bytearray(encode(array, "TIFF", **options))
    (place,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, place)
    entries = [bytes(data[place + 2 + 12 * index :][:12]) for index in range(count)]
    entries += [struct.pack("<HHII", *each) for each in extra]
    struct.pack_into("<I", data, 4, len(data))
    data += struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda each: each[:2][::-1]))
    return bytes(data + b"\xff\xff\xff\xff")  # nor is there a next directory where it says


def gif_with(*extensions):
    data = encode(GREYS, "GIF")
    place = data.index(b"\x2c", 13 + 3 * 256)
    return data[:place] + b"".join(extensions) + data[place:]


GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"
LARGE_TEXT = b"Comment\0\0" + zlib.compress(b"a" * 20_000_000)


# ------------------------------------------------------------------------------------------------ nearly right


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"Comment\0" + b"a" * 3_000_000),
        chunk(b"zTXt", LARGE_TEXT),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * 20_000_000)),
        chunk(b"zTXt", LARGE_TEXT) * 10,
        chunk(b"tEXt", b"no zero"),
        chunk(b"zTXt", b"Comment\0\0no zlib"),
        chunk(b"iCCP", b"profile\0\0no zlib"),
        chunk(b"iCCP", b"profile\0\7"),
        chunk(b"pHYs", b"short"),
        chunk(b"gAMA", b""),
        chunk(b"tEXt", b"Comment\0wrong sum", crc=1),
        chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        chunk(b"tRNS", b"\0\0", crc=1),
        chunk(b"acTL", b"\0"),
        chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
    ],
    ids=lambda extra: f"{extra[4:8].decode()}-{zlib.crc32(extra)}",
)
@pytest.mark.parametrize("after_header", [True, False])
def test_a_png_whose_other_chunks_are_broken_or_large(extra, after_header):
    np.testing.assert_array_equal(decode(png_with(extra, after_header=after_header)), PIXELS)


def test_a_png_whose_header_has_a_wrong_sum_is_refused():
    data = bytearray(png_with())
    data[32] ^= 1
    with pytest.raises(errors.PictureError):
        decode(bytes(data))


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        segment(0xE1, b"Exif\0\0" + b"\xff" * 100),
        segment(0xE2, b"ICC_PROFILE\0\x01\x03broken"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"MPF\0broken"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
        segment(0xFE, b"\xff\xd8\xff\xe0 a comment"),
        segment(0xFE, b"a comment" * 5000) * 100,
        segment(0xE0, b"JFXX\0\x10broken"),
        segment(0xFE, b"a comment") + b"\0\0\0garbage between segments",
    ],
    ids=lambda extra: f"{extra[1]:x}-{zlib.crc32(extra)}",
)
def test_a_jpeg_whose_other_segments_are_broken_or_large(extra):
    np.testing.assert_array_equal(decode(jpeg_with(extra)), decode(jpeg_with()))


def test_jpegs_of_other_colours():
    """CMYK as Photoshop writes it, inverted; RGB that says that it is not YCbCr."""
    ink = Image.fromarray(PIXELS).convert("CMYK")
    out = io.BytesIO()
    ink.save(out, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in out.getvalue()
    np.testing.assert_allclose(decode(out.getvalue()).astype(int), np.asarray(ink.convert("RGB")), atol=20)
    rgb = encode(PIXELS, "JPEG", quality=100, subsampling=0, keep_rgb=True)
    np.testing.assert_allclose(decode(rgb).astype(int), PIXELS, atol=6)


@pytest.mark.parametrize(
    "extra",
    [
        riff(b"EXIF", b"Exif\0\0" + b"\xff" * 40),
        riff(b"EXIF", b""),
        riff(b"ICCP", b"broken"),
        riff(b"XMP ", b"<broken"),
        riff(b"OTHR", b"1") * 100,
        riff(b"EXIF", b"cut", size=1000),
    ],
    ids=lambda extra: f"{extra[:4]}-{zlib.crc32(extra)}",
)
def test_a_webp_whose_other_chunks_are_broken(extra):
    np.testing.assert_array_equal(decode(webp_with(extra)), PIXELS)


def test_orientation_of_a_webp_and_by_xmp():
    turned = np.rot90(PIXELS)  # orientation 3 is half a turn, 6 a quarter
    np.testing.assert_array_equal(decode(webp_with(riff(b"EXIF", EXIF), array=PIXELS[::-1, ::-1].copy())), PIXELS)
    packet = b'<rdf:Description tiff:Orientation="6"/>'
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    np.testing.assert_array_equal(decode(png_with(text, array=turned.copy())), PIXELS)
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)
    assert decode(jpeg_with(xmp)).shape == (WIDTH, HEIGHT, 3)
    assert decode(jpeg_with(xmp, segment(0xE1, EXIF))).shape == (HEIGHT, WIDTH, 3), "EXIF goes first"


@pytest.mark.parametrize(
    "extra",
    [
        b"!\xfe\x05abc",  # the comment goes on into the picture: five bytes, then what follows as lengths
        b"!\xfe\0",
        b"!\xff\x0bNETSCAPE2.0\0",
        b"!\xf9\x01\0\0",
        b"!\x01\x0cbroken text.\0",
        b"!\xfe" + b"\xff" + b"a" * 255 + b"\0",
        b"\0\0\0",
    ],
)
def test_a_gif_with_broken_extensions(extra):
    try:
        decoded = decode(gif_with(extra))
    except errors.PictureError:
        assert extra == b"!\xfe\x05abc", "it swallows its frame"
    else:
        np.testing.assert_array_equal(decoded, GREYS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize(
    "extra",
    [
        (34675, 7, 2**31, 2**31),  # an ICC profile that is not there
        (34665, 4, 1, 2**31),  # nor EXIF's directory
        (700, 1, 10**6, 8),  # XMP longer than the file
        (282, 5, 1, 2**31),  # a resolution
        (33432, 2, 500, 10**6),
        (50000, 99, 1, 1),  # of a type that there is not
        (270, 2, 2**32 - 1, 8),
    ],
)
def test_a_tiff_with_a_broken_tag(extra, compression):
    np.testing.assert_array_equal(decode(tiff_with([extra], compression=compression)), PIXELS)


def test_a_tiff_with_repeated_tags_is_that_of_the_first():
    np.testing.assert_array_equal(decode(tiff_with([(256, 4, 1, 7000), (257, 4, 1, 7000)])), PIXELS)


def test_tiffs_upright_and_with_64_bit_offsets():
    for orientation in range(1, 9):
        options = TiffImagePlugin.ImageFileDirectory_v2()
        options[274] = orientation
        exif = Image.Exif()
        exif[0x0112] = orientation
        same = encode(PIXELS, "PNG", exif=exif.tobytes())
        for big in (False, True):
            data = encode(PIXELS, "TIFF", tiffinfo=options, big_tiff=big)
            np.testing.assert_array_equal(decode(data), decode(same))


# ------------------------------------------------------------------------------------------------ bits


@pytest.mark.parametrize(
    ("highest", "white"), [(255, 255), (256, 4095), (4095, 4095), (4096, 65_535), (65_535, 65_535), (1, 255)]
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_greys_of_fewer_bits_than_there_is_room_for(kind, highest, white):
    values = np.linspace(0, highest, 64).astype(np.uint16).reshape(8, 8)
    np.testing.assert_allclose(decode(encode(values, kind)), values * (255 / white), atol=0.51)


def test_what_a_file_says_of_its_bits_goes_first():
    values = np.linspace(0, 200, 64).astype(np.uint16).reshape(8, 8)
    assert decode(png_with(chunk(b"sBIT", b"\x10"), array=values)).max() == 1  # of 65,535
    assert decode(png_with(chunk(b"sBIT", b"\x0c"), array=values)).max() == 200
    for told, expected in [(1000, 51), (65_535, 1), (255, 200), (100, 200)]:  # one that is exceeded is wrong
        assert decode(tiff_with([(281, 3, 1, told)], array=values)).max() == expected


@pytest.mark.parametrize(
    ("highest", "white"), [(255, 255), (256, 4095), (4095, 4095), (4096, 65_535), (65_535, 65_535)]
)
@pytest.mark.parametrize("bands", [3, 4])
def test_colours_of_fewer_bits_than_there_is_room_for(highest, white, bands):
    values = np.linspace(0, highest, 8 * 8 * 3).astype(np.uint16).reshape(8, 8, 3)
    opaque = np.concatenate([values, np.full((8, 8, bands - 3), 65_535, np.uint16)], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in opaque)
    header = struct.pack(">IIBBBBB", 8, 8, 16, {3: 2, 4: 6}[bands], 0, 0, 0)

    def file(*extra):
        body = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        return b"\x89PNG\r\n\x1a\n" + body

    np.testing.assert_allclose(decode(file()), values * (255 / white), atol=1)
    np.testing.assert_allclose(decode(file(chunk(b"sBIT", b"\x10" * bands))), values * (255 / 65_535), atol=1)


def test_twelve_bits_packed():
    """Two values in three bytes, as cameras write them: BitsPerSample says it."""
    packed = np.array([[0x80, 0x00, 0x40]] * 8, np.uint8).tobytes()  # 2048 and 64
    entries = [(256, 4, 1, 2), (257, 4, 1, 8), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 8), (279, 4, 1, 24)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *each) for each in entries)
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)
    np.testing.assert_array_equal(decode(data), [[128, 4]] * 8)


# ------------------------------------------------------------------------------------------------ bombs


def scans(count, side=64, progressive=True):
    """A JPEG whose last scan comes again and again."""
    data = encode(np.zeros((side, side), np.uint8), "JPEG", progressive=progressive)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + b"\xff\xd9"


def sequential_scans(count):
    """A JPEG that is not progressive, whose components have scans of their own, the first one again and again."""
    data = encode(PIXELS, "JPEG", subsampling=0)
    start = data.index(b"\xff\xda")
    one = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    return data[:start] + (one + b"\x55" * 60) * count + b"\xff\xd9"


def refused(data, error, *words):
    started = time.thread_time()
    with pytest.raises(error) as caught:
        decode(data)
    assert time.thread_time() - started < 2
    assert all(word in caught.value.message for word in words), caught.value.message


def test_jpegs_of_many_scans():
    assert decode(scans(80)).shape == (64, 64)
    for data in (scans(4000), scans(4000, 7000), sequential_scans(200)):
        refused(data, errors.PictureError, "scans", "Save it again")


def test_scans_are_counted_where_they_are():
    """Not in thumbnails, nor after the end, where telephones put films."""
    thumbnail = segment(0xE1, b"Exif\0\0MM\0*" + b"\xff\xda\0\x08" * 4000)
    film = b"\xff\xda\0\x08" * 4000
    for options in ({"progressive": True}, {}):
        plain = decode(jpeg_with(**options))
        np.testing.assert_array_equal(decode(jpeg_with(thumbnail, **options) + film), plain)


def header_only(kind):
    """The beginning of a file of 10,000 x 10,000 pixels."""
    side = 10_000
    if kind == "PNG":
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    if kind == "GIF":
        return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0)
    if kind == "BMP":
        return b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, side, -side, 1, 24, 0) + bytes(20)
    if kind == "WEBP":
        return webp_with()[:24] + (side - 1).to_bytes(3, "little") * 2 + bytes(20)
    if kind == "TIFF":
        return b"II*\0\x08\0\0\0\x02\0" + b"".join(struct.pack("<HHII", tag, 4, 1, side) for tag in (256, 257))
    return b"\xff\xd8" + segment(0xC0, struct.pack(">BHHB", 8, side, side, 3) + bytes(9))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG"])
def test_the_size_is_read_before_anything_else(kind):
    with pytest.raises(errors.PictureTooLargeError, match="10000 x 10000, 100,000,000 pixels"):
        imaging.read_header(header_only(kind), LIMIT)


def test_files_that_say_twice_how_large_they_are():
    small, large = (struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0) for side in (8, 7000))
    refused(png_with(chunk(b"IHDR", small), chunk(b"IHDR", large)), errors.PictureError)
    frames = [segment(0xC0, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0") for side in (8, 7000)]
    refused(jpeg_with(*frames), errors.PictureError)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (png_with(chunk(b"tEXt", b"") * 100_000), "chunks"),
        (png_with(chunk(b"IDAT", b"") * 100_000), "chunks"),
        (webp_with(riff(b"OTHR", b"") * 100_000), "chunks"),
        (gif_with(b"!\xfe\x01a\0" * 100_000), "before its first frame"),
        (gif_with(b"!\xfe" + b"\x01a" * 1_000_000 + b"\0"), "before its first frame"),
        (gif_with((b"!\xfe" + b"\x01a" * 10_000 + b"\0") * 500), "before its first frame"),
        (jpeg_with(segment(0xFE, b"") + b"\xff\xd0" * 4_000_000), "frame"),
        (jpeg_with((segment(0xFE, b"") + b"\xff\xd0" * 1000) * 4000), "frame"),
        (jpeg_with(segment(0xFE, b"") * 100_000), "segments"),
        (tiff_with([(60_000, 4, 1, 0)] * 60_000), "entries"),
    ],
    ids=lambda value: f"{value[:4]!r}-{zlib.crc32(value)}" if isinstance(value, bytes) else "",
)
def test_files_of_many_parts(data, word):
    refused(data, errors.PictureError, word)

    def read_header():  # on the event loop
        with contextlib.suppress(errors.PictureError):
            imaging.read_header(data, LIMIT)

    assert least_cpu_seconds(read_header) < 0.05


def test_a_repeated_list_of_strips():
    """The first entry of a tag is the one that counts."""
    assert decode(tiff_with([(273, 4, 200_000, 8)], array=np.zeros((700, 700, 3), np.uint8))).shape == (700, 700, 3)


def test_a_tiff_of_many_strips():
    data = bytearray(tiff_with(array=np.zeros((700, 700, 3), np.uint8)))
    place = data.rindex(struct.pack("<HH", 273, 4))
    struct.pack_into("<II", data, place + 4, 300_000, 8)
    refused(bytes(data), errors.PictureError, "strips")


def test_a_tiff_whose_tags_share_their_bytes_is_not_read_for_each_of_them():
    """1,000 tags of a megabyte in a file of a megabyte."""
    array = np.zeros((600, 600, 3), np.uint8)
    data = tiff_with([(40_000 + index, 7, 1_000_000, 8) for index in range(1000)], array=array)
    started = time.thread_time()
    assert decode(data).shape == array.shape
    assert time.thread_time() - started < 2


def test_frames_and_pages_after_the_first_are_not_looked_at(monkeypatch):
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in range(0, 256, 16)]
    for kind in ("GIF", "PNG", "TIFF", "WEBP"):
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:])
        assert not decode(out.getvalue()).any()
        cut = imaging.decoding._FORMATS[{"WEBP": "WebP"}.get(kind, kind)].strip(out.getvalue()).data
        with Image.open(io.BytesIO(cut)) as opened:
            assert kind == "GIF" or getattr(opened, "n_frames", 1) == 1


def test_run_lengths_are_bounded():
    def bmp(width, height, body):
        head = b"BM" + struct.pack("<IIIIiiHHIIIIII", 0, 0, 1078, 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
        return head + b"".join(bytes((i, i, i, 0)) for i in range(256)) + body

    assert decode(bmp(4, 1, b"\x04\xc8\0\1")).tolist() == [[200] * 4]
    refused(bmp(7000, 7000, b"\xff\0" * 200_000 + b"\0\1"), errors.PictureTooLargeError, "run lengths")
    refused(bmp(64, 64, b"\0\0" * 4_000_000), errors.PictureTooLargeError, "run lengths")


class EnoughError(Exception):
    """No more is wanted."""


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {})],
)
def test_decoding_can_be_given_up_between_pieces(kind, options):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500), np.uint8)
    data, looks = encode(noise, kind, **options), []

    def look():
        looks.append(1)
        if len(looks) > stop:
            raise EnoughError

    stop = float("inf")
    decode(data, look=look)
    assert kind == "TIFF" or len(looks) > 8
    stop = len(looks) // 2
    looks.clear()
    with pytest.raises(errors.PictureError) as caught:
        decode(data, look=look)
    assert isinstance(caught.value.__cause__, EnoughError)
    assert len(looks) == stop + 1


# ------------------------------------------------------------------------------------------------ Pillow's settings


@pytest.fixture
def unsettled(monkeypatch):
    """What a module of a user's may have set for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_settings_of_the_whole_process_change_nothing(kind, unsettled):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(noise, kind, **options)
    assert decode(data).shape[:2] == (64, 64)
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    refused(data[: len(data) // 2], errors.PictureError)
