"""Maps as pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_client.colours import scale_of
from xai_client.overlay import draw
from xai_sidecar.compat.arguments import check_type, to_array
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.picture_units import PictureUnits

_OPACITY = 0.6


def saliency_to_image(
    saliency: Any,
    original: Image.Image | None = None,
    cm: Callable[[NDArray[np.float32]], Any] | None = None,
    normalize: bool = True,
    with_alpha: bool = False,
) -> Image.Image:
    """Turns a map into a picture.

    Args:
        saliency: (H, W), or with further axes of length 1 as an explainer returns it for one picture; a tensor or an
            array.
        original: The picture that it explains, on which it is laid, enlarged by pixel centres; None for the map alone.
        cm: Colours of values: takes (H, W) in [0, 1] and returns (H, W, 3 or 4) in [0, 1], as Matplotlib's colour maps
            do. None for this project's own perceptually even colours, diverging about 0 where the map is signed.
        normalize: Whether colours span the map's own values, from the lowest to the highest; with False a `cm` gets
            them as they are, cut to [0, 1].
        with_alpha: Whether to return RGBA, more transparent the less a pixel matters; only without `original`.

    Returns:
        RGB, or RGBA; of the size of `original` if there is one.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: The map is of more than one picture, or not finite.
    """
    values = _single(to_array("saliency", saliency))
    check_type("original", original, Image.Image, type(None))
    if original is not None and cm is None:
        shown = draw(original, values, None, None, _OPACITY).image
        return shown.convert("RGBA") if with_alpha else shown
    if cm is None:
        scale = scale_of(values)
        indices = scale.indices(scale.levels(values))
        image = Image.fromarray(scale.colours()[indices])
        alpha = Image.fromarray(scale.opacity(1.0)[indices])
    else:
        levels = _levels(values, normalize)
        image = Image.fromarray(_bytes(np.asarray(cm(levels))[..., :3]))
        alpha = Image.fromarray(_bytes(levels))
    if original is not None:
        large, opacity = (each.resize(original.size, Image.Resampling.BILINEAR) for each in (image, alpha))
        opacity = opacity.point(lambda value: round(value * _OPACITY))
        shown = Image.composite(large, original.convert("RGB"), opacity)
        return shown.convert("RGBA") if with_alpha else shown
    if with_alpha:
        image.putalpha(alpha)
    return image


def _single(values: NDArray[Any]) -> FloatArray:
    shape = values.shape
    if values.ndim < 2 or any(axis != 1 for axis in shape[:-2]) or not values.size:
        raise ValueError(f"saliency must be one map (H, W), not {shape}: pass saliency[0, 0], say")
    single = np.asarray(values.reshape(shape[-2:]), np.float32)
    if not np.isfinite(single).all():
        raise ValueError("the map has values that are NaN or infinite, which no colour stands for")
    return single


def _levels(values: FloatArray, normalize: bool) -> FloatArray:
    if not normalize:
        return np.clip(values, 0, 1)
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / (high - low), np.float32) if high > low else np.zeros_like(values)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(values * 255), 0, 255), np.uint8)


def shown_as_images(maps: FloatArray, inputs: FloatArray, show: bool | None, *, wanted: bool) -> list[Any]:
    """Pictures of maps on the inputs that they explain, shown if that is wanted.

    Args:
        maps: (N, l, H, W).
        inputs: (N, C, H, W), as the net takes them: their own range becomes black to white.
        show: Whether to show them; None shows them in notebooks.
        wanted: Whether they are returned.

    Returns:
        For each picture the image, or a list of l if there are several; empty if they are neither wanted nor shown.
    """
    show = _in_notebook() if show is None else show
    if not show and not wanted:
        return []
    images = []
    for row, picture in zip(maps, inputs, strict=True):
        shown = _picture(picture)
        drawn = [saliency_to_image(saliency, shown) for saliency in row]
        images.append(drawn[0] if len(drawn) == 1 else drawn)
        if show:
            for image in drawn:
                _show(image)
    return images


def shown_units(image: FloatArray) -> PictureUnits:
    """Units by which model inputs are shown as pictures where nobody says how pictures became them.

    The lowest value of one of them, (C, H, W), is black, and its highest white.
    """
    low, high = float(image.min()), float(image.max())
    span = (high - low) or 1.0
    return PictureUnits(mean=(-low / span,), std=(1 / span,))


def _picture(image: FloatArray) -> Image.Image:
    """A model input (C, H, W) as an RGB picture; of other than three channels only the first is shown."""
    channels = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    return Image.fromarray(_bytes(shown_units(channels).picture(channels).transpose(1, 2, 0)))


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def _show(image: Image.Image) -> None:
    if _in_notebook():
        sys.modules["IPython"].display.display(image)
    else:
        image.show()
