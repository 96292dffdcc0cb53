"""A sample as a zip: the page, the picture, each map as numbers and as a picture, and a record of the rest."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator

import numpy as np
from PIL import Image

from xai_client import ModelInfo, Sample
from xai_client.samples import SampleExplanation
from xai_client.types import SaliencyMap
from xai_console.evidence.record import record


def archive(sample: Sample, info: ModelInfo, server: str, page: str) -> bytes:
    """The zip file.

    Args:
        sample: The sample.
        info: The model.
        server: Where it came from.
        page: The sample as a page (`evidence.html_page`).
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in _files(sample, info, server, page):
            file.writestr(name, data)
    return buffer.getvalue()


def _files(sample: Sample, info: ModelInfo, server: str, page: str) -> Iterator[tuple[str, bytes]]:
    yield "sample.html", page.encode()
    yield "sample.json", json.dumps(record(sample, info, server), indent=2, ensure_ascii=False).encode()
    if sample.input_png:
        yield "input.png", sample.input_png
    if sample.summary.thumbnail_jpeg:
        yield "thumbnail.jpg", sample.summary.thumbnail_jpeg
    picture = sample.picture
    for explainer, made in sample.explanations.items():
        for each in made.maps:
            if each.values is not None:
                yield from _map(picture, explainer, made, each)


def _map(
    picture: Image.Image | None, explainer: str, made: SampleExplanation, shown: SaliencyMap
) -> Iterator[tuple[str, bytes]]:
    stem = f"{explainer.replace('/', '-')}.{shown.class_id}"
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(shown.values, np.float32))
    yield f"maps/{stem}.npy", buffer.getvalue()
    if picture is not None:
        drawn = io.BytesIO()
        made.in_frame().overlay(picture, target=shown.class_id, legend=True).save(drawn, "PNG")
        yield f"overlays/{stem}.png", drawn.getvalue()
