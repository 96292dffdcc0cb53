"""Pascal VOC's folders: pictures, and an XML file of objects for each; Everingham et al. 2010."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import BoxAnnotation, TruthObject
from xai_sidecar.runner.data.item import DataItem, Labels, ListedData

PICTURES, ANNOTATIONS = "JPEGImages", "Annotations"


def open_voc(folder: Path, labels: Labels) -> ListedData:
    """The pictures of a folder as Pascal VOC has it, with the boxes of all objects, those called difficult too.

    Args:
        folder: It has the folders JPEGImages and Annotations.
        labels: The model's classes; objects are named by them.

    Raises:
        ConfigError: A file is none of its kind, or an object is no class; field "data".
    """
    files = sorted((folder / ANNOTATIONS).glob("*.xml"))
    if not files:
        raise ConfigError(f"{folder / ANNOTATIONS} has no XML files.", field="data")
    found = [(path, _objects(path)) for path in files]
    ids = labels.class_ids(sorted({name for _, (_, objects) in found for name, _ in objects}), str(folder))
    items = [
        DataItem(
            file_name,
            folder / PICTURES / file_name,
            tuple(sorted({ids[name] for name, _ in objects})),
            tuple(TruthObject(box, ids[name]) for name, box in objects),
        )
        for _, (file_name, objects) in found
    ]
    return ListedData(f"{len(items)} pictures of Pascal VOC", items)


def _objects(path: Path) -> tuple[str, list[tuple[str, BoxAnnotation]]]:
    """The name of a file's picture, and its objects."""
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314, the user's own data
        file_name = root.findtext("filename") or f"{path.stem}.jpg"
        return file_name.strip(), [_object(each) for each in root.iter("object")]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as Pascal VOC's XML: {error}.", field="data") from error


def _object(node: ElementTree.Element) -> tuple[str, BoxAnnotation]:
    name, box = node.findtext("name"), node.find("bndbox")
    if not name or box is None:
        raise ValueError("an object has no name or no bndbox")
    edges = [box.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
    if None in edges:
        raise ValueError("a bndbox lacks one of xmin, ymin, xmax and ymax")
    left, top, right, bottom = (float(edge or "") for edge in edges)
    # Its pixels are counted from 1, and the last ones belong to the box.
    return name.strip(), BoxAnnotation(left - 1, top - 1, right, bottom)
