"""Prepares an upright picture as model input, and computes the region of the picture that it covers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_sidecar.errors import ConfigError, TensorError
from xai_sidecar.imaging.geometry import Decoded, Region
from xai_sidecar.picture_units import PictureUnits

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# Of pictures in [0, 1] no mean is above 1 and no standard deviation above 0.5; nets may want another range, though.
_LARGEST_STATISTIC = 2.0

# Pillow keeps the corners of a box in float32; up to this side they stay right to a five-hundredth of a pixel.
_EXACT_SIDE = 1 << 14

# The most pixels between the two passes of a resize.
_LARGEST_BETWEEN = 1 << 24

_LANCZOS_SUPPORT = 3

_SPARE = 4
"""Pixels that a reduced picture keeps for each that is wanted, along each side.

A decoder averages, where a resize has a better filter: with 2, what remained of sharp edges moved probabilities of
EfficientNet-Lite0 by up to 0.024, with 4 by up to 0.006, as much as the rounding of an eighth of all pixels does.
"""


@dataclass(frozen=True)
class InputSpec:
    """The input of a net, and how pictures are prepared for it.

    Without `stretch` a picture keeps its proportions and is scaled by the smallest factor at which it covers
    `resize_height` x `resize_width`; with it, it is scaled to exactly that size. Then the centre is cropped. With
    `letterbox` it is scaled by the largest factor at which it fits in `height` x `width`, and what is left on two sides
    is the mean colour.

    Attributes:
        channels: 1 (luma) or 3 (RGB).
        height: Of the model's input, in pixels.
        width: Of the model's input, in pixels.
        resize_height: Height to be covered before the crop, in pixels; at least `height`.
        resize_width: Width to be covered before the crop, in pixels; at least `width`.
        stretch: Whether the proportions may change.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased but for "nearest".
        mean: Per channel, of a picture scaled to [0, 1].
        std: Per channel, of a picture scaled to [0, 1]; above 0.
        mean_colour: Colour of covered pixels and of a letterbox's border, in [0, 1]; one number per channel, or one
            for all.
        letterbox: Whether the whole picture is shown.
        exact_decoding: Whether files are decoded at full scale, also where much less of them is needed.

    Raises:
        ConfigError: The values do not fit together.
    """

    channels: int
    height: int
    width: int
    resize_height: int
    resize_width: int
    stretch: bool
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_colour: tuple[float, ...] = (0.5,)
    letterbox: bool = False
    exact_decoding: bool = False

    @property
    def units(self) -> PictureUnits:
        """The conversion between values of the input and of a picture."""
        return PictureUnits(self.mean, self.std, self.mean_colour)

    def __repr__(self) -> str:
        """Text without fields that change nothing. It is part of versions: a field added later must not change it.

        How exactly files are decoded is not in it: that changes an answer less than saving the picture as a JPEG once
        more does, and must not cost the quality that was measured, or an OoD net.
        """
        idle = {
            "letterbox": not self.letterbox,
            "mean_colour": self.mean_colour == self.mean,
            "exact_decoding": True,
        }
        shown = [each.name for each in fields(self) if not idle.get(each.name)]
        return f"InputSpec({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __post_init__(self) -> None:
        for key, wrong, message in self._faults():
            if wrong:
                raise ConfigError(message, field=f"model.input.{key}")

    def _faults(self) -> Iterator[tuple[str, bool, str]]:
        size, resize = f"{self.height} x {self.width}", f"{self.resize_height} x {self.resize_width}"
        yield (
            "channels",
            self.channels not in (1, 3),
            f"The input has {self.channels} channels. Use 1 (grey) or 3 (RGB).",
        )
        yield "size", min(self.height, self.width) < 1, f"The input size is {size}. Both sides must be at least 1."
        yield (
            "resize",
            self.resize_height < self.height or self.resize_width < self.width,
            f"Pictures are resized to {resize}, less than the input of {size}. Resize to at least the input's size.",
        )
        yield (
            "letterbox",
            self.letterbox and self.stretch,
            "Pictures cannot be both stretched and shown whole with a border. Set letterbox or stretch.",
        )
        yield (
            "resize",
            self.letterbox and (self.resize_height, self.resize_width) != (self.height, self.width),
            f"Pictures are resized to {resize}, which means nothing where they are scaled to fit in the input of "
            f"{size}. Leave out resize, or letterbox.",
        )
        yield (
            "interpolation",
            self.interpolation not in _FILTERS,
            f"The interpolation is {self.interpolation!r}. Use one of {', '.join(_FILTERS)}.",
        )
        for name, values in (("mean", self.mean), ("std", self.std)):
            yield (
                name,
                len(values) != self.channels or not all(map(math.isfinite, values)),
                f"The {name} is {values}. Give one finite number for each of the {self.channels} channels.",
            )
        yield (
            "mean_colour",
            len(self.mean_colour) not in (1, self.channels) or not all(0 <= value <= 1 for value in self.mean_colour),
            f"The mean colour is {self.mean_colour}. Give one number from 0 to 1 for each of the {self.channels} "
            "channels.",
        )
        yield "std", min(self.std, default=0.0) <= 0, f"The std is {self.std}. Every value must be above 0."
        for name, values in (("mean", self.mean), ("std", self.std)):
            yield (
                name,
                max(map(abs, values)) > _LARGEST_STATISTIC,
                f"The {name} is {values}, as of pixels from 0 to 255, but pictures are scaled to [0, 1] first: nothing "
                "of them would be left. Divide model.input.mean and model.input.std by 255.",
            )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model input and the region of its picture.

    Attributes:
        array: (C, H, W) float32, contiguous, normalised.
        picture_size: (width, height) of the upright picture; None if a model input was sent.
        region: What `array` covers of the upright picture; None if a model input was sent.
    """

    array: NDArray[np.float32]
    picture_size: tuple[int, int] | None
    region: Region | None


def prepare(picture: Image.Image, spec: InputSpec) -> Prepared:
    """Resizes, crops and normalises an upright picture into a model input.

    Args:
        picture: Of mode "L" or "RGB", as from `decode` or `from_pixels`.
        spec: The net's input.

    Returns:
        The input, float32 (channels, height, width), and the region of the picture that it covers.
    """
    return prepare_decoded(Decoded.whole(picture), spec)


def prepare_decoded(decoded: Decoded, spec: InputSpec) -> Prepared:
    """As `prepare`; size and region are those of the picture at full scale."""
    if spec.letterbox:
        return _letterboxed(decoded, spec)
    picture, (width, height) = decoded.picture, decoded.size
    resized = _resized_size(decoded.size, spec)
    left, top = (resized[0] - spec.width) // 2, (resized[1] - spec.height) // 2
    region = Region(
        left * width / resized[0],
        top * height / resized[1],
        (left + spec.width) * width / resized[0],
        (top + spec.height) * height / resized[1],
    )
    if spec.interpolation == "nearest":
        cropped = _nearest(picture, resized, (left, top), spec)
    else:
        cropped = _resample(picture, decoded.place(region), spec)
    mode = "L" if spec.channels == 1 else "RGB"
    return Prepared(_normalise(cropped.convert(mode), spec), decoded.size, region)


def reduction(size: tuple[int, int], spec: InputSpec) -> float:
    """By how much a picture may be smaller when it is decoded: at least four times what is wanted is left.

    Args:
        size: (width, height) of the upright picture.
        spec: The net's input.

    Returns:
        The factor; 1 where all pixels count, or there are none.
    """
    if spec.exact_decoding or spec.interpolation == "nearest" or min(size) < 1:
        return 1.0
    wanted = _letterbox_size(size, spec) if spec.letterbox else _resized_size(size, spec)
    return max(1.0, min(side / (_SPARE * few) for side, few in zip(size, wanted, strict=True)))


def _letterbox_size(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """(width, height) of the whole picture in a letterbox."""
    scale = min(spec.width / size[0], spec.height / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _letterboxed(decoded: Decoded, spec: InputSpec) -> Prepared:
    width, height = _letterbox_size(decoded.size, spec)
    whole = replace(
        spec, letterbox=False, stretch=True, width=width, height=height, resize_width=width, resize_height=height
    )
    shown = prepare_decoded(decoded, whole)
    left, top = (spec.width - width) // 2, (spec.height - height) // 2
    array = np.empty((spec.channels, spec.height, spec.width), np.float32)
    array[:] = spec.units.fill
    array[:, top : top + height, left : left + width] = shown.array
    across, down = decoded.size[0] / width, decoded.size[1] / height
    region = Region(-left * across, -top * down, (spec.width - left) * across, (spec.height - top) * down)
    return Prepared(array, decoded.size, region)


def check_model_input(array: NDArray[Any], spec: InputSpec) -> Prepared:
    """Checks a model input that the caller has prepared.

    Args:
        array: (channels, height, width), float32 or float16, finite, normalised.
        spec: The net's input.

    Returns:
        The same values in float32, without a picture and a region.

    Raises:
        TensorError: Another shape or dtype, or a NaN or infinity among the values.
    """
    shape = (spec.channels, spec.height, spec.width)
    if array.dtype not in (np.dtype(np.float32), np.dtype(np.float16)) or array.shape != shape:
        raise TensorError(
            f"The model input is {array.dtype} of shape {array.shape}. Send float32 or float16 of shape {shape}."
        )
    finite = np.isfinite(array)
    if not finite.all():  # to count them takes four times as long
        raise TensorError(
            f"{np.count_nonzero(~finite)} of the model input's {array.size} values are NaN or infinite. "
            "Send finite values only."
        )
    return Prepared(np.ascontiguousarray(array, dtype=np.float32), None, None)


def _resized_size(size: tuple[int, int], spec: InputSpec) -> tuple[int, int]:
    """(width, height) of the whole picture when resized; the side that is not given, rounded to the nearest."""
    width, height = size
    if spec.stretch:
        return spec.resize_width, spec.resize_height
    if spec.resize_width * height >= spec.resize_height * width:
        return spec.resize_width, _rounded(spec.resize_width * height, width)
    return _rounded(spec.resize_height * width, height), spec.resize_height


def _rounded(dividend: int, divisor: int) -> int:
    return (2 * dividend + divisor) // (2 * divisor)


def _resample(picture: Image.Image, region: Region, spec: InputSpec) -> Image.Image:
    """Computes the crop alone: as resizing everything and cropping then, but for the rounding of boxes in Pillow.

    Columns first, as Pillow did before it began to choose the order by the cost, which the crop would change; the
    values in between are clipped to 8 bits, so that the order shows at hard edges.
    """
    resample = _FILTERS[spec.interpolation]
    across, down = (region.right - region.left) / spec.width, (region.bottom - region.top) / spec.height
    left, right = _reach(region.left, region.right, across, picture.width)
    top, bottom = _reach(region.top, region.bottom, down, picture.height)
    if picture.width > _EXACT_SIDE * max(1.0, across) or picture.height > _EXACT_SIDE * max(1.0, down):
        picture = picture.crop((left, top, right, bottom))
        region = Region(region.left - left, region.top - top, region.right - left, region.bottom - top)
        top, bottom = 0, bottom - top
    if spec.width * (bottom - top) > _LARGEST_BETWEEN:  # Only a very tall picture, stretched: its rows first after all.
        rows = (0, region.top, picture.width, region.bottom)
        picture = picture.resize((picture.width, spec.height), resample, box=rows)
        region = Region(region.left, 0, region.right, spec.height)
        top, bottom = 0, spec.height
    narrow = picture.resize((spec.width, bottom - top), resample, box=(region.left, top, region.right, bottom))
    inner = (0, region.top - top, spec.width, region.bottom - top)
    return narrow.resize((spec.width, spec.height), resample, box=inner)


def _reach(start: float, stop: float, scale: float, side: int) -> tuple[int, int]:
    """The whole pixels, of `side`, that a filter looks at to shrink the span by `scale`."""
    margin = _LANCZOS_SUPPORT * max(1.0, scale) + 1
    return max(0, math.floor(start - margin)), min(side, math.ceil(stop + margin))


def _nearest(picture: Image.Image, resized: tuple[int, int], corner: tuple[int, int], spec: InputSpec) -> Image.Image:
    """The pixel under each centre, in whole numbers: with a rounded box, a centre on an edge falls to either side."""
    columns = (2 * (corner[0] + np.arange(spec.width, dtype=np.int64)) + 1) * picture.width // (2 * resized[0])
    rows = (2 * (corner[1] + np.arange(spec.height, dtype=np.int64)) + 1) * picture.height // (2 * resized[1])
    return Image.fromarray(np.asarray(picture)[rows[:, None], columns])


def _normalise(picture: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    mean, std = np.asarray(spec.mean, np.float64), np.asarray(spec.std, np.float64)
    gain = (1.0 / (255.0 * std)).astype(np.float32)
    shift = (-mean / std).astype(np.float32)
    pixels = np.asarray(picture).reshape(spec.height, spec.width, spec.channels).transpose(2, 0, 1)
    array = np.empty(pixels.shape, np.float32)
    np.multiply(pixels, gain[:, None, None], out=array)
    array += shift[:, None, None]
    return array
