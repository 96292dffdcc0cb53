"""Decodes bytes or pixels to an upright picture of eight bits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from xai_sidecar.errors import PictureError, PictureTooLargeError, SidecarError, TensorError
from xai_sidecar.imaging.bmp import bmp_header, strip_bmp
from xai_sidecar.imaging.eight_bits import deep_colours, eight_bits, is_dark
from xai_sidecar.imaging.files import Header, Stripped, broken
from xai_sidecar.imaging.geometry import Decoded, Region
from xai_sidecar.imaging.gif import gif_header, strip_gif
from xai_sidecar.imaging.jpeg import jpeg_header, strip_jpeg
from xai_sidecar.imaging.png import has_deep_colours, png_header, strip_png
from xai_sidecar.imaging.tiff import strip_tiff, tiff_header
from xai_sidecar.imaging.webp import strip_webp, webp_header

_KNOWN = "JPEG, PNG, WebP, GIF, BMP or TIFF"

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNED = (5, 6, 7, 8)
"""Orientations by which width and height change places."""

Scale = Callable[[tuple[int, int]], float]
"""By how much an upright picture of a size, (width, height), may be smaller when it is decoded; 1 for not at all."""

_READ_WORK = 1 << 18
_READ_BYTES = (512, 1 << 16)
"""Work between two calls of `look`: about so many pixels, and a read of the file within these bounds."""


@dataclass(frozen=True)
class _Format:
    """The functions that read files of a format.

    Attributes:
        begins: The first bytes of such files.
        header: Reads the size.
        strip: Removes all that the pixels do not need.
        reader: Pillow's. They are called directly, not through Image.open: that one warns and raises at limits of its
            own, where ours is `max_pixels`; and it turns a phone's JPEG into an MPO, read differently.
    """

    begins: tuple[bytes, ...]
    header: Callable[[bytes], Header]
    strip: Callable[[bytes], Stripped]
    reader: Callable[[io.BytesIO], ImageFile.ImageFile]


_FORMATS = {
    "JPEG": _Format((b"\xff\xd8\xff",), jpeg_header, strip_jpeg, JpegImagePlugin.JpegImageFile),
    "PNG": _Format((b"\x89PNG\r\n\x1a\n",), png_header, strip_png, PngImagePlugin.PngImageFile),
    "WebP": _Format((b"RIFF",), webp_header, strip_webp, WebPImagePlugin.WebPImageFile),
    "GIF": _Format((b"GIF87a", b"GIF89a"), gif_header, strip_gif, GifImagePlugin.GifImageFile),
    "TIFF": _Format((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), tiff_header, strip_tiff, TiffImagePlugin.TiffImageFile),
    "BMP": _Format((b"BM",), bmp_header, strip_bmp, BmpImagePlugin.BmpImageFile),
}


def read_header(data: bytes, max_pixels: int) -> Header:
    """Reads format, size and decoding cost of a picture's file, in a millisecond at the most.

    Args:
        data: The encoded picture.
        max_pixels: The most pixels, width times height, that are decoded.

    Raises:
        PictureError: The bytes are no picture of these formats.
        PictureTooLargeError: The picture has more than `max_pixels` pixels.
    """
    name = _format_of(data)
    with _as_picture_errors(name):
        header = _FORMATS[name].header(data)
    _check_size(f"{name} ", header.width, header.height, max_pixels)
    return header


def decode(data: bytes, max_pixels: int, look: Callable[[], None] = lambda: None) -> Image.Image:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF picture, upright, to eight bits.

    The EXIF orientation is applied; transparency is laid on white; of an animation the first frame counts, of a TIFF
    the first page. Comments, profiles and other metadata are left out before a decoder sees them, and may be broken.
    The size is checked before any pixel is decoded.

    Greys of more than 8 bits, and colours of a PNG, are scaled to 8. White is what the file says: a TIFF's
    MaxSampleValue or BitsPerSample, 16 bits where a PNG's sBIT is 16. Where it says nothing, cameras' and microscopes'
    files often hold fewer bits than they have room for: values that are all below 256 are taken for 8 bits, all below
    4,096 for 12, others for 16.
    Floats must lie in [0, 1].

    Args:
        data: The encoded picture.
        max_pixels: The most pixels, width times height, that are decoded.
        look: Called between steps of the decoding; an exception that it raises ends it.

    Returns:
        A picture of mode "L" or "RGB".

    Raises:
        PictureError: The bytes are no picture of these formats, cut short, corrupt, or of values that cannot be shown.
        PictureTooLargeError: The picture has more than `max_pixels` pixels.
    """
    return decode_reduced(data, max_pixels, lambda size: 1, look).picture


def decode_reduced(data: bytes, max_pixels: int, scale: Scale, look: Callable[[], None] = lambda: None) -> Decoded:
    """Decodes a picture as `decode` does, at a reduced scale where that takes less time: JPEGs alone can be.

    Args:
        data: The encoded picture.
        max_pixels: The most pixels, width times height, that are decoded; as of full scale.
        scale: By how much the picture may be smaller. It will be by the greatest factor up to that which the decoder
            has.
        look: See `decode`.

    Raises:
        PictureError: See `decode`.
        PictureTooLargeError: See `decode`.
    """
    header = read_header(data, max_pixels)
    with _as_picture_errors(header.format):
        stripped = _FORMATS[header.format].strip(data)
        size = (header.width, header.height)
        upright = size[::-1] if stripped.orientation in _TURNED else size
        factor = max(each for each in header.scales if each <= max(1, scale(upright)))
        opened = _loaded(stripped, header, look, factor=factor)
        if header.format == "PNG" and has_deep_colours(stripped.data) and is_dark(opened):
            opened = deep_colours(opened, _loaded(stripped, header, look, lower=True), stripped.white_level)
        picture = eight_bits(opened, stripped.white_level)
        look()
        turn = _UPRIGHT.get(stripped.orientation)
        turned = picture if turn is None else picture.transpose(turn)
        return Decoded(turned, upright, _frame(size, picture.size, factor, stripped.orientation))


def _frame(size: tuple[int, int], reduced: tuple[int, int], factor: int, orientation: int) -> Region:
    """Where a picture lies on its reduced one when both are upright; before, all that is too much is right and below.

    Args:
        size: (width, height) as stored.
        reduced: (width, height) of the reduced one, as stored.
        factor: By how much it was reduced.
        orientation: As EXIF numbers it.
    """
    width, height = (side / factor for side in size)
    right, below = reduced[0] - width, reduced[1] - height
    if orientation in _TURNED:
        left = below if orientation in (6, 7) else 0.0
        top = right if orientation in (7, 8) else 0.0
        return Region(left, top, left + height, top + width)
    left = right if orientation in (2, 3) else 0.0
    top = below if orientation in (3, 4) else 0.0
    return Region(left, top, left + width, top + height)


def load_png(data: bytes) -> Image.Image:
    """Loads a PNG without conversion: in any mode, with its transparency and palette.

    Raises:
        PictureError: It cannot be decoded.
    """
    with _as_picture_errors("PNG"):
        return _loaded(strip_png(data), png_header(data), lambda: None)


def _loaded(
    stripped: Stripped, header: Header, look: Callable[[], None], *, lower: bool = False, factor: int = 1
) -> Image.Image:
    """A file's pixels, smaller by a factor; the lower eight bits of colours that have 16, where they are wanted."""
    _hold_settings()
    opened = _FORMATS[header.format].reader(_WatchedFile(stripped.data, look))
    if opened.size != (header.width, header.height):
        raise broken(header.format, "it says twice how large it is, and not the same")
    if factor > 1:
        opened.draft(None, (header.width // factor, header.height // factor))
        if opened.size != (-(-header.width // factor), -(-header.height // factor)):
            raise broken(header.format, f"reduced by {factor} it has the size {opened.size}")
    if lower:
        opened.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L")) for tile in opened.tile]
    opened.decodermaxblock = _read_bytes(len(stripped.data), header)
    opened.load()
    look()
    return opened


def _read_bytes(size: int, header: Header) -> int:
    least, most = _READ_BYTES
    return min(max(int(size * _READ_WORK / max(header.work, 1)), least), most)


class _WatchedFile(io.BytesIO):
    """A file that calls `look` whenever a decoder reads more of it."""

    def __init__(self, data: bytes, look: Callable[[], None]) -> None:
        super().__init__(data)
        self._look = look

    def read(self, size: int | None = -1, /) -> bytes:
        self._look()
        return super().read(size)


def _hold_settings() -> None:
    """Sets Pillow's process-wide settings, which a model's module may have changed, to those needed here."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None  # `max_pixels` is the limit


def from_pixels(array: NDArray[Any], max_pixels: int) -> Image.Image:
    """Makes a picture of decoded pixels.

    Args:
        array: (H, W, 3) RGB or (H, W, 1) grey, uint8, upright.
        max_pixels: The most pixels, width times height, that are taken.

    Returns:
        A picture of mode "RGB" or "L", independent of the array.

    Raises:
        TensorError: Another shape or dtype.
        PictureTooLargeError: The picture has more than `max_pixels` pixels.
    """
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3) or array.size == 0:
        raise TensorError(
            f"The pixels are {array.dtype} of shape {array.shape}. "
            "Send uint8 of shape (height, width, 3) or (height, width, 1), without a 0."
        )
    _check_size("", array.shape[1], array.shape[0], max_pixels)
    # A copy, because Pillow shares the memory of greys.
    return Image.fromarray(array[..., 0].copy() if array.shape[2] == 1 else np.ascontiguousarray(array))


def _check_size(kind: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"The {kind}picture is {width} x {height}, {width * height:,} pixels, of at most {max_pixels:,}. "
            "Scale it down before sending it."
        )


def _format_of(data: bytes) -> str:
    if not data:
        raise PictureError(f"The picture is empty, 0 bytes. Send the bytes of a {_KNOWN} file.")
    for name, form in _FORMATS.items():
        if data.startswith(form.begins) and (name != "WebP" or data[8:12] == b"WEBP"):
            return name
    raise PictureError(
        f"The {len(data):,} bytes, which begin with {data[:8]!r}, are no {_KNOWN} picture. "
        "Send the bytes of such a file, or its decoded pixels."
    )


@contextlib.contextmanager
def _as_picture_errors(name: str) -> Iterator[None]:
    try:
        yield
    except SidecarError:
        raise
    except Exception as error:  # With corrupt bytes decoders raise anything from IndexError to zlib.error.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(
            f"The {name} picture cannot be decoded: {reason.rstrip('.')}. "
            "Check that it was sent whole and opens in a viewer, or save it again as PNG or JPEG."
        ) from error
