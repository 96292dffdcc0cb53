"""The picture of a sample, put together from what is kept of it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from xai_client import ModelInfo, Sample, SampleSummary
from xai_client.colours import FloatArray
from xai_client.samples import MaskingCurve
from xai_console.overlay import Box
from xai_console.shelf import Shelf, url_of

_LONGEST_SIDE = 900
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Shown:
    """A picture that browsers can show.

    Attributes:
        url: Of it; None where nothing of it is kept.
        size: Width and height of the upright picture as it was, or of the model input where one was sent.
        region: The part of it that the model saw.
    """

    url: str | None
    size: tuple[int, int]
    region: Box


def place(summary: SampleSummary) -> tuple[tuple[int, int], Box]:
    """The size of a sample's picture and the part of it that the model saw, as of `Shown`."""
    width, height = summary.picture_size or summary.frame
    return (width, height), summary.region or (0.0, 0.0, float(width), float(height))


def thumbnail(summary: SampleSummary, shelf: Shelf) -> Shown:
    """The whole picture, small, as lists of samples have it."""
    jpeg = summary.thumbnail_jpeg
    return Shown(url_of(shelf.put(jpeg, "image/jpeg")) if jpeg else None, *place(summary))


def shown(sample: Sample, shelf: Shelf) -> Shown:
    """The whole picture, coarse, with the part that the model saw as fine as the model saw it."""
    summary, seen = sample.summary, sample.picture
    size, region = place(summary)
    if seen is None and not summary.thumbnail_jpeg:
        return Shown(None, size, region)
    scale = min(1.0, _LONGEST_SIDE / max(size))
    canvas = Image.new("RGB", (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), _GREY)
    if summary.thumbnail_jpeg:
        with Image.open(io.BytesIO(summary.thumbnail_jpeg), formats=["JPEG"]) as thumbnail:
            canvas.paste(thumbnail.convert("RGB").resize(canvas.size, Image.Resampling.BICUBIC))
    if seen is not None:
        left, top, right, bottom = (round(edge * scale) for edge in region)
        canvas.paste(seen.convert("RGB").resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
    return Shown(url_of(shelf.put(_encoded(canvas), "image/jpeg")), size, region)


def masked(picture: Image.Image, saliency: FloatArray, curve: MaskingCurve, step: int, info: ModelInfo) -> Image.Image:
    """What the model sees at a step of a curve.

    Args:
        picture: What it saw (`Sample.picture`).
        saliency: The map that the curve is of, (H, W), as large as the picture.
        curve: The curve.
        step: Index into `curve.pixel_counts`.
        info: The model, for its mean colour.
    """
    seen = picture.convert("RGB")
    keep = Image.fromarray(curve.shown(saliency, step).astype(np.uint8) * 255)
    return Image.composite(seen, _fill(seen, curve.fill, info), keep)


def _fill(seen: Image.Image, fill: str, info: ModelInfo) -> Image.Image:
    if fill == "blurred":
        return seen.filter(ImageFilter.GaussianBlur(min(seen.size) / 20))
    if fill == "rise_blur":  # 11 x 11 pixels of the model's input, of nearly equal weights
        scale = min(seen.size) / min(info.input.height, info.input.width)
        return seen.filter(ImageFilter.BoxBlur(5 * scale))
    mean = info.input.mean_colour or (0.5,)
    colour = (0, 0, 0) if fill == "black" else tuple(round(255 * each) for each in (mean * 3)[:3])
    return Image.new("RGB", seen.size, colour)


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
