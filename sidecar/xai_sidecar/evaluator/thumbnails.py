"""Pictures for those who look at samples: made and stored on a thread of their own, after the answer has gone."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import structlog
from PIL import Image

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import SidecarError
from xai_sidecar.evaluator.records import PictureSource, Sample
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.imaging import from_pixels
from xai_sidecar.imaging.decoding import decode_reduced
from xai_sidecar.picture_units import PictureUnits

SIDE = 256
"""Longer side of a thumbnail in pixels."""

_QUALITY = 80
_PNG_LEVEL = 3
"""Level 6 saves another 3 % of a photograph, and takes twice as long."""

_MOST_WAITING_BYTES = 32 << 20
"""Pictures that wait; of more there are no thumbnails."""

_log = structlog.get_logger(__name__)


class Thumbnails:
    """Stores what samples looked like.

    Args:
        store_errors: The store.
        units: What the model input is in.
        max_pixels: Most pixels that are decoded.
    """

    def __init__(self, store_errors: StoreErrors, units: PictureUnits, max_pixels: int) -> None:
        self._store_errors = store_errors
        self._units = units
        self._max_pixels = max_pixels
        self._thread = ThreadPoolExecutor(1, "thumbnails")
        self._lock = threading.Lock()
        self._waiting_bytes = 0

    def offer(self, sample: Sample) -> None:
        """Has the pictures of a stored sample stored, too; does nothing where too many wait, or after `close`."""
        size = sample.byte_count
        with self._lock:
            if self._waiting_bytes and self._waiting_bytes + size > _MOST_WAITING_BYTES:
                return
            self._waiting_bytes += size
        with suppress(RuntimeError):
            self._thread.submit(self._keep, sample, size)

    def flush(self) -> None:
        """Waits until all that was offered is stored."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Lets go of what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _keep(self, sample: Sample, size: int) -> None:
        try:
            png = input_png(sample.image, self._units)
            with self._store_errors.writing(sample.key):
                self._store_errors.store.put_picture(sample.key, self._thumbnail(sample.source, png), png)
        except Exception:  # a picture that cannot be shown is no reason to end the thread
            _log.exception("thumbnail_failed", request_id=sample.key.request_id)
        finally:
            with self._lock:
                self._waiting_bytes -= size

    def _thumbnail(self, source: PictureSource | None, png: bytes) -> bytes:
        shown = png if source is None else source
        try:
            return thumbnail_jpeg(shown, self._max_pixels) if len(shown) else b""
        except SidecarError:
            return b""


def thumbnail_jpeg(source: PictureSource, max_pixels: int) -> bytes:
    """A whole upright picture as a JPEG file, its longer side at most `SIDE` pixels.

    Args:
        source: The bytes of a picture's file, or pixels (H, W, C) uint8.
        max_pixels: Most pixels that are decoded.

    Raises:
        SidecarError: It is no picture.
    """
    if isinstance(source, bytes):
        decoded = decode_reduced(source, max_pixels, lambda size: min(max(size) / (2 * SIDE), min(size)))
        picture, full, frame = decoded.picture, decoded.size, decoded.frame
        box = (frame.left, frame.top, frame.right, frame.bottom)
    else:
        picture = from_pixels(source, max_pixels)
        full, box = picture.size, (0, 0, *picture.size)
    scale = min(1.0, SIDE / max(full))
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def input_png(image: FloatArray, units: PictureUnits) -> bytes:
    """A model input (C, H, W) as a PNG file of as many pixels; empty where it has neither 1 nor 3 channels."""
    if image.shape[0] not in (1, 3):
        return b""
    pixels = np.rint(np.clip(np.nan_to_num(units.picture(image)), 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()
