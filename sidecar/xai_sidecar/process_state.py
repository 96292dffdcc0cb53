"""Protects process-wide settings that the server relies on from a user's code.

A model's module often comes from a training script and changes settings for that: warnings become errors, truncated
pictures are accepted, logs are switched off, the working directory changes. The changes last while that code runs.
"""

from __future__ import annotations

import gc
import locale
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from PIL import Image, ImageFile, PngImagePlugin

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Setting:
    """A process-wide setting.

    Attributes:
        name: Its name in logs.
        get: Returns its value.
        put: Restores a value that `get` returned.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]


def _attribute(owner: Any, name: str, shown: str) -> _Setting:
    return _Setting(f"{shown}.{name}", lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _error_filters() -> list[Any]:
    """Filters that turn warnings into errors; others, which libraries add, are left alone."""
    return [each for each in warnings.filters if each[0] == "error"]


def _put_error_filters(before: list[Any]) -> None:
    kept = [each for each in warnings.filters if each[0] != "error" or each in before]
    warnings.filters[:] = kept  # type: ignore[index]


_SETTINGS = (
    _attribute(ImageFile, "LOAD_TRUNCATED_IMAGES", "PIL.ImageFile"),
    _attribute(Image, "MAX_IMAGE_PIXELS", "PIL.Image"),
    _attribute(PngImagePlugin, "MAX_TEXT_CHUNK", "PIL.PngImagePlugin"),
    _attribute(PngImagePlugin, "MAX_TEXT_MEMORY", "PIL.PngImagePlugin"),
    _Setting("warnings as errors", _error_filters, _put_error_filters),
    _Setting("numpy.seterr", np.geterr, lambda before: np.seterr(**before)),
    _Setting("logging.disable", lambda: logging.root.manager.disable, logging.disable),
    _attribute(logging, "lastResort", "logging"),
    _Setting("structlog.configure", structlog.get_config, lambda before: structlog.configure(**before)),
    _attribute(sys, "stdout", "sys"),
    _attribute(sys, "stderr", "sys"),
    _Setting("sys.setswitchinterval", sys.getswitchinterval, sys.setswitchinterval),
    _Setting("sys.setrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("socket.setdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout),
    _Setting("locale", lambda: locale.setlocale(locale.LC_ALL), lambda before: locale.setlocale(locale.LC_ALL, before)),
    _Setting("gc.disable", gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    _Setting("gc.set_threshold", gc.get_threshold, lambda before: gc.set_threshold(*before)),
    _Setting("os.chdir", os.getcwd, os.chdir),
)


@contextmanager
def held() -> Iterator[None]:
    """Restores settings that are changed inside, and logs a warning that names them.

    Some settings are per thread: use it on the thread that goes on afterwards.
    """
    before = [setting.get() for setting in _SETTINGS]
    try:
        yield
    finally:
        changed = []
        for setting, value in zip(_SETTINGS, before, strict=True):
            if setting.get() != value:
                setting.put(value)
                changed.append(setting.name)
        if changed:
            _log.warning("settings_put_back", changed=changed, by="the model's module or factory")
