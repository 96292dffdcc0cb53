"""The kinds of image that callers have, as the `Image` message and as a picture to draw on."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from xai_client.errors import ImageError
from xai_proto import explanation_pb2 as pb

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
"""A path, the bytes of an encoded file, a PIL image, a uint8 array (H, W, 3), (H, W, 1) or (H, W) of pixels, or, to
predict but not to draw on, a float32 or float16 array (C, H, W) that is a model input, resized and normalised."""

_KINDS = (
    "an image is a path, the bytes of an encoded file, a PIL image, a uint8 array (H, W, 3) or (H, W) of pixels, or a"
    " float32 or float16 array (C, H, W) that is a model input"
)
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_DTYPES = {"uint8": pb.DATA_TYPE_UINT8, "float32": pb.DATA_TYPE_FLOAT32, "float16": pb.DATA_TYPE_FLOAT16}


def to_message(image: ImageLike, message: pb.Image | None = None) -> pb.Image:
    """Makes the message for one image, without losing anything of it.

    Args:
        image: The image.
        message: Where to write it; None for a new message. To write it in its place in a request saves two copies of
            it, of up to a millisecond each for a model input.

    Raises:
        ImageError: It is of a kind that cannot be sent.
        OSError: The file cannot be read; FileNotFoundError if there is none.
    """
    message = pb.Image() if message is None else message
    if isinstance(image, np.ndarray):
        _write_array(image, message)
    elif isinstance(image, Image.Image):
        message.encoded = _png(image)
    elif encoded := _encoded(image):
        message.encoded = encoded
    else:
        raise ImageError("the image is empty: it has no bytes")
    return message


def to_picture(image: ImageLike) -> Image.Image:
    """Opens an image for drawing: upright (EXIF orientation applied), mode RGB, transparency laid on white.

    Raises:
        ImageError: It is a model input, or cannot be decoded.
        OSError: The file cannot be read; FileNotFoundError if there is none.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ImageError(f"an overlay needs the picture itself, not a {image.dtype} array of shape {image.shape}")
        return Image.fromarray(np.squeeze(_pixels(image), axis=2) if image.shape[2:] == (1,) else image).convert("RGB")
    if isinstance(image, Image.Image):
        return _rgb(_upright(image))
    encoded = _encoded(image)
    try:
        opened = Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError as error:
        raise ImageError("the image cannot be decoded: these bytes are no picture; send a JPEG or a PNG") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"the image cannot be decoded: {error}") from error
    return _rgb(_upright(opened))


def _encoded(image: Any) -> bytes:
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    raise ImageError(f"{_KINDS}; this is a {type(image).__module__}.{type(image).__qualname__}")


def _write_array(array: NDArray[Any], message: pb.Image) -> None:
    if array.dtype == np.uint8:
        _write_tensor(_pixels(array), message.pixels)
    elif array.dtype.name in ("float32", "float16"):
        if array.ndim != 3 or array.size == 0:
            raise ImageError(f"a model input has the shape (C, H, W), not {array.shape}")
        _write_tensor(array, message.model_input)
    else:
        raise ImageError(f"{_KINDS}; this is an array of {array.dtype}: cast it to one of these")


def _pixels(array: NDArray[Any]) -> NDArray[Any]:
    """Checks pixels; returns them with their channel axis."""
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
        raise ImageError(f"pixels have the shape (H, W, 3) or (H, W), not {array.shape}; for others use a PIL image")
    return pixels


def _write_tensor(array: NDArray[Any], tensor: pb.Tensor) -> None:
    little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    tensor.dtype = _DTYPES[array.dtype.name]
    tensor.shape.extend(array.shape)
    tensor.data = little_endian.tobytes()


def _png(image: Image.Image) -> bytes:
    upright = _upright(image)
    if upright.mode in ("I", "F"):
        raise ImageError(f"a PIL image of mode {upright.mode!r} has no fixed range; convert it to 'RGB' or 'L' first")
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    buffer = io.BytesIO()
    # The lowest level is several times faster than the default and hardly larger for photographs.
    upright.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    if not image.width or not image.height:
        raise ImageError(f"the image is empty: {image.width} x {image.height} pixels")
    try:
        if image.mode.startswith("I;16"):  # one byte order, since Pillow converts and saves the others wrongly
            image = Image.fromarray(np.asarray(image).astype(np.uint16))
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"the image cannot be decoded: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I;16":  # as the server does it: 65,535 becomes 255
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
