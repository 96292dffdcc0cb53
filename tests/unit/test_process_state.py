"""What a model's module does to the process does not outlast its loading."""

import gc
import locale
import logging
import os
import socket
import sys
import warnings

import numpy as np
import pytest
import structlog
from PIL import Image, ImageFile, PngImagePlugin
from structlog.testing import capture_logs

from xai_sidecar.process_state import held


def silence():
    structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])


CHANGES = {
    "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
    "PIL.Image.MAX_IMAGE_PIXELS": lambda: setattr(Image, "MAX_IMAGE_PIXELS", 12),
    "PIL.PngImagePlugin.MAX_TEXT_CHUNK": lambda: setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 12),
    "PIL.PngImagePlugin.MAX_TEXT_MEMORY": lambda: setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 12),
    "warnings as errors": lambda: warnings.simplefilter("error", FutureWarning),
    "numpy.seterr": lambda: np.seterr(all="raise"),
    "logging.disable": lambda: logging.disable(logging.CRITICAL),
    "logging.lastResort": lambda: setattr(logging, "lastResort", None),
    "structlog.configure": silence,
    "sys.stdout": lambda: setattr(sys, "stdout", None),
    "sys.stderr": lambda: setattr(sys, "stderr", None),
    "sys.setswitchinterval": lambda: sys.setswitchinterval(1.0),
    "sys.setrecursionlimit": lambda: sys.setrecursionlimit(5000),
    "socket.setdefaulttimeout": lambda: socket.setdefaulttimeout(0.01),
    "locale": lambda: locale.setlocale(locale.LC_ALL, other_locale()),
    "gc.disable": gc.disable,
    "gc.set_threshold": lambda: gc.set_threshold(1, 1, 1),
    "os.chdir": lambda: os.chdir("/"),
}


def other_locale():
    return "C" if locale.setlocale(locale.LC_ALL) != "C" else "C.UTF-8"


def state():
    return {
        "pillow": (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS),
        "text": (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY),
        "warnings": [each for each in warnings.filters if each[0] == "error"],
        "numpy": np.geterr(),
        "logging": (logging.root.manager.disable, logging.lastResort),
        "structlog": structlog.get_config(),
        "sys": (sys.stdout, sys.stderr, sys.getswitchinterval(), sys.getrecursionlimit()),
        "rest": (socket.getdefaulttimeout(), locale.setlocale(locale.LC_ALL), os.getcwd()),  # noqa: PTH109
        "gc": (gc.isenabled(), gc.get_threshold()),
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_put_back_and_told_of(name):
    before = state()
    with capture_logs() as logs:
        with held():
            CHANGES[name]()
            assert state() != before
        assert state() == before
    assert [(entry["log_level"], entry["changed"]) for entry in logs] == [("warning", [name])]


def test_all_of_them_by_a_factory_that_fails():
    before = state()
    with capture_logs() as logs, pytest.raises(ZeroDivisionError), held():
        for change in CHANGES.values():
            change()
        1 / 0  # noqa: B018
    assert state() == before
    assert set(logs[0]["changed"]) == set(CHANGES)


def test_other_filters_stay_and_nothing_is_told_of_nothing():
    class OwnWarning(UserWarning):
        """Of a library's."""

    with warnings.catch_warnings(), capture_logs() as logs:
        with held():
            warnings.simplefilter("ignore", OwnWarning)
        assert any(each[2] is OwnWarning for each in warnings.filters)
    assert logs == []
