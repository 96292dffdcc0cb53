"""A folder of pictures with a CSV file of their labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import BoxAnnotation, TruthObject
from xai_sidecar.runner.data.item import DataItem, Labels, ListedData

_FILES = ("file", "filename", "file_name", "image", "path", "picture")
_LABELS = ("label", "labels", "class", "classes", "class_id", "class_ids")
_BOX = ("left", "top", "right", "bottom")
_SEPARATORS = ";|"


def open_table(path: Path, labels: Labels) -> ListedData:
    """The pictures that a CSV file lists.

    Its first row names the columns: one of file, filename, file_name, image, path or picture; one of label, labels,
    class, classes, class_id or class_ids; and left, top, right and bottom, in pixels of the upright picture, where
    there are boxes. A picture with several labels has them in one row, divided by ";" or "|", or has several rows.

    Args:
        path: The file; pictures are named from its folder.
        labels: The model's classes.

    Raises:
        ConfigError: It is no such file, or a label is no class; field "data".
    """
    rows = list(_rows(path))
    if not rows:
        raise ConfigError(f"{path} has no rows below its first one.", field="data")
    columns = {name.strip().lower(): name for name in rows[0] if name}
    file_column = _column(columns, _FILES, path)
    label_column = _column(columns, _LABELS, path)
    boxes = [columns[name] for name in _BOX if name in columns]
    if boxes and len(boxes) < len(_BOX):
        raise ConfigError(f"{path} has only some of the columns {', '.join(_BOX)}.", field="data")
    named = [(row, _names(row[label_column] or "")) for row in rows]
    ids = labels.class_ids(sorted({name for _, names in named for name in names}), str(path))
    classes: dict[str, set[int]] = {}
    objects: dict[str, list[TruthObject]] = {}
    for line, (row, names) in enumerate(named, start=2):
        file = (row[file_column] or "").strip()
        if not file:
            raise ConfigError(f"{path}, line {line}, names no picture.", field="data")
        classes.setdefault(file, set()).update(ids[name] for name in names)
        if boxes and any((row[name] or "").strip() for name in boxes):
            objects.setdefault(file, []).append(_boxed(row, boxes, [ids[name] for name in names], path, line))
    items = [
        DataItem(file, path.parent / file, tuple(sorted(found)), tuple(objects.get(file, ())))
        for file, found in classes.items()
    ]
    return ListedData(f"{len(items)} pictures listed in {path.name}", items)


def _rows(path: Path) -> Iterator[dict[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as CSV: {error}.", field="data") from error


def _column(columns: dict[str, str], known: tuple[str, ...], path: Path) -> str:
    for name in known:
        if name in columns:
            return columns[name]
    raise ConfigError(
        f"{path} has no column {known[0]!r}: its first row has {', '.join(columns) or 'nothing'}.", field="data"
    )


def _names(cell: str) -> list[str]:
    for separator in _SEPARATORS:
        cell = cell.replace(separator, "\n")
    return [name.strip() for name in cell.split("\n") if name.strip()]


def _boxed(row: dict[str, str | None], boxes: list[str], ids: list[int], path: Path, line: int) -> TruthObject:
    try:
        box = BoxAnnotation(*(float(row[name] or "") for name in boxes))
    except ValueError as error:
        raise ConfigError(f"{path}, line {line}, has a box that is no four numbers.", field="data") from error
    return TruthObject(box, ids[0] if len(ids) == 1 else None)
