"""Folders of pictures: one folder for each class, or pictures alone."""

from __future__ import annotations

from pathlib import Path

from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.pictures import pictures_below
from xai_sidecar.runner.data.item import DataItem, Labels, ListedData


def open_folder(folder: Path, labels: Labels) -> ListedData:
    """The pictures of a folder, at any depth.

    Where the folder has folders of pictures, and no pictures itself, each of them is a class, by label or id.

    Raises:
        ConfigError: It has no pictures, or a folder that names no class; field "data".
    """
    try:
        paths = list(pictures_below(folder))
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be searched: {error.strerror}.", field="data") from error
    if not paths:
        raise ConfigError(f"{folder} has no pictures (JPEG, PNG, WebP, GIF, BMP or TIFF).", field="data")
    inside = [path.relative_to(folder) for path in paths]
    loose = [path for path in inside if len(path.parts) == 1]
    if loose and len(loose) < len(inside):
        raise ConfigError(
            f"{folder} has both pictures, such as {loose[0]}, and folders of them, such as "
            f"{next(path.parts[0] for path in inside if len(path.parts) > 1)}. Give either folders of classes or "
            "pictures alone.",
            field="data",
        )
    if loose:
        return ListedData("pictures without labels", [DataItem(str(path), folder / path) for path in inside])
    ids = labels.class_ids(sorted({path.parts[0] for path in inside}), str(folder))
    items = [DataItem(str(path), folder / path, (ids[path.parts[0]],)) for path in inside]
    return ListedData(f"{len(ids)} folders of classes", items)
