"""The folder of a run: what was run and how, what came of it, and the files to read it by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.files import write_whole

_FORMAT = "xai-sidecar run 1"
_RECORD = "run.json"
DESCRIPTION, SUMMARY = "description.json", "summary.json"
_STORE = "store.sqlite"
_COMPARED = ("model", "model_version", "data", "targets", "probable", "seed", "explainers", "metrics")
"""What has to be the same for a run to go on."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def store_url(self) -> str:
        """Of the store with its samples, maps and scores."""
        return f"sqlite:///{(self.path / _STORE).absolute()}"

    def file(self, name: str) -> Path:
        """A file in it."""
        return self.path / name

    def record(self) -> Mapping[str, Any]:
        """What was run, and how.

        Raises:
            ConfigError: It is no folder of a run; field "out".
        """
        try:
            found = json.loads(self.file(_RECORD).read_text())
            if found["format"] != _FORMAT:
                raise ValueError(f"its format is {found['format']!r}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path} is no folder of a run: {error}.", field="out") from error
        return dict(found)

    @property
    def has_store(self) -> bool:
        """Whether there is a store."""
        return (self.path / _STORE).exists()

    def model(self) -> Mapping[str, Any]:
        """The model that was run; see `recording.model_record`.

        Raises:
            ConfigError: The folder does not say; field "run".
        """
        try:
            return dict(json.loads(self.file(DESCRIPTION).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{self.path} does not say which model was run, as runs by xai-sidecar run do. Run the same command "
                "again, which measures nothing anew.",
                field="run",
            ) from error

    def begin(self, record: Mapping[str, Any]) -> bool:
        """Makes the folder one of a run, or goes on with it.

        Args:
            record: What is run, and how.

        Returns:
            Whether it goes on with an earlier start.

        Raises:
            ConfigError: It has another run, or something else; or it cannot be written; field "out".
        """
        if self.file(_RECORD).exists():
            known = self.record()
            for name in _COMPARED:
                if known.get(name) != json.loads(json.dumps(record[name])):
                    raise ConfigError(
                        f"{self.path} has a run with {name} = {known.get(name)!r}, and now it is {record[name]!r}. "
                        "Name another folder.",
                        field="out",
                    )
            return True
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path} exists, and is no folder of a run. Name another one.", field="out")
        self.write(_RECORD, {"format": _FORMAT, **record})
        return False

    def write(self, name: str, content: Mapping[str, Any] | str | bytes) -> Path:
        """Writes a file of it, whole or not at all; a mapping as JSON.

        Raises:
            ConfigError: It cannot be written; field "out".
        """
        if isinstance(content, Mapping):
            content = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        data = content.encode() if isinstance(content, str) else content
        path = self.file(name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}.", field="out") from error
        return path
