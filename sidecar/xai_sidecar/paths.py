"""Folders for the program's own files."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Folder of converted weights and compiled programs: `xai-sidecar` in $XDG_CACHE_HOME or ~/.cache."""
    # The XDG base directory specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "xai-sidecar"


def data_folder() -> Path:
    """Folder of measured quality: `xai-sidecar` in $XDG_DATA_HOME or ~/.local/share."""
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "xai-sidecar"
