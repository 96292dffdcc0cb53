"""Arrays that take long to compute, kept on disk a shard at a time, so that an interruption loses one shard at most."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xai_sidecar.engine.work import Array
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.files import write_whole

_OURS = "ood-features"
"""The subfolder of the cache that is emptied of what is old; nothing outside of it is ever removed."""

_KEPT = 2
"""Trainings whose shards are kept; the least recently used ones go."""

Shard = dict[str, Array]


class ShardCache:
    """The shards of one training.

    Args:
        root: The cache folder.
        parts: All that the shards depend on; their repr counts.

    Raises:
        ConfigError: The folder cannot be written.
    """

    def __init__(self, root: Path, *parts: object) -> None:
        self.folder = root / _OURS / digest_of(*parts)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        _tidy(self.folder.parent)

    def load(self, name: str) -> Shard | None:
        """A shard; None if it is not there, or not whole."""
        try:
            # Through memory, since a damaged file would otherwise show only when an array is asked for.
            with np.load(io.BytesIO((self.folder / name).read_bytes()), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def compute(self, name: str, make: Callable[[], Shard]) -> Shard:
        """Computes a shard and keeps it.

        Raises:
            ConfigError: It cannot be written.
        """
        shard = make()
        content = io.BytesIO()
        np.savez(content, **shard)
        try:
            write_whole(self.folder / name, content.getvalue())
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        return shard


def digest_of(*parts: object) -> str:
    """A short digest of the repr of things."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]


def _unwritable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"features cannot be kept in {folder}: {error}. Free or allow that folder, or point XDG_CACHE_HOME to another."
    )


def _tidy(ours: Path) -> None:
    with contextlib.suppress(OSError):
        folders = sorted(ours.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in folders[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
