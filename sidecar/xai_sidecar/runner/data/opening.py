"""Opens what the user names as a data set."""

from __future__ import annotations

import re
from pathlib import Path

from xai_sidecar.errors import ConfigError
from xai_sidecar.runner.data.callables import open_callable
from xai_sidecar.runner.data.coco import open_coco
from xai_sidecar.runner.data.folders import open_folder
from xai_sidecar.runner.data.item import DataSet, Labels
from xai_sidecar.runner.data.tables import open_table
from xai_sidecar.runner.data.voc import ANNOTATIONS, PICTURES, open_voc

_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_data(name: str, labels: Labels) -> DataSet:
    """Opens a data set.

    Args:
        name: A folder with a folder for each class, with pictures alone, with pictures and one CSV file, or as Pascal
            VOC has it; a CSV file; a COCO JSON file; or ``module:callable``.
        labels: The model's classes.

    Raises:
        ConfigError: It is none of these, or not as it should be; field "data".
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path, labels)
    if path.is_file():
        kinds = {".json": open_coco, ".csv": open_table}
        if path.suffix.lower() not in kinds:
            raise ConfigError(f"{path} is neither a COCO file (.json) nor a table of labels (.csv).", field="data")
        return kinds[path.suffix.lower()](path, labels)
    if _CALLABLE.fullmatch(name):
        return open_callable(name, labels)
    raise ConfigError(
        f"there is no {name}. Name a folder of pictures, a .csv of labels, a COCO .json, or module:callable.",
        field="data",
    )


def _folder(path: Path, labels: Labels) -> DataSet:
    if all((path / inside).is_dir() for inside in (PICTURES, ANNOTATIONS)):
        return open_voc(path, labels)
    tables = sorted(path.glob("*.csv"))
    if len(tables) > 1:
        raise ConfigError(
            f"{path} has {len(tables)} CSV files, such as {tables[0].name}. Name the one to use.", field="data"
        )
    return open_table(tables[0], labels) if tables else open_folder(path, labels)
