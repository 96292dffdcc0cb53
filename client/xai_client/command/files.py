"""Overlays and maps as files: where they go, and each version in the place of the one before."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from xai_client.command.text import Written
from xai_client.errors import ArgumentError, MapWithheldError
from xai_client.overlay import DEFAULT_ALPHA
from xai_client.types import Explanation, Prediction


def check_folder(folder: Path) -> None:
    """Checks that files can be written to a folder, which need not exist yet.

    Raises:
        OSError: They cannot.
    """
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OSError(
            f"no files can be written to {folder}: {error.strerror or error}; choose another --out"
        ) from error


class OverlayFiles:
    """The overlays of one picture, and its maps where they are wanted, too.

    Args:
        image: The picture.
        folder: Where they go; made when there is one to write.
        stem: How their names begin.
        inputs: All pictures to be predicted; none of them is overwritten.
        alpha: As of `Explanation.overlay`.
        colormap: As of `Explanation.overlay`.
        arrays: Whether each map goes into a file beside its overlay, too: `.npy`, float32 (H, W).
        legend: As of `Explanation.overlay`.

    Attributes:
        written: Where overlays are, by explanation name and class id.
        arrays: Where maps are, likewise; None where they are not wanted.
        panel: Where all of them are, side by side; None until it is written.
    """

    def __init__(
        self,
        image: Path,
        folder: Path,
        stem: str,
        inputs: Iterable[Path],
        *,
        alpha: float = DEFAULT_ALPHA,
        colormap: str | None = None,
        arrays: bool = False,
        legend: bool = True,
    ) -> None:
        self.written: Written = {}
        self.arrays: Written | None = {} if arrays else None
        self.panel: Path | None = None
        self._alpha = alpha
        self._colormap = colormap
        self._legend = legend
        self._image = image
        self._folder = folder
        self._stem = stem
        self._inputs = {each.resolve() for each in inputs}

    def write(self, explanation: Explanation) -> None:
        """Writes every map that was sent, and removes what it leaves of an earlier version.

        Raises:
            ArgumentError: An overlay would overwrite one of the inputs.
            OSError: It cannot be written.
        """
        now: Written = {}
        for one in explanation.maps:
            target = one.class_id
            try:
                overlay = explanation.overlay(self._image, target, self._alpha, self._colormap, legend=self._legend)
            except MapWithheldError:
                continue
            path = self._path(explanation, target)
            self._save(overlay, path, "overlay")
            now[explanation.name, target] = self.written[explanation.name, target] = path
            if self.arrays is not None:
                self.arrays[explanation.name, target] = beside = path.with_suffix(".npy")
                _replace(beside, partial(np.save, arr=one.saliency))
        self.written = self._without_older(self.written, explanation.name, now)
        if self.arrays is not None:
            beside_now = {key: path.with_suffix(".npy") for key, path in now.items()}
            self.arrays = self._without_older(self.arrays, explanation.name, beside_now)

    def write_panel(self, prediction: Prediction, scores: Mapping[str, Sequence[str]]) -> None:
        """Writes the picture and all its maps side by side.

        Args:
            prediction: What was predicted.
            scores: As of `Prediction.panel`.

        Raises:
            ArgumentError: It would overwrite one of the inputs.
            OSError: It cannot be written.
        """
        shown = prediction.panel(self._image, scores=scores, alpha=self._alpha, colormap=self._colormap)
        path = self._folder / f"{self._stem}.panel.png"
        self._save(shown, path, "panel")
        self.panel = path

    def _save(self, picture: Image.Image, path: Path, what: str) -> None:
        if path.resolve() in self._inputs:
            raise ArgumentError(f"the {what} {path} would overwrite a picture to be predicted; choose another --out")
        self._folder.mkdir(parents=True, exist_ok=True)
        # The lowest level is several times faster than the default and hardly larger for photographs.
        _replace(path, partial(picture.save, format="PNG", compress_level=1))

    def paths(self, name: str) -> list[Path]:
        """Where the overlays of one explanation are."""
        return [path for key, path in self.written.items() if key[0] == name]

    @staticmethod
    def _without_older(files: Written, name: str, now: Written) -> Written:
        """Where files are, once those of an earlier version of an explanation have been removed."""
        before = {key: path for key, path in files.items() if key[0] == name}
        for path in set(before.values()) - set(now.values()):
            path.unlink(missing_ok=True)
        return {key: path for key, path in files.items() if key not in before} | now

    def _path(self, explanation: Explanation, target: int) -> Path:
        suffix = f".{target}" if len(explanation.targets) > 1 else ""
        return self._folder / f"{self._stem}.{re.sub(r'[^A-Za-z0-9_.-]', '_', explanation.name)}{suffix}.png"


def _replace(path: Path, save: Callable[[BinaryIO], object]) -> None:
    """Puts a whole file in the place of the old one, so that a viewer never sees half of it."""
    unfinished = path.with_name(f".xai-client-{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            save(file)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
