"""COCO's JSON of objects: boxes, polygons and masks. Lin et al. 2014, arXiv:1405.0312; cocodataset.org, Data format."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import Annotation, BoxAnnotation, MaskAnnotation, PolygonAnnotation, TruthObject
from xai_sidecar.runner.data.item import DataItem, Labels, ListedData

_FOLDERS = ("", "images", "val2017", "train2017", "test2017")
_SHOWN = 3
_CORNERS = 3


def open_coco(path: Path, labels: Labels) -> ListedData:
    """The pictures of a COCO file, with their objects.

    Pictures are looked for beside the file, in a folder `images` or of one of COCO's own names there, and in the same
    places a folder further up. Categories are classes by name; those that the model does not have are left out, and a
    note says so.

    Raises:
        ConfigError: It is no such file, or no category of it is a class; field "data".
    """
    content = _read(path)
    names = {each["id"]: str(each.get("name", each["id"])) for each in content["categories"]}
    ids = {number: labels.class_id(name) for number, name in names.items()}
    if names and all(class_id is None for class_id in ids.values()):
        labels.class_ids(sorted(names.values()), str(path))  # which says so
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        if ids.get(annotation["category_id"]) is not None:
            by_image.setdefault(annotation["image_id"], []).append(annotation)
    items = []
    for image in content["images"]:
        found = by_image.get(image["id"], ())
        objects = [
            TruthObject(place, ids[each["category_id"]])
            for each in found
            for place in _places(each, image["file_name"])
        ]
        classes = tuple(sorted({class_id for each in found if (class_id := ids[each["category_id"]]) is not None}))
        items.append(DataItem(str(image["file_name"]), _file(path, image["file_name"]), classes, tuple(objects)))
    unknown = [names[number] for number, class_id in ids.items() if class_id is None]
    notes = []
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        notes.append(f"{', '.join(unknown[:_SHOWN])}{more} are no classes of the model: their objects are left out.")
    return ListedData(f"{len(items)} pictures of {path.name}", items, notes)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
        for name, keys in (
            ("images", ("id", "file_name")),
            ("annotations", ("image_id", "category_id")),
            ("categories", ("id",)),
        ):
            for number, each in enumerate(content[name]):
                missing = [key for key in keys if key not in each]
                if missing:
                    raise ConfigError(f"{path}: {name}[{number}] has no {missing[0]!r}.", field="data")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.", field="data") from error
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no COCO file: it needs lists of images, annotations and categories.", field="data"
        ) from error
    return dict(content)


def _file(path: Path, name: str) -> Path:
    """Where a picture is; beside the file if it is nowhere, for the message of whoever reads it."""
    for parent in (path.parent, path.parent.parent):
        for folder in _FOLDERS:
            if (candidate := parent / folder / name).is_file():
                return candidate
    return path.parent / name


def _places(annotation: Mapping[str, Any], file_name: str) -> list[Annotation]:
    """Where the parts of an object are, as exactly as it is known."""
    shape, box = annotation.get("segmentation"), annotation.get("bbox")
    try:
        if isinstance(shape, dict):
            return [_mask(_unpacked(shape))]
        if shape and all(len(part) >= _CORNERS * 2 for part in shape):
            return [_polygon(part) for part in shape]
        if not box:
            return []
        left, top, width, height = map(float, box)
        return [BoxAnnotation(left, top, left + width, top + height)]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the object {annotation.get('id', '')} of {file_name} is no box, polygon or mask: {error}.", field="data"
        ) from error


def _polygon(numbers: Sequence[float]) -> PolygonAnnotation:
    points = np.asarray(numbers, float).reshape(-1, 2).tolist()
    return PolygonAnnotation(tuple((x, y) for x, y in points))


def _unpacked(runs: Mapping[str, Any]) -> NDArray[np.bool_]:
    """A mask written as lengths of runs, by turns off and on, column by column; packed into a text or not."""
    height, width = map(int, runs["size"])
    counts = runs["counts"]
    lengths = _lengths(counts) if isinstance(counts, str) else [int(length) for length in counts]
    if sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise ValueError("its runs do not add up to its size")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T


def _lengths(text: str) -> list[int]:
    """The lengths that COCO packs into a text: five bits a sign, the lowest first, from the third on as differences."""
    lengths: list[int] = []
    value = shift = 0
    for sign in text.encode("ascii"):
        bits = sign - 48
        if not 0 <= bits < 64:
            raise ValueError("its runs are no text of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its runs end within a number")
    return lengths


def _mask(mask: NDArray[np.bool_]) -> MaskAnnotation:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG", compress_level=1)
    return MaskAnnotation(buffer.getvalue())
