"""Pictures on their way to other machines, which need no folder in common: a file goes as its bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.outcome import PictureOutcome
from xai_sidecar.runner.reading import unopened


def packed(item: DataItem) -> DataItem | PictureOutcome:
    """A picture with all that is needed to measure it elsewhere; or what came of it, where it cannot be opened."""
    if not isinstance(item.content, Path):
        return item
    try:
        return replace(item, content=item.content.read_bytes())
    except OSError as error:
        return PictureOutcome(item.name, problem=unopened(error))
