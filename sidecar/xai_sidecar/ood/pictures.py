"""Finding the pictures that an OoD net is trained on, and their classes."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import ConfigError, InvalidRequestError
from xai_sidecar.imaging import InputSpec, read

MINIMUM = 10
"""Fewer pictures than these say nothing about what is usual."""

MAX_PIXELS = 100_000_000
"""Pictures of more pixels are left out as unreadable."""

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_FIELD = "data"
_SHOWN = 3


@dataclass(frozen=True)
class Pictures:
    """Pictures that were found.

    Attributes:
        folder: What was searched.
        paths: The files, in order.
        class_ids: The class of each, by the name of its folder; None when there are no folders of classes.
    """

    folder: Path
    paths: tuple[Path, ...]
    class_ids: tuple[int, ...] | None


def find_pictures(folder: Path, labels: Sequence[str], class_count: int) -> Pictures:
    """Finds the pictures in a folder.

    Either the folder has subfolders, one for each class, named by the class's label or its id, with pictures at any
    depth; or it has pictures itself. Files that are no pictures by their name, and hidden ones, do not count.

    Args:
        folder: Where to look.
        labels: Of the classes; may be empty.
        class_count: Number of classes of the classifier.

    Raises:
        ConfigError: The folder is not there, has too few pictures, or has subfolders that name no class; field "data".
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Name the folder of the training pictures.", field=_FIELD)
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        loose = [entry for entry in entries if _is_picture(entry)]
        inside = {entry: list(pictures_below(entry)) for entry in entries if entry.is_dir()}
    except OSError as error:
        raise ConfigError(f"{folder} cannot be searched: {error}. Allow it to be read.", field=_FIELD) from error
    classes = {entry: paths for entry, paths in inside.items() if paths}
    if classes and loose:
        raise ConfigError(
            f"{folder} has both pictures, such as {loose[0].name}, and folders of them, such as "
            f"{next(iter(classes)).name}. Give either folders of classes or pictures alone.",
            field=_FIELD,
        )
    count = len(loose) + sum(map(len, classes.values()))
    if count < MINIMUM:
        raise ConfigError(
            f"{folder} has {count} pictures (JPEG, PNG, WebP, GIF, BMP or TIFF), and at least {MINIMUM} are needed; "
            "some hundreds, or all those that the classifier was trained on, are better.",
            field=_FIELD,
        )
    if not classes:
        return Pictures(folder, tuple(loose), None)
    ids = _class_ids([entry.name for entry in classes], labels, class_count, folder)
    found = [(path, class_id) for paths, class_id in zip(classes.values(), ids, strict=True) for path in paths]
    return Pictures(folder, tuple(path for path, _ in found), tuple(class_id for _, class_id in found))


def read_input(path: Path, spec: InputSpec) -> FloatArray | None:
    """Reads a picture as the classifier takes it.

    Returns:
        (C, H, W) float32; None if the file cannot be read as a picture.
    """
    try:
        return read(path.read_bytes(), spec, MAX_PIXELS).array
    except (OSError, InvalidRequestError):
        return None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


def pictures_below(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and its folders by their names, in order; nothing hidden.

    Raises:
        OSError: Some of it cannot be searched.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent) / name for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if _is_picture(path))


def _raise(error: OSError) -> None:
    # Not to be read is an error, or the training would silently do without.
    raise error


def _class_ids(names: list[str], labels: Sequence[str], class_count: int, folder: Path) -> list[int]:
    folders = [plain_label(name) for name in names]
    labels = [plain_label(label) for label in labels]
    by_label = {label: class_id for class_id, label in enumerate(labels)}
    ambiguous = [label for label, count in Counter(labels).items() if count > 1 and label in folders]
    if ambiguous:
        raise ConfigError(
            f"{folder} has a folder {ambiguous[0]!r}, and several classes are called so. Name it by the class id.",
            field=_FIELD,
        )
    ids = [by_label.get(name, class_id_of(name, class_count)) for name in folders]
    unknown = [name for name, class_id in zip(names, ids, strict=True) if class_id is None]
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        known = f"such as {labels[0]!r}, or " if labels else ""
        raise ConfigError(
            f"the folders {', '.join(map(repr, unknown[:_SHOWN]))}{more} in {folder} are no classes of the classifier. "
            f"Rename them to its labels, {known}to class ids from 0 to {class_count - 1}, or put all pictures into "
            "one folder, where what the classifier predicts counts as their class.",
            field=_FIELD,
        )
    return [class_id for class_id in ids if class_id is not None]


def plain_label(name: str) -> str:
    """A label as it is compared."""
    # File systems write accents apart from their letters, or not, and people leave blanks behind.
    return unicodedata.normalize("NFC", name).strip()


def class_id_of(name: str, class_count: int) -> int | None:
    """The class id that a text is; None if it is none."""
    return int(name) if name.isascii() and name.isdecimal() and int(name) < class_count else None
