"""Data sets: pictures with what is known to be on them, from folders, files of labels, and scripts."""

from xai_sidecar.runner.data.item import DataItem, DataSet, Labels
from xai_sidecar.runner.data.opening import open_data

__all__ = ["DataItem", "DataSet", "Labels", "open_data"]
