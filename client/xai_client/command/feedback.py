"""A report of ground truth, as `xai-client feedback` reads it from the command line and confirms it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xai_client.errors import ArgumentError
from xai_client.ground_truth import GroundTruthObject


@dataclasses.dataclass(frozen=True)
class Feedback:
    """A report.

    Attributes:
        request_id: Of which request.
        image_index: Of which of its pictures.
        labels: Labels that apply.
        class_ids: Classes that apply.
        objects: Where things are.
    """

    request_id: str
    image_index: int
    labels: Sequence[str]
    class_ids: Sequence[int]
    objects: Sequence[GroundTruthObject]

    def text(self, changed: bool, warnings: Iterable[str] = ()) -> str:
        """What was reported and whether it changed anything, in a line, and a line for each warning."""
        shapes = Counter(_shape(each) for each in self.objects)
        reported = [
            *(f"label {label}" for label in self.labels),
            *(f"class {class_id}" for class_id in self.class_ids),
            *(f"{count} {_plural(shape, count)}" for shape, count in shapes.items()),
        ]
        outcome = "reported" if changed else "nothing changed: the same had been reported before"
        line = f"request {self.request_id}, picture {self.image_index}: {'; '.join(reported)}  {outcome}"
        return "\n".join([line, *(f"warning: {each}" for each in warnings)])

    def json(self, changed: bool, warnings: Iterable[str] = ()) -> str:
        """The same as a line of JSON."""
        return json.dumps(
            {
                "request_id": self.request_id,
                "image_index": self.image_index,
                "labels": list(self.labels),
                "class_ids": list(self.class_ids),
                "objects": [_document(each) for each in self.objects],
                "changed": changed,
                "warnings": list(warnings),
            }
        )


def read_objects(boxes: Iterable[str], polygons: Iterable[str], masks: Iterable[str]) -> list[GroundTruthObject]:
    """Reads shapes, each with its label and a "=" before it or without.

    Raises:
        ArgumentError: One of them is none.
    """
    return [
        *(_box(*_split(text)) for text in boxes),
        *(_polygon(*_split(text)) for text in polygons),
        *(_mask(text) for text in masks),
    ]


def _split(text: str) -> tuple[str | None, str]:
    """The label, if there is one, and the shape. Labels may hold a "=" themselves: the last one counts."""
    label, separator, shape = text.rpartition("=")
    if separator and not label:
        raise ArgumentError(f"there is no label before the '=' of {text!r}")
    return (label if separator else None), shape


def _box(label: str | None, text: str) -> GroundTruthObject:
    numbers = _numbers(text)
    if len(numbers) != 4:
        raise ArgumentError(f"--box takes [LABEL=]LEFT,TOP,RIGHT,BOTTOM, not {text!r}")
    return GroundTruthObject(box=numbers, label=label)


def _polygon(label: str | None, text: str) -> GroundTruthObject:
    numbers = _numbers(text)
    if len(numbers) % 2 or not numbers:
        raise ArgumentError(f"--polygon takes [LABEL=]X,Y,X,Y,X,Y..., not {text!r}")
    return GroundTruthObject(polygon=list(zip(numbers[::2], numbers[1::2], strict=True)), label=label)


def _mask(text: str) -> GroundTruthObject:
    # The name of a file may hold a "=", too.
    label, name = (None, text) if Path(text).is_file() else _split(text)
    if not Path(name).is_file():
        raise ArgumentError(f"there is no file {name}")
    return GroundTruthObject(mask=name, label=label)


def _numbers(text: str) -> list[float]:
    """The numbers between the commas; none at all where one of them is no number."""
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        return []


def _shape(item: GroundTruthObject) -> tuple[str, str | None]:
    return next(name for name in ("box", "polygon", "mask") if getattr(item, name) is not None), item.label


def _plural(shape: tuple[str, str | None], count: int) -> str:
    name, label = shape
    plural = name if count == 1 else {"box": "boxes"}.get(name, f"{name}s")
    return f"{plural} of {label}" if label else plural


def _document(item: GroundTruthObject) -> dict[str, Any]:
    shape, label = _shape(item)
    value = getattr(item, shape)
    return {"shape": shape, "label": label, shape: value if shape == "mask" else list(value)}
