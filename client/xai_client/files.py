"""Overlays as files: where they go, and each version in the place of the one before."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from xai_client.errors import ArgumentError, MapWithheldError
from xai_client.text import Written
from xai_client.types import Explanation


class OverlayFiles:
    """The overlays of one picture.

    Args:
        image: The picture.
        folder: Where they go; made when there is one to write.
        stem: How their names begin.
        inputs: All pictures to be predicted; none of them is overwritten.

    Attributes:
        written: Where overlays are, by explanation name and class id.
    """

    def __init__(self, image: Path, folder: Path, stem: str, inputs: Iterable[Path]) -> None:
        self.written: Written = {}
        self._image = image
        self._folder = folder
        self._stem = stem
        self._inputs = {each.resolve() for each in inputs}

    def write(self, explanation: Explanation) -> None:
        """Writes an overlay for every map that was sent, and removes what it leaves of an earlier version.

        Raises:
            ArgumentError: An overlay would overwrite one of the inputs.
            OSError: It cannot be written.
        """
        now: Written = {}
        for target in explanation.targets:
            try:
                overlay = explanation.overlay(self._image, target=target)
            except MapWithheldError:
                continue
            path = self._path(explanation, target)
            if path.resolve() in self._inputs:
                raise ArgumentError(
                    f"the overlay {path} would overwrite a picture to be predicted; choose another --out"
                )
            self._folder.mkdir(parents=True, exist_ok=True)
            _replace(path, overlay)
            now[explanation.name, target] = self.written[explanation.name, target] = path
        before = {key: path for key, path in self.written.items() if key[0] == explanation.name}
        for path in set(before.values()) - set(now.values()):
            path.unlink(missing_ok=True)
        self.written = {key: path for key, path in self.written.items() if key not in before} | now

    def paths(self, name: str) -> list[Path]:
        """Where the overlays of one explanation are."""
        return [path for key, path in self.written.items() if key[0] == name]

    def _path(self, explanation: Explanation, target: int) -> Path:
        suffix = f".{target}" if len(explanation.targets) > 1 else ""
        return self._folder / f"{self._stem}.{re.sub(r'[^A-Za-z0-9_.-]', '_', explanation.name)}{suffix}.png"


def _replace(path: Path, overlay: Image.Image) -> None:
    """Puts a whole file in the place of the old one, so that a viewer never sees half of it."""
    unfinished = path.with_name(f".xai-client-{os.getpid()}.tmp")
    try:
        # The lowest level is several times faster than the default and hardly larger for photographs.
        overlay.save(unfinished, format="PNG", compress_level=1)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
