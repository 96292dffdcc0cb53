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
from xai_sidecar.imaging.files import Header, Stripped, broken
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
    header = read_header(data, max_pixels)
    with _as_picture_errors(header.format):
        stripped = _FORMATS[header.format].strip(data)
        opened = _loaded(stripped, header, look)
        if header.format == "PNG" and has_deep_colours(stripped.data) and _is_dark(opened):
            opened = _deep_colours(opened, _loaded(stripped, header, look, lower=True), stripped.white_level)
        picture = _eight_bits(opened, stripped.white_level)
        look()
        turn = _UPRIGHT.get(stripped.orientation)
        return picture if turn is None else picture.transpose(turn)


def load_png(data: bytes) -> Image.Image:
    """Loads a PNG without conversion: in any mode, with its transparency and palette.

    Raises:
        PictureError: It cannot be decoded.
    """
    with _as_picture_errors("PNG"):
        return _loaded(strip_png(data), png_header(data), lambda: None)


def _loaded(stripped: Stripped, header: Header, look: Callable[[], None], *, lower: bool = False) -> Image.Image:
    """A file's pixels; the lower eight bits of colours that have 16, where they are wanted."""
    _hold_settings()
    opened = _FORMATS[header.format].reader(_WatchedFile(stripped.data, look))
    if opened.size != (header.width, header.height):
        raise broken(header.format, "it says twice how large it is, and not the same")
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


def _is_dark(opened: Image.Image) -> bool:
    """Whether all values of 16 bits fit in 12."""
    return max(int(band.getextrema()[1]) for band in opened.split()[:3]) <= 15  # type: ignore[arg-type]


def _deep_colours(upper: Image.Image, lower: Image.Image, white_level: int | None) -> Image.Image:
    """Colours of 16 bits, scaled as greys are; transparency has its upper bits."""
    values = np.asarray(upper).astype(np.uint32) * 256 + np.asarray(lower)
    scaled = np.array(upper)
    scaled[..., :3] = _scaled(values[..., :3], white_level)
    return Image.fromarray(scaled)


def _eight_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    if opened.mode.startswith("I;16"):
        return _from_16_bits(opened, white_level)
    if opened.mode in ("I", "F"):
        return _from_32_bits(opened, white_level)
    if opened.has_transparency_data:
        return _on_white(opened)
    if opened.mode in ("L", "RGB"):
        return opened
    return opened.convert("L" if opened.mode == "1" else "RGB")


def _on_white(opened: Image.Image) -> Image.Image:
    grey = opened.mode in ("1", "L", "LA", "La")
    layer = opened.convert("LA" if grey else "RGBA")
    ground = Image.new("L" if grey else "RGB", layer.size, "white")
    ground.paste(layer.convert(ground.mode), mask=layer.getchannel("A"))
    return ground


def _from_16_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    values = np.asarray(opened)
    grey = _scaled(values, white_level)
    transparent = opened.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _from_32_bits(opened: Image.Image, white_level: int | None) -> Image.Image:
    values = np.asarray(opened)
    low, high = float(values.min()), float(values.max())
    if opened.mode == "F":
        if not (low >= 0.0 and high <= 1.0):
            raise PictureError(
                f"The picture's floats go from {low:g} to {high:g}, where 0 to 1 can be shown. "
                "Scale them or save 8 bits."
            )
        return Image.fromarray(np.rint(values * np.float32(255)).astype(np.uint8))
    if low < 0 or high > 65_535:
        raise PictureError(
            f"The picture's 32-bit values go from {low:.0f} to {high:.0f}, where 0 to 65535 can be shown. "
            "Scale them or save 8 bits."
        )
    return Image.fromarray(_scaled(values, white_level))


def _scaled(values: NDArray[Any], white_level: int | None) -> NDArray[np.uint8]:
    """Values with `white_level` as 255, rounded; where unknown, the fewest of 8, 12 and 16 bits that hold them."""
    highest = int(values.max())
    declared = white_level if white_level is not None and highest <= white_level else None
    white = declared or next(white for white in (255, 4095, 65_535) if highest <= white)
    return ((np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
