"""Where files of the program's own are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where converted weights and compiled programs are kept: `xai-sidecar` in $XDG_CACHE_HOME or ~/.cache."""
    # The XDG base directory specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "xai-sidecar"


def data_folder() -> Path:
    """Where what has been measured is kept: `xai-sidecar` in $XDG_DATA_HOME or ~/.local/share."""
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local" / "share") / "xai-sidecar"
