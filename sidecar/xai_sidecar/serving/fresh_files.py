"""What was made of files, made anew when they change."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from xai_sidecar.errors import ConfigError

T = TypeVar("T")

_LOOK_SECONDS = 0.25
"""How long the files are taken to be as they were: a look at them costs some microseconds, and calls come often."""

_SETTLED_SECONDS = 0.2
"""Files that changed less long ago may be half written: an empty list of tokens would be a valid one."""

_log = structlog.get_logger(__name__)


class FreshFiles(Generic[T]):
    """What was made of files; any thread may ask.

    Files are replaced one after the other: what does not fit together, or is wrong, is left alone, with a warning, and
    what was made before goes on to be used until they are right.

    Args:
        key: The key of the config that names them, for warnings.
        paths: The files.
        make: Makes it, of files that may change meanwhile.

    Raises:
        ConfigError: What `make` raises at first.
    """

    def __init__(self, key: str, paths: Sequence[Path], make: Callable[[], T]) -> None:
        self._key = key
        self._paths = paths
        self._make = make
        self._lock = threading.Lock()
        self._seen = self._changing = self._state()
        self._value = make()
        self._looked = time.monotonic()

    def current(self) -> T:
        """What was last made of them."""
        if time.monotonic() >= self._looked + _LOOK_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        self._looked = time.monotonic()
        state = self._state()  # before they are read: what changes meanwhile is seen at the next look
        if state == self._seen or not self._is_settled(state):
            return
        self._seen = state
        try:
            self._value = self._make()
        except ConfigError as error:
            _log.warning("files_not_taken", key=self._key, message=str(error))
        else:
            _log.info("files_taken", key=self._key)

    def _is_settled(self, state: list[tuple[int, int, int] | None]) -> bool:
        """Whether nobody is writing them just now, as far as their times or two looks tell."""
        latest = max((each[2] for each in state if each is not None), default=0)
        before, self._changing = self._changing, state
        return state == before or time.time_ns() - latest > _SETTLED_SECONDS * 1e9

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_state(path) for path in self._paths]


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file's content; links are followed, since Kubernetes replaces these."""
    try:
        found = os.stat(path)  # noqa: PTH116 - twice as quick
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
