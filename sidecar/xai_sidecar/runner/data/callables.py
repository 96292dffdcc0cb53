"""Data sets of a script: what a callable returns."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import BoxAnnotation, TruthObject
from xai_sidecar.runner.data.item import Content, DataItem, Labels

_PIXEL_CHANNELS = (1, 3)


class IterableData:
    """Pictures of an iterable, or of MindSpore's data set, as of `open_callable`.

    Args:
        rows: A picture, or (picture,), (picture, labels) or (picture, labels, boxes), each.
        labels: The model's classes.
        description: As of `DataSet`.
    """

    notes: Sequence[str] = ()

    def __init__(self, rows: Any, labels: Labels, description: str) -> None:
        self._rows = rows
        self._labels = labels
        self._row_count = length_of(rows)
        self._batch_size = 1
        self.description = description

    def __len__(self) -> int:
        """Number of its pictures; of batches that is known once the first one was seen, and if all are full."""
        return self._row_count * self._batch_size

    def __iter__(self) -> Iterator[DataItem]:
        number = 0
        for row in rows_of(self._rows):
            for item in self._items(row if isinstance(row, (tuple, list)) else (row,), number):
                yield item
                number += 1

    def _items(self, row: Sequence[Any], number: int) -> Iterator[DataItem]:
        if not 1 <= len(row) <= 3:
            raise self._wrong(
                number, f"has {len(row)} columns, not (image,), (image, labels) or (image, labels, boxes)"
            )
        columns = [_plain(column) for column in row]
        image = columns[0]
        if isinstance(image, np.ndarray) and image.ndim == 4:  # a batch
            if any(len(column) != len(image) for column in columns):
                raise self._wrong(number, "is a batch whose columns are not of one length")
            if not number:
                self._batch_size = len(image)
            for place, each in enumerate(zip(*columns, strict=True)):
                yield self._item(each, number + place)
        else:
            yield self._item(columns, number)

    def _item(self, columns: Sequence[Any], number: int) -> DataItem:
        classes = self._classes(columns[1], number) if len(columns) > 1 else ()
        objects = self._objects(columns[2], classes, number) if len(columns) > 2 else ()
        return DataItem(f"{number:08d}", self._content(columns[0], number), tuple(sorted(set(classes))), objects)

    def _content(self, image: Any, number: int) -> Content:
        if isinstance(image, (str, Path)):
            return Path(image)
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise self._wrong(
                number, "has no picture: a path, pixels (H, W, C) uint8, or a model input (C, H, W) float"
            )
        if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[-1] in _PIXEL_CHANNELS):
            return image
        if image.ndim == 3 and image.dtype.kind == "f":
            return np.ascontiguousarray(image, np.float32)
        raise self._wrong(number, f"has a picture of {image.dtype} {image.shape}: neither pixels nor a model input")

    def _classes(self, labels: Any, number: int) -> tuple[int, ...]:
        """Class ids in the order given. Padding below 0, which fills up rows of several labels, does not count."""
        if isinstance(labels, str):
            return tuple(self._labels.class_ids([labels], f"row {number}").values())
        values = np.atleast_1d(np.asarray(labels))
        if values.dtype.kind in "US":
            return tuple(self._labels.class_ids([str(each) for each in values.ravel()], f"row {number}").values())
        if values.dtype.kind not in "iu" or values.ndim > 1:
            raise self._wrong(number, f"has labels of {values.dtype} {values.shape}, not class ids")
        ids = tuple(int(each) for each in values if each >= 0)
        if any(each >= self._labels.class_count for each in ids):
            raise self._wrong(number, f"has the class {max(ids)}, and the model has {self._labels.class_count}")
        return ids

    def _objects(self, boxes: Any, classes: Sequence[int], number: int) -> tuple[TruthObject, ...]:
        """Boxes (k, 4) of left, top, width and height, the n-th of the n-th label."""
        values = np.asarray(boxes, float)
        values = values.reshape(1, 4) if values.shape == (4,) else values
        if values.ndim != 2 or values.shape[1] != 4 or (len(classes) > 1 and len(values) < len(classes)):
            raise self._wrong(number, f"has boxes of shape {values.shape}, not (labels, 4)")
        if len(classes) != 1:
            values = values[: len(classes)]
        ids = list(classes) if len(classes) == len(values) else [classes[0] if classes else None] * len(values)
        return tuple(
            TruthObject(BoxAnnotation(left, top, left + width, top + height), class_id)
            for (left, top, width, height), class_id in zip(values.tolist(), ids, strict=True)
            if width > 0 and height > 0
        )

    def _wrong(self, number: int, what: str) -> ConfigError:
        return ConfigError(f"row {number} of {self.description} {what}.", field="data")


def rows_of(dataset: Any) -> Iterator[Any]:
    """The rows of MindSpore's data set, or of any iterable, from the first one on."""
    if hasattr(dataset, "create_tuple_iterator"):
        dataset = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    rows: Iterator[Any] = iter(dataset)
    return rows


def length_of(dataset: Any) -> int:
    """How many rows that are; 0 where it cannot be told."""
    try:
        return int(dataset.get_dataset_size() if hasattr(dataset, "get_dataset_size") else len(dataset))
    except TypeError:
        return 0


def open_callable(name: str, labels: Labels) -> IterableData:
    """The data set that a callable returns.

    That is MindSpore's data set or any iterable whose rows are (image,), (image, labels) or (image, labels, boxes), or
    batches of such. An image is a path, pixels or a model input; labels are class ids, filled up below 0, or names;
    boxes are left, top, width and height of the n-th label.

    Args:
        name: ``module:callable``; the module is looked for in the working directory, too.
        labels: The model's classes.

    Raises:
        ConfigError: There is no such callable, or it fails; field "data".
    """
    module_name, _, path = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made: Any = importlib.import_module(module_name)
        for part in path.split("."):
            made = getattr(made, part)
        rows = made() if callable(made) else made
        iter(rows)
    except Exception as error:
        raise ConfigError(f"{name} gives no data set: {type(error).__name__}: {error}.", field="data") from error
    return IterableData(rows, labels, name)


def _plain(column: Any) -> Any:
    """A column as NumPy's, if it is a tensor or a list."""
    if hasattr(column, "asnumpy"):
        return column.asnumpy()
    if hasattr(column, "numpy") and not isinstance(column, np.ndarray):
        return column.numpy()
    if isinstance(column, (str, Path)):
        return column
    array: NDArray[Any] = np.asarray(column)
    return array.item() if array.ndim == 0 and array.dtype.kind in "US" else array
