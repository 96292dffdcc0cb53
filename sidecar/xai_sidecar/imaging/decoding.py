"""From bytes or pixels to an upright picture of eight bits."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
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

_FORMATS = "JPEG, PNG, WebP, GIF, BMP or TIFF"

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_ORIENTATION_TAG = 0x0112


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF picture, upright, to eight bits.

    The EXIF orientation is applied; transparency is laid on white; of an animation the first frame counts. 16-bit
    greys are scaled to 8. So are 32-bit whole numbers, if they go beyond 255 and not beyond 65,535; floats must lie in
    [0, 1]. The size is checked before any pixel is decoded.

    Args:
        data: The encoded picture.
        max_pixels: The most pixels, width times height, that are decoded.

    Returns:
        A picture of mode "L" or "RGB".

    Raises:
        PictureError: The bytes are no picture of these formats, cut short, corrupt, or of values that cannot be shown.
        PictureTooLargeError: The picture has more than `max_pixels` pixels.
    """
    name, reader = _reader(data)
    with _as_picture_errors(name):
        opened = reader(io.BytesIO(data))
    _check_size(f"{name} ", *opened.size, max_pixels)
    with _as_picture_errors(name):
        opened.load()
        picture = _eight_bits(opened)
        turn = _UPRIGHT.get(_orientation(opened))
        return picture if turn is None else picture.transpose(turn)


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


def _reader(data: bytes) -> tuple[str, Callable[[io.BytesIO], ImageFile.ImageFile]]:
    # The plug-ins are called directly, not through Image.open: that one warns and raises at limits of its own, set for
    # the whole process, where ours is `max_pixels`; and it turns a phone's JPEG into an MPO, read differently.
    if not data:
        raise PictureError(f"The picture is empty, 0 bytes. Send the bytes of a {_FORMATS} file.")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", JpegImagePlugin.JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", PngImagePlugin.PngImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", WebPImagePlugin.WebPImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF", GifImagePlugin.GifImageFile
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF", TiffImagePlugin.TiffImageFile
    if data.startswith(b"BM"):
        return "BMP", BmpImagePlugin.BmpImageFile
    raise PictureError(
        f"The {len(data):,} bytes, which begin with {data[:8]!r}, are no {_FORMATS} picture. "
        "Send the bytes of such a file, or its decoded pixels."
    )


@contextlib.contextmanager
def _as_picture_errors(name: str) -> Iterator[None]:
    try:
        yield
    except SidecarError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureTooLargeError(
            f"The {name} picture is too large: {error} Scale it down before sending it."
        ) from error
    except Exception as error:  # Corrupt bytes bring up whatever a decoder stumbles on, IndexError to zlib.error.
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise PictureError(
            f"The {name} picture cannot be decoded: {told.rstrip('.')}. "
            "Check that it was sent whole and opens in a viewer, or save it again as PNG or JPEG."
        ) from error


def _orientation(opened: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the EXIF data are broken, as that is no reason to refuse the pixels."""
    try:
        return int(opened.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def _eight_bits(opened: Image.Image) -> Image.Image:
    if opened.mode.startswith("I;16"):
        return _from_16_bits(opened)
    if opened.mode in ("I", "F"):
        return _from_32_bits(opened)
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


def _from_16_bits(opened: Image.Image) -> Image.Image:
    values = np.asarray(opened)
    grey = _sixteen_to_eight(values)
    transparent = opened.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _from_32_bits(opened: Image.Image) -> Image.Image:
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
    return Image.fromarray(values.astype(np.uint8) if high <= 255 else _sixteen_to_eight(values))


def _sixteen_to_eight(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Divides by 257, rounded: 65,535 becomes 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
